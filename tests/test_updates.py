"""Updates: compensation beside Lagrange's conditions, surgery beside fresh inverses, reconstruction beside lstsq."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimal_nn import BatchNorm, Conv2d, Flatten, Linear, Residual, SquaredError, Tanh, curvature, optimizers
from pruning import criteria, exact, updates
from tests.cases import CASES, assert_close, identify, make_case
from tests.test_criteria_of_layers import layers_of, responses

each_case = pytest.mark.parametrize("case", CASES, ids=identify)
DAMPING = 50.0


def by_lagrange(M, g, w, gone, present):
    """The minimum of gᵀδ + ½ δᵀMδ over δ with δ_gone = −w_gone, δ = 0 outside present: one linear system."""
    P, fixed = len(w), np.flatnonzero(gone | ~present)
    E = np.eye(P)[:, fixed]
    system = np.block([[M, E], [E.T, np.zeros((len(fixed), len(fixed)))]])
    delta = np.linalg.solve(system, np.concatenate([-g, np.where(gone, -w, 0)[fixed]]))[:P]
    return w + delta


@each_case
def test_compensation_is_the_constrained_minimum_of_the_quadratic_model(case):
    L, w = case.L, case.w
    rng = np.random.default_rng(0)
    active = rng.random(len(w)) < 0.8
    mask = rng.random(len(w)) < 0.7
    at = w * active
    M = curvature.hessian(L, at) + DAMPING * np.eye(len(w))
    gone = active & ~mask
    for update, g in ((updates.obs, np.zeros_like(w)), (updates.obs_gradient, L.gradient(at))):
        found = update(L, w, mask, active=active, damping=DAMPING)
        assert_close(found, by_lagrange(M, g, at, gone, active), 1e-10)
        assert not found[~(active & mask)].any()


@given(seed=st.integers(0, 10_000), n=st.integers(2, 8))
@settings(max_examples=40)
def test_surgery_leaves_the_joint_update_a_fresh_inverse_and_costs_that_add_up(seed, n):
    rng = np.random.default_rng(seed)
    X, w = rng.standard_normal((2 * n, n)), rng.standard_normal(n)
    H, k = X.T @ X / len(X) + 1e-3 * np.eye(n), int(rng.integers(0, n + 1))
    done = updates.surgery(H, w, k)
    gone = np.isin(np.arange(n), done.order)
    assert gone.sum() == k
    joint = by_lagrange(H, np.zeros(n), w, gone, np.ones(n, bool))
    assert_close(done.w, joint, 1e-9, scale=np.abs(w).max())
    assert (done.w[gone] == 0).all()
    assert_close(done.costs.sum(), 0.5 * (joint - w) @ H @ (joint - w), 1e-9, scale=1e-3)
    assert_close(done.inverse[np.ix_(~gone, ~gone)], np.linalg.inv(H[np.ix_(~gone, ~gone)]), 1e-8)
    assert not done.inverse[gone].any()
    assert not done.inverse[:, gone].any()


def test_surgery_takes_the_cheapest_each_time_among_its_candidates():
    rng = np.random.default_rng(1)
    X, w = rng.standard_normal((30, 7)), rng.standard_normal(7)
    H, among = X.T @ X / 30, np.array([True] * 5 + [False] * 2)
    done = updates.surgery(H, w, 4, among=among, damping=0.1)
    M, left, v = H + 0.1 * np.eye(7), np.ones(7, bool), w.copy()
    for j, cost in zip(done.order, done.costs, strict=True):
        here = np.flatnonzero(left)
        fresh = np.linalg.inv(M[np.ix_(here, here)])
        costs = dict(zip(here.tolist(), v[here] ** 2 / (2 * np.diag(fresh)), strict=True))
        allowed = {i: c for i, c in costs.items() if among[i]}
        assert j == min(allowed, key=allowed.get)
        assert cost == pytest.approx(allowed[j], rel=1e-9)
        v[here] -= v[j] / fresh[list(here).index(j), list(here).index(j)] * fresh[:, list(here).index(j)]
        left[j] = False
    assert left[5:].all()


def test_three_weights_of_which_magnitude_obd_and_obs_each_take_another():
    H, w = np.array([[1.0, 0, 0], [0, 2, -3], [0, -3, 5]]), np.array([3.0, 3, 2])
    assert np.argmin(np.abs(w)) == 2
    assert np.argmin(0.5 * np.diag(H) * w**2) == 0
    done = updates.surgery(H, w, 2)
    assert done.order.tolist() == [1, 2]
    assert_close(done.costs, [9 / 10, 1 / 10], 1e-12)
    assert_close(done.w, [3, 0, 0])
    both = exact_joint_cost = 0.5 * w[1:] @ np.linalg.inv(np.linalg.inv(H)[1:, 1:]) @ w[1:]
    assert both == pytest.approx(1)
    singles = w**2 / (2 * np.diag(np.linalg.inv(H)))
    assert exact_joint_cost != pytest.approx(singles[1] + singles[2]), "the sum of single costs is 19/10"


def test_on_a_quadratic_the_updates_reach_the_minimum_over_what_is_left():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    L, mask = case.L, np.arange(len(case.w)) % 3 > 0
    best = optimizers.newton(L, case.w, mask=mask)
    assert_close(updates.obs_gradient(L, case.w, mask), best.w, 1e-10)
    dense = optimizers.newton(L, case.w).w
    assert_close(updates.obs(L, dense, mask), best.w, 1e-10)
    j = 3
    alone = np.arange(len(dense)) != j
    assert L(updates.obs(L, dense, alone)) - L(dense) == pytest.approx(criteria.obs(L, dense)[j], rel=1e-10)


def test_compensating_a_set_is_not_the_sum_of_single_updates():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    L = case.L
    w = optimizers.newton(L, case.w).w
    mask = np.ones(len(w), bool)
    mask[[3, 7]] = False
    singles = w + sum(updates.obs(L, w, np.arange(len(w)) != j) - w for j in (3, 7))
    assert np.abs(singles[[3, 7]]).max() > 1e-3, "each single update moves the other one off 0"
    assert L(updates.obs(L, w, mask)) < L(singles * mask) - 1e-6


NETWORKS = [
    make_case("chain", Linear(4, 5), Tanh(), Linear(5, 3), n=25),
    make_case("no bias", Linear(4, 5, bias=False), Tanh(), Linear(5, 3, bias=False), n=25),
    make_case("images", Conv2d(1, 2, 2, padding=1), Tanh(), Flatten(), Linear(32, 2), n=12, image=(1, 3, 3)),
    make_case("residual", Linear(3, 3), Residual(Linear(3, 3), Tanh(), Linear(3, 3)), Linear(3, 2), n=20),
    make_case("few examples", Linear(6, 4), Tanh(), Linear(4, 2), n=3),
]


@pytest.mark.parametrize("case", NETWORKS, ids=identify)
@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("inputs", ["dense", "pruned"])
def test_reconstruction_is_the_least_squares_fit_of_every_layer(case, damping, inputs):
    mask = np.random.default_rng(0).random(len(case.w)) < 0.6
    found = updates.least_squares(case.L, case.w, mask, damping=damping, inputs=inputs)
    assert not found[~mask].any()
    layout = case.L.network.layout
    dense, fitted, kept = (layout.unflatten(v) for v in (case.w, found, mask))
    after = type(case)(case.name, case.L, found)
    for (prefix, layer, xs), (_, _, moved) in zip(layers_of(case), layers_of(after), strict=True):
        weights = list(responses(layer, xs))
        X = np.array([r for _, _, r in weights]).T
        X_new = np.array([r for _, _, r in responses(layer, moved if inputs == "pruned" else xs)]).T
        for o in range(layer.outputs):
            where = [(prefix + name, (o,) if name == "bias" else (at[0], o, *at[2:])) for name, at, _ in weights]
            w, w_new, on = (np.array([v[name][at] for name, at in where]) for v in (dense, fitted, kept))
            on = on.astype(bool)
            N = case.L.n_examples
            A = np.vstack([X_new[:, on] / np.sqrt(N), np.sqrt(damping) * np.eye(len(w))[:, on]])
            b = np.concatenate([(X @ w) / np.sqrt(N), np.sqrt(damping) * w])
            expected = w[on] + np.linalg.lstsq(A, b - A @ w[on], rcond=None)[0]
            assert_close(w_new[on], expected, 1e-8, scale=1)


def test_reconstruction_of_one_row_is_that_of_the_row_optimum():
    case = make_case("one layer", Linear(5, 1, bias=False), loss=SquaredError(), n=20)
    best = exact.row_optimum(case.L.x, case.w, 2, update=True)
    assert_close(updates.least_squares(case.L, case.w, best.mask), best.weights, 1e-10)


def test_nothing_removed_changes_nothing_and_batch_norm_is_only_masked():
    case = make_case("norm", Linear(3, 4), BatchNorm(4), Tanh(), Linear(4, 2), n=20)
    all_kept = np.ones(len(case.w), bool)
    assert_close(updates.least_squares(case.L, case.w, all_kept), case.w, 1e-10)
    assert (updates.zero(case.L, case.w, all_kept) == case.w).all()
    assert_close(updates.obs(case.L, case.w, all_kept, damping=DAMPING), case.w)
    mask = np.arange(len(case.w)) % 4 > 0
    gamma = case.L.network.layout["1.gamma"]
    assert (updates.least_squares(case.L, case.w, mask)[gamma] == (case.w * mask)[gamma]).all()
    nothing_left = np.zeros(len(case.w), bool)
    for update in (updates.zero, updates.obs, updates.obs_gradient, updates.least_squares):
        assert not update(case.L, case.w, nothing_left).any()


def test_float32_stays_and_w_is_not_changed():
    case = make_case("chain", Linear(4, 5), Tanh(), Linear(5, 3), n=25, l2=1.0)
    w, mask = case.w.astype(np.float32), np.arange(len(case.w)) % 3 > 0
    before = w.copy()
    for update in (updates.zero, updates.least_squares, lambda *a: updates.obs(*a, damping=10.0)):
        assert update(case.L, w, mask).dtype == np.float32
    assert (w == before).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda L, w, m: updates.zero(L, w[1:], m), "w: expected shape"),
        (lambda L, w, m: updates.zero(L, w, m[1:]), "mask: expected shape"),
        (lambda L, w, m: updates.zero(L, w, m * 1.0), "mask: expected dtype bool"),
        (lambda L, w, m: updates.obs(L, w, m), "H: expected a positive definite matrix, got least eigenvalue"),
        (lambda L, w, m: updates.obs(L, w, m, active=m[1:]), "active: expected shape"),
        (lambda L, w, m: updates.obs(L, w, m, damping=-1), "damping: expected a finite number in"),
        (lambda L, w, m: updates.least_squares(L, w, m, inputs="both"), "inputs: expected one of dense, pruned"),
        (lambda L, w, m: updates.least_squares(L, w, m, damping=np.nan), "damping: expected a finite number"),
        (lambda L, w, m: updates.surgery(np.eye(3), np.ones(2), 1), r"H: expected shape \(2, 2\)"),
        (lambda L, w, m: updates.surgery(np.zeros((2, 2)), np.ones(2), 1), "H: expected a positive definite matrix"),
        (lambda L, w, m: updates.surgery(np.eye(2), np.ones(2), 3), "k: expected an integer >= 0 <= 2, got 3"),
        (lambda L, w, m: updates.surgery(np.eye(2), np.ones(2), 2, among=np.array([True, False])), "k: expected an in"),
    ],
)
def test_wrong_arguments_are_one_clear_error(call, message):
    case = CASES[0]
    with pytest.raises(ValueError, match=message):
        call(case.L, case.w, np.arange(len(case.w)) % 2 > 0)
