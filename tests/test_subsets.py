"""The exact losses of sets of removed weights equal a loop over L(w ∘ mask); the best set is the best of all."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimal_nn import (
    BinaryCrossEntropy,
    Conv2d,
    Flatten,
    Linear,
    Network,
    Objective,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    SquaredError,
    Tanh,
    curvature,
    memory,
)
from pruning import exact
from pruning.exact import subsets
from tests.cases import CASES, CHAINS, assert_close, identify, make_case

each_case = pytest.mark.parametrize("case", CASES, ids=identify)


def plain(L, w, masks):
    return np.array([L(w * mask) for mask in masks])


def some_masks(case, seed=0):
    """All kept, all removed, each layer's parameters removed, random ones at three densities, and all of them twice."""
    rng, P = np.random.default_rng(seed), len(case.w)
    rows = [np.ones(P, bool), np.zeros(P, bool)]
    for name in case.L.network.layout:
        rows.append(np.ones(P, bool))
        rows[-1][case.L.network.layout[name]] = False
    rows += [rng.random(P) < density for density in (0.1, 0.5, 0.9) for _ in range(4)]
    return np.array(rows + rows)


def some_candidates(case, n, seed=0):
    among = np.zeros(len(case.w), bool)
    among[np.random.default_rng(seed).choice(len(case.w), min(n, len(case.w)), replace=False)] = True
    return among


@each_case
def test_losses_equal_a_loop_over_the_masks(case):
    masks = some_masks(case)
    assert_close(exact.losses(case.L, case.w, masks), plain(case.L, case.w, masks))


@each_case
def test_losses_in_pieces_are_the_same(case, monkeypatch):
    masks = some_masks(case)
    monkeypatch.setattr(memory.pieces, "__defaults__", (1.0,))
    monkeypatch.setattr(subsets, "_BLOCK", 1)
    assert_close(exact.losses(case.L, case.w, masks), plain(case.L, case.w, masks))


@pytest.mark.parametrize("case", CHAINS, ids=identify)
def test_masks_that_share_columns_have_the_losses_of_a_loop(case):
    rng = np.random.default_rng(1)
    masks = rng.random((40, len(case.w))) < 0.7
    first = next(own for own in case.L.network.parameters(masks) if own)
    for view in first.values():
        for b in range(view.shape[-1]):
            view[..., b] = view[rng.integers(0, 3, len(view)), ..., b]
    assert_close(exact.losses(case.L, case.w, masks), plain(case.L, case.w, masks))


@st.composite
def chains(draw):
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    phi = draw(st.sampled_from([Tanh(), ReLU(), Sigmoid()]))
    layers = [phi] if draw(st.booleans()) else []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [Linear(inputs, outputs, bias=draw(st.booleans())), phi]
    loss = draw(st.sampled_from([SoftmaxCrossEntropy(), SquaredError(2.0), BinaryCrossEntropy(0.5)]))
    case = make_case(
        "drawn",
        *layers[: len(layers) - draw(st.integers(0, 1))],
        loss=loss,
        l2=draw(st.sampled_from([0.0, 0.3])),
        n=draw(st.integers(1, 6)),
        seed=draw(st.integers(0, 100)),
    )
    rng = np.random.default_rng(draw(st.integers(0, 100)))
    w = case.w * (rng.random(len(case.w)) < draw(st.sampled_from([0.5, 1.0])))
    return case.L, w, rng.random((12, len(w))) < draw(st.sampled_from([0.2, 0.5, 0.8]))


@given(chains())
@settings(max_examples=60, deadline=None)
def test_losses_equal_a_loop_for_any_chain(drawn):
    L, w, masks = drawn
    assert_close(exact.losses(L, w, masks), plain(L, w, masks))


@dataclass(frozen=True)
class Counting(Tanh):
    """A tanh that tells for how many rows it was asked."""

    rows: list

    def forward(self, p, x):
        self.rows.append(len(x))
        return super().forward(p, x)


def test_each_different_column_is_answered_once():
    phi = Counting([])
    case = make_case("counted", Linear(4, 5), phi, Linear(5, 3))
    masks = np.random.default_rng(0).random((200, len(case.w))) < 0.9
    view = case.L.network.layout.unflatten(masks)
    view["0.weight"][:100] = view["0.weight"][0]
    view["0.weight"][100:] = view["0.weight"][1]
    view["0.bias"][...] = True
    view["2.weight"][:, :, 0] = True
    pool = {(b, tuple(view["0.weight"][m, :, b])) for m in (0, 199) for b in range(5)}
    exact.losses(case.L, case.w, masks)
    assert phi.rows == [len(pool)]


def test_masks_that_no_output_can_tell_apart_are_computed_once(monkeypatch):
    case = make_case("cut off", Linear(3, 2), Tanh(), Linear(2, 2), l2=0.2)
    masks = np.ones((64, len(case.w)), bool)
    view = case.L.network.layout.unflatten(masks)
    view["2.weight"][:, 0] = False
    view["0.weight"][:, :, 0] = np.random.default_rng(0).random((64, 3)) < 0.5
    computed = []
    whole = subsets.chain_losses
    monkeypatch.setattr(subsets, "chain_losses", lambda L, w, masks: computed.append(len(masks)) or whole(L, w, masks))
    assert_close(exact.losses(case.L, case.w, masks), plain(case.L, case.w, masks))
    assert computed == [1]


def test_other_networks_take_one_pass_for_each_different_mask(monkeypatch):
    case = make_case("counted", Conv2d(1, 2, 2), Tanh(), Flatten(), Linear(8, 2), image=(1, 3, 3))
    case.w[0] = 0
    masks = np.ones((6, len(case.w)), bool)
    masks[2:4, 3] = masks[4, 0] = False
    expected, calls, call = plain(case.L, case.w, masks), [], Objective.__call__
    monkeypatch.setattr(Objective, "__call__", lambda L, w: calls.append(1) or call(L, w))
    assert_close(exact.losses(case.L, case.w, masks), expected)
    assert len(calls) == 2


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), BinaryCrossEntropy()], ids=repr)
@pytest.mark.parametrize("factor", [30.0, 1e4])
def test_losses_of_saturated_outputs_neither_overflow_nor_lose_their_digits(loss, factor):
    case = make_case("saturated", Linear(4, 5), Tanh(), Linear(5, 3), loss=loss)
    w = case.w * factor
    masks = some_masks(case)
    a, b = exact.losses(case.L, w, masks), plain(case.L, w, masks)
    assert_close(a / b, np.ones(len(b)), 1e-11)


def test_a_tiny_loss_keeps_its_relative_precision():
    net = Network(Linear(1, 2, bias=False))
    L = Objective(net, SoftmaxCrossEntropy(), np.array([[1.0], [0.5]]), np.array([0, 0]))
    (value,) = exact.losses(L, np.array([60.0, -20.0]), np.ones((1, 2), bool))
    assert_close(value, (np.exp(-80) + np.exp(-40)) / 2)


def test_losses_stay_in_float32_and_leave_w_and_the_masks_alone():
    for case in CASES:
        if "convolution" in case.name:
            continue
        w, masks = case.w.astype(np.float32), some_masks(case)
        before = w.copy(), masks.copy()
        a = exact.losses(case.L, w, masks)
        assert a.dtype == np.float32
        assert_close(a, plain(case.L, case.w, masks), 1e-5, scale=1.0)
        assert (w == before[0]).all()
        assert (masks == before[1]).all()


@pytest.mark.parametrize("case", CHAINS[:12], ids=identify)
def test_the_complex_step_through_the_losses_is_the_gradient(case):
    masks, j = some_masks(case)[:6], len(case.w) // 2
    w = case.w.astype(complex)
    w[j] += 1e-30j
    gradient = [(mask * case.L.gradient(case.w * mask))[j] for mask in masks]
    assert_close(exact.losses(case.L, w, masks).imag / 1e-30, gradient, 1e-11, scale=1e-3)


def test_no_masks_have_no_losses():
    case = CASES[0]
    assert exact.losses(case.L, case.w, np.ones((0, len(case.w)), bool)).shape == (0,)


@each_case
def test_pairs_equal_a_double_loop_and_their_diagonal_is_the_saliency(case):
    among = some_candidates(case, 5)
    candidates = np.flatnonzero(among)
    expected = np.empty((len(candidates), len(candidates)))
    for row, j in enumerate(candidates):
        for column, k in enumerate(candidates):
            w = case.w.copy()
            w[j] = w[k] = 0
            expected[row, column] = case.L(w)
    pairs = exact.pairs(case.L, case.w, among)
    assert_close(pairs, expected)
    assert (pairs == pairs.T).all()
    before = case.L(case.w)
    assert_close(np.diag(pairs) - before, exact.saliency(case.L, case.w)[among], scale=pairs.max())


def test_pairs_of_all_weights_in_pieces_are_the_same(monkeypatch):
    case = make_case("few", Linear(2, 3), Tanh(), Linear(3, 2), l2=0.1)
    whole = exact.pairs(case.L, case.w)
    assert whole.shape == (17, 17)
    monkeypatch.setattr(memory.pieces, "__defaults__", (1000.0,))
    assert_close(exact.pairs(case.L, case.w), whole)


def test_the_interaction_of_a_quadratic_loss_is_its_hessian_times_the_weights():
    case = make_case("least squares", Linear(4, 3), loss=SquaredError(), l2=0.2)
    pairs, before = exact.pairs(case.L, case.w), case.L(case.w)
    s = np.diag(pairs) - before
    expected = curvature.hessian(case.L, case.w) * np.outer(case.w, case.w)
    interaction = pairs - before - s[:, None] - s
    off = ~np.eye(len(s), dtype=bool)
    assert_close(interaction[off], expected[off], 1e-11)


@pytest.mark.parametrize("case", CASES[::3], ids=identify)
def test_the_best_subset_is_the_best_of_all(case):
    among = some_candidates(case, 6)
    for k in (0, 1, 3, among.sum()):
        k = min(k, among.sum())
        values = {}
        for removed in itertools.combinations(np.flatnonzero(among), k):
            mask = np.ones(len(case.w), bool)
            mask[list(removed)] = False
            values[removed] = case.L(case.w * mask)
        found = exact.best_subsets(case.L, case.w, int(k), among)
        assert found.examined == len(values)
        assert found.mask[~among].all()
        assert (~found.mask).sum() == k
        assert_close(found.loss, min(values.values()))
        assert_close(case.L(case.w * found.mask), found.loss)


def test_the_best_subset_is_found_across_pieces(monkeypatch):
    case = make_case("pieces", Linear(3, 3), Tanh(), Linear(3, 2))
    whole = exact.best_subsets(case.L, case.w, 3)
    monkeypatch.setattr(memory.pieces, "__defaults__", (20000.0,))
    cut = exact.best_subsets(case.L, case.w, 3)
    assert (cut.mask == whole.mask).all()
    assert cut.examined == whole.examined == 1140


def test_with_orthogonal_inputs_the_smallest_weights_go():
    x = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 8)))[0]
    w = np.random.default_rng(1).standard_normal(8)
    L = Objective(Network(Linear(8, 1, bias=False)), SquaredError(), x, x @ w[:, None])
    best = exact.best_subsets(L, w, 3)
    smallest = np.argsort(w**2)[:3]
    assert set(np.flatnonzero(~best.mask)) == set(smallest)
    assert_close(best.loss, (w[smallest] ** 2).sum() / 24)


def test_ties_go_to_the_first_set_in_lexicographic_order():
    case = next(c for c in CASES if c.name == "dead relu unit")
    among = np.zeros(len(case.w), bool)
    case.L.network.layout.unflatten(among)["0.weight"][:, 0] = True
    best = exact.best_subsets(case.L, case.w, 2, among)
    assert np.flatnonzero(~best.mask).tolist() == np.flatnonzero(among)[:2].tolist()
    x = np.array([[0.1, 0.2, 0.3], [0.7, -0.4, 0.1]])
    net = Network(Linear(3, 3, bias=False), Tanh(), Linear(3, 1, bias=False))
    L = Objective(net, SquaredError(), x, np.array([[0.3], [0.1]]), l2=0.1)
    symmetric = np.concatenate([np.repeat([0.4, -0.3, 0.7], 3), np.full(3, 0.6)])
    units = np.arange(12) >= 9
    assert np.flatnonzero(~exact.best_subsets(L, symmetric, 1, units).mask).tolist() == [9]
    assert np.flatnonzero(~exact.best_subsets(L, symmetric, 2, units).mask).tolist() == [9, 10]


def test_removing_more_can_cost_less_so_that_a_partial_set_bounds_nothing():
    L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), np.array([[1.0, 1.0]]), np.array([[0.0]]))
    w = np.array([1.0, -1.0])
    losses = [exact.best_subsets(L, w, k).loss for k in range(3)]
    assert losses == [0, 0.5, 0]


def test_errors_name_the_argument_and_what_was_expected():
    case = CASES[0]
    L, w, P = case.L, case.w, len(case.w)
    with pytest.raises(ValueError, match=rf"masks: expected shape \(any, {P}\), got bool of shape \({P},\)"):
        exact.losses(L, w, np.ones(P, bool))
    with pytest.raises(ValueError, match="masks: expected dtype bool, got float64"):
        exact.losses(L, w, np.ones((2, P)))
    with pytest.raises(ValueError, match=rf"w: expected shape \({P},\)"):
        exact.losses(L, w[1:], np.ones((2, P), bool))
    with pytest.raises(ValueError, match="among: expected dtype bool"):
        exact.pairs(L, w, np.arange(3))
    with pytest.raises(ValueError, match=rf"among: expected shape \({P},\)"):
        exact.best_subsets(L, w, 1, np.ones(3, bool))
    with pytest.raises(ValueError, match=rf"k: expected an integer >= 0 <= {P}, got {P + 1}"):
        exact.best_subsets(L, w, P + 1)
    with pytest.raises(ValueError, match="k: 3 of 43 candidates can be removed in 12,341 ways; limit is 12,340"):
        exact.best_subsets(L, w, 3, limit=12_340)
    with pytest.raises(ValueError, match="limit: expected an integer >= 1"):
        exact.best_subsets(L, w, 1, limit=0)
    with pytest.raises(ValueError, match="w: expected dtype float"):
        exact.best_subsets(L, w.astype(complex), 1)


def test_temporaries_stay_within_the_memory_budget(monkeypatch):
    case = make_case("wide", Linear(60, 40), Tanh(), Linear(40, 10), n=50)
    masks = np.random.default_rng(0).random((1500, len(case.w))) < 0.5
    budget = 2**25
    monkeypatch.setattr(memory.pieces, "__defaults__", (float(budget),))
    tracemalloc.start()
    exact.losses(case.L, case.w, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < budget + masks.nbytes / 2


def test_outputs_that_overflow_are_an_error_and_no_number():
    case = make_case("overflow", Linear(2, 2), ReLU(), Linear(2, 2))
    with pytest.raises(FloatingPointError), np.errstate(all="ignore"):
        exact.losses(case.L, np.full(len(case.w), 1e200), np.ones((1, len(case.w)), bool))
