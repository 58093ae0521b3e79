"""Criteria: each against a computation that shares no code with it, scale and sign included."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from minimal_nn import Linear, Network, Objective, ReLU, SquaredError, Tanh, curvature, differences, optimizers
from pruning import criteria, exact
from tests.cases import CASES, assert_close, identify, make_case

DAMPING = 50.0  # above the most negative eigenvalue of every case
each_case = pytest.mark.parametrize("case", CASES, ids=identify)

DETERMINISTIC = {
    "magnitude": criteria.magnitude,
    "taylor": criteria.taylor,
    "taylor_signed": criteria.taylor_signed,
    "taylor_second": criteria.taylor_second,
    "obd": criteria.obd,
    "obs": partial(criteria.obs, damping=DAMPING),
    "fisher": criteria.fisher,
    "fisher_empirical": criteria.fisher_empirical,
}
each_criterion = pytest.mark.parametrize("name", DETERMINISTIC)


def independent(case):
    """Every criterion from the complex step and plain loops."""
    L, w = case.L, case.w
    g = differences.complex_step_gradient(L, w)
    H = differences.complex_step_hessian(L, w)
    z = L.network.forward(w, L.x)
    J = differences.complex_step(lambda v: L.network.forward(v, L.x), w)  # (P, N, C)
    true, empirical = np.zeros_like(w), np.zeros_like(w)
    for n in range(L.n_examples):
        alone = L.subset([n])
        g_n = differences.complex_step_gradient(alone, w) - L.l2 * w
        empirical += g_n**2 / L.n_examples
        H_out = differences.complex_step(lambda a, n=n: L.loss.gradient(a[None], L.y[n : n + 1])[0], z[n])
        true += np.einsum("jc,cd,jd->j", J[:, n], H_out, J[:, n]) / L.n_examples
    inverse = np.linalg.inv(H + DAMPING * np.eye(len(w)))
    return {
        "magnitude": np.sqrt(w * w),
        "taylor": np.abs(w) * np.abs(g),
        "taylor_signed": -w * g,
        "taylor_second": 0.5 * w * w * np.diag(H) - w * g,
        "obd": 0.5 * w * w * np.diag(H),
        "obs": 0.5 * w * w / np.diag(inverse),
        "fisher": 0.5 * w * w * true,
        "fisher_empirical": 0.5 * w * w * empirical,
    }


@each_case
def test_every_criterion_equals_its_formula_by_another_route(case):
    expected = independent(case)
    assert set(expected) == set(DETERMINISTIC)
    for name, score in DETERMINISTIC.items():
        assert_close(score(case.L, case.w), expected[name], scale=1e-3)


WRONG = {
    "obd without its half": ("obd", lambda e, w: 2 * e["obd"]),
    "fisher without its half": ("fisher", lambda e, w: 2 * e["fisher"]),
    "empirical for true fisher": ("fisher", lambda e, w: e["fisher_empirical"]),
    "true for empirical fisher": ("fisher_empirical", lambda e, w: e["fisher"]),
    "square of the mean gradient for the mean of squares": ("fisher_empirical", lambda e, w: 0.5 * e["taylor"] ** 2),
    "taylor with the other sign": ("taylor_signed", lambda e, w: -e["taylor_signed"]),
    "taylor signed for absolute": ("taylor", lambda e, w: e["taylor_signed"]),
    "second order with a flipped first order": ("taylor_second", lambda e, w: 2 * e["obd"] - e["taylor_second"]),
    "obs under the name of obd": ("obd", lambda e, w: e["obs"]),
    "obd under the name of obs": ("obs", lambda e, w: e["obd"]),
    "magnitude squared": ("magnitude", lambda e, w: w**2),
    "obd of transposed weights": ("obd", lambda e, w: e["obd"][_transposed_first_layer(w)]),
}


def _transposed_first_layer(w):
    index = np.arange(len(w))
    index[:20] = index[:20].reshape(4, 5).T.ravel()
    return index


@pytest.mark.parametrize("slip", WRONG)
def test_a_wrong_variant_is_caught(slip):
    case = CASES[0]
    name, wrong = WRONG[slip]
    with pytest.raises(AssertionError):
        assert_close(wrong(independent(case), case.w), DETERMINISTIC[name](case.L, case.w), 1e-3)


def test_hand_case_of_a_least_squares_problem():
    """The four examples of chapter 1: every score by pencil."""
    x = np.array([[1.0, 0], [1, 1], [2, 1], [0, 1]])
    L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), x, x @ [[1.0], [2.0]])
    w = np.array([2.0, 1.0])
    assert criteria.taylor_signed(L, w).tolist() == [-3 / 2, 0]
    assert criteria.taylor(L, w).tolist() == [3 / 2, 0]
    assert criteria.obd(L, w).tolist() == [3, 3 / 8]
    assert criteria.taylor_second(L, w).tolist() == exact.saliency(L, w).tolist() == [3 / 2, 3 / 8]
    assert_close(criteria.obs(L, w), [3 / 2, 3 / 16])
    assert criteria.fisher_empirical(L, w).tolist() == [5 / 2, 1 / 4]
    assert_close(criteria.fisher(L, w), [3, 3 / 8])


@each_criterion
def test_a_permutation_of_hidden_units_permutes_the_scores(name):
    case = make_case("permuted", Linear(4, 5), Tanh(), Linear(5, 3), l2=0.1)
    order, P = np.array([3, 1, 0, 4, 2]), len(case.w)
    parts = case.L.network.layout.unflatten(np.arange(P))
    index = case.L.network.layout.flatten(
        {"0.weight": parts["0.weight"][:, order], "0.bias": parts["0.bias"][order],
         "2.weight": parts["2.weight"][order], "2.bias": parts["2.bias"]}
    )  # fmt: skip
    assert_close(DETERMINISTIC[name](case.L, case.w[index]), DETERMINISTIC[name](case.L, case.w)[index])


@each_criterion
def test_twice_the_same_examples_score_the_same(name):
    case = CASES[0]
    twice = case.L.subset(np.tile(np.arange(case.L.n_examples), 2))
    assert_close(DETERMINISTIC[name](twice, case.w), DETERMINISTIC[name](case.L, case.w))


@each_criterion
def test_rescaling_a_relu_layer_moves_magnitude_and_obs_alone(name):
    case = make_case("rescaled", Linear(4, 5), ReLU(), Linear(5, 3))
    w, layout = case.w.copy(), case.L.network.layout
    for part, factor in (("0.weight", 4.0), ("0.bias", 4.0), ("2.weight", 0.25)):
        w[layout[part]] *= factor
    before, after = DETERMINISTIC[name](case.L, case.w), DETERMINISTIC[name](case.L, w)
    if name in ("magnitude", "obs"):  # obs: its damping has a scale of its own
        assert np.abs(after - before).max() > 0.1 * np.abs(before).max()
    else:
        assert_close(after, before)


@each_criterion
def test_scores_leave_w_alone_keep_float32_and_put_what_is_gone_last(name):
    case = CASES[0]
    w = case.w.copy()
    active = np.arange(len(w)) % 3 > 0
    scores = DETERMINISTIC[name](case.L, w, active=active)
    assert (w == case.w).all()
    assert (scores[~active] == -np.inf).all()
    assert np.isfinite(scores[active]).all()
    assert (scores == DETERMINISTIC[name](case.L, w * active, active=active)).all(), "what is gone counts as 0"
    assert DETERMINISTIC[name](case.L, w.astype(np.float32)).dtype == np.float32


def test_obs_inverts_the_hessian_of_the_active_weights_alone():
    case = make_case("restricted", Linear(4, 3), l2=0.5)
    active = np.arange(len(case.w)) % 2 > 0
    H = curvature.hessian(case.L, case.w * active)[np.ix_(active, active)]
    scores = criteria.obs(case.L, case.w, active=active)
    assert_close(scores[active], case.w[active] ** 2 / (2 * np.diag(np.linalg.inv(H))))
    assert (criteria.obs(case.L, case.w, active=np.zeros(len(active), bool)) == -np.inf).all()


def test_at_the_minimum_of_a_quadratic_obs_is_the_rise_after_reoptimising():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    L = case.L
    w = optimizers.newton(L, case.w).w
    scores = criteria.obs(L, w)
    for j in range(len(w)):
        kept = np.arange(len(w)) != j
        assert_close(scores[j], optimizers.newton(L, w, mask=kept).value - L(w), 1e-10)


def test_taylor_second_is_exact_where_the_loss_is_quadratic():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    assert_close(criteria.taylor_second(case.L, case.w), exact.saliency(case.L, case.w))


def test_obd_and_fisher_are_one_score_on_relu_networks_without_decay():
    case = next(c for c in CASES if c.name == "relu")
    assert_close(criteria.obd(case.L, case.w), criteria.fisher(case.L, case.w))


def test_obs_on_an_indefinite_hessian_is_an_error_that_names_the_remedy():
    with pytest.raises(ValueError, match=r"least eigenvalue.*use l2 > 0 .* or pass a damping above"):
        criteria.obs(CASES[0].L, CASES[0].w)


def test_random_is_uniform_and_drawn_by_its_generator_alone():
    case = make_case("random", Linear(100, 50), n=1)
    a, b = (criteria.random(case.L, case.w, rng=np.random.default_rng(3)) for _ in range(2))
    assert (a == b).all()
    assert 0 <= a.min() < 0.01 < 0.99 < a.max() < 1
    assert a.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * len(a)))
    with pytest.raises(ValueError, match=r"rng: expected a numpy.random.Generator"):
        criteria.random(case.L, case.w, rng=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda L, w: criteria.obd(L, w[:-1]), "w: expected shape"),
        (lambda L, w: criteria.obd(L, w + 0j), "w: expected dtype float"),
        (lambda L, w: criteria.obd(L, w, active=np.ones(3, bool)), "active: expected shape"),
        (lambda L, w: criteria.obd(L, w, active=np.ones(len(w))), "active: expected dtype bool"),
        (lambda L, w: criteria.obs(L, w, damping=-1), "damping: expected a finite number in"),
    ],
)
def test_criteria_refuse_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(CASES[0].L, CASES[0].w)
