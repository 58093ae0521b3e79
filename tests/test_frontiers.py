"""The frontier: all losses, the best of every size, the best nested order, and the energies of interaction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from minimal_nn import BinaryCrossEntropy, Conv2d, Flatten, Linear, Network, Objective, ReLU, SquaredError, Tanh, memory
from pruning import exact
from pruning.exact import subsets
from tests.cases import CASES, assert_close, identify, make_case

each_case = pytest.mark.parametrize("case", CASES, ids=identify)
few_cases = pytest.mark.parametrize("case", CASES[::4], ids=identify)


def among_of(case, n=5):
    among = np.zeros(len(case.w), bool)
    among[np.random.default_rng(0).choice(len(case.w), min(n, len(case.w)), replace=False)] = True
    return among


def loss_without(case, removed):
    w = case.w.copy()
    w[list(removed)] = 0
    return case.L(w)


@each_case
def test_losses_of_all_subsets_are_those_of_a_loop(case):
    among = among_of(case)
    candidates = np.flatnonzero(among)
    expected = []
    for bits in range(2 ** len(candidates)):
        expected.append(loss_without(case, [j for i, j in enumerate(candidates) if bits >> i & 1]))
    f = exact.frontier(case.L, case.w, among)
    assert_close(f.losses, expected)
    assert_close(f.losses[0], case.L(case.w))


@each_case
def test_best_masks_attain_the_best_losses_and_no_nested_order_is_below(case):
    among = among_of(case)
    n, f = among.sum(), exact.frontier(case.L, case.w, among)
    assert_close([case.L(case.w * mask) for mask in f.masks], f.best)
    assert ((~f.masks).sum(axis=1) == np.arange(n + 1)).all()
    assert f.masks[:, ~among].all()
    assert (f.nested >= f.best).all()
    assert f.nested[0] == f.best[0] == f.losses[0]
    assert f.nested[n] == f.best[n] == f.losses[-1]
    s = exact.saliency(case.L, case.w)[among]
    assert_close(f.best[1] - f.best[0], s.min(), scale=f.losses.max())


@each_case
def test_nested_losses_are_those_along_the_order(case):
    among = among_of(case)
    f = exact.frontier(case.L, case.w, among)
    assert sorted(f.order) == np.flatnonzero(among).tolist()
    assert_close(f.nested, [loss_without(case, f.order[:k]) for k in range(len(f.order) + 1)])


@few_cases
def test_the_best_of_every_size_is_the_best_subset(case):
    among = among_of(case, 7)
    f = exact.frontier(case.L, case.w, among)
    for k, (loss, mask) in enumerate(zip(f.best, f.masks, strict=True)):
        best = exact.best_subsets(case.L, case.w, k, among)
        assert_close(loss, best.loss)
        assert (mask == best.mask).all()


@few_cases
def test_no_order_has_a_smaller_sum_of_losses(case):
    among = among_of(case, 6)
    candidates = np.flatnonzero(among).tolist()
    f = exact.frontier(case.L, case.w, among)
    of = {
        frozenset(s): loss_without(case, s)
        for k in range(len(candidates) + 1)
        for s in itertools.combinations(candidates, k)
    }
    least = min(
        sum(of[frozenset(order[:k])] for k in range(len(order) + 1)) for order in itertools.permutations(candidates)
    )
    assert_close(f.nested.sum(), least)
    greedy, removed = [of[frozenset()]], frozenset()
    while len(removed) < len(candidates):
        removed = min((removed | {j} for j in candidates if j not in removed), key=of.get)
        greedy.append(of[removed])
    assert f.nested.sum() <= sum(greedy) * (1 + 1e-12)


def test_the_best_nested_order_may_start_with_a_weight_that_is_not_the_cheapest():
    """Two weights that cancel cost nothing together, a third costs less alone than either of the two."""
    x, w = np.array([[2.0, 2.0, 0.0], [0.0, 0.0, 1.9]]), np.array([1.0, -1.0, 1.0])
    L = Objective(Network(Linear(3, 1, bias=False)), SquaredError(), x, (x @ w)[:, None])
    f = exact.frontier(L, w)
    assert_close(f.best, [0, 1.9**2 / 4, 0, 1.9**2 / 4])
    assert_close(f.nested, [0, 1, 0, 1.9**2 / 4])
    assert f.order[2] == 2


@few_cases
def test_energies_are_the_squared_walsh_coefficients_by_definition(case):
    f = exact.frontier(case.L, case.w, among_of(case))
    n = len(f.order)
    energies = np.zeros(n + 1)
    for T in range(2**n):
        c = np.mean([(-1) ** (S & T).bit_count() * f.losses[S] for S in range(2**n)])
        energies[T.bit_count()] += c**2
    assert_close(f.interactions, energies)
    assert_close(f.interactions[0], f.losses.mean() ** 2)
    assert_close(f.interactions[1:].sum(), f.losses.var(), scale=f.interactions[0])


def test_a_quadratic_loss_has_no_interaction_beyond_pairs_and_an_orthogonal_one_none():
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal(6), rng.standard_normal((9, 6))
    net = Network(Linear(6, 1, bias=False))
    f = exact.frontier(Objective(net, SquaredError(), x, rng.standard_normal((9, 1)), l2=0.1), w)
    assert f.interactions[3:].max() < 1e-25 * f.interactions.sum()
    assert f.interactions[2] > 1e-3 * f.interactions.sum()
    q = np.linalg.qr(x)[0]
    f = exact.frontier(Objective(net, SquaredError(), q, q @ w[:, None]), w)
    assert f.interactions[2:].max() < 1e-25 * f.interactions.sum()
    assert (f.order == np.argsort(w**2)).all()
    assert_close(f.nested, np.cumsum([0, *np.sort(w**2)]) / 18)
    assert_close(f.interactions[1], (w**4).sum() / 36**2)


@pytest.mark.parametrize("loss", [None, BinaryCrossEntropy()], ids=["softmax", "binary"])
def test_units_cut_off_by_their_outgoing_weights_leave_the_losses_exact(loss):
    case = make_case("cut", Linear(2, 2), Tanh(), Linear(2, 2), Tanh(), Linear(2, 2, bias=False), l2=0.3, loss=loss)
    case.w[3] = 0
    among = case.L.network.layout.select("weight")
    f = exact.frontier(case.L, case.w, among)
    candidates = np.flatnonzero(among)
    picked = np.random.default_rng(0).integers(0, 2**12, 400)
    expected = [loss_without(case, candidates[(S >> np.arange(12) & 1) == 1]) for S in picked]
    assert_close(f.losses[picked], expected)


def test_ties_go_to_the_first_set_in_lexicographic_order():
    case = make_case("ties", Linear(2, 3), ReLU(), Linear(3, 1), loss=SquaredError())
    case.L.network.layout.unflatten(case.w)["2.weight"][...] = 0
    among = case.L.network.layout.select("0.weight")
    f = exact.frontier(case.L, case.w, among)
    assert [np.flatnonzero(~mask).tolist() for mask in f.masks] == [list(range(k)) for k in range(7)]


def test_the_frontier_in_pieces_is_the_same(monkeypatch):
    dense = make_case("pieces", Linear(2, 2), Tanh(), Linear(2, 2), l2=0.1)
    image = make_case("pieces", Conv2d(1, 1, 2), Tanh(), Flatten(), Linear(4, 2, bias=False), image=(1, 3, 3), n=3)
    for case in (dense, image):
        among = case.L.network.layout.select("0.*")
        whole = exact.frontier(case.L, case.w, among)
        with monkeypatch.context() as patch:
            patch.setattr(memory.pieces, "__defaults__", (1000.0,))
            patch.setattr(subsets, "_BLOCK", 1)
            cut = exact.frontier(case.L, case.w, among)
        assert_close(cut.losses, whole.losses)
        assert (cut.masks == whole.masks).all()


def test_a_frontier_of_no_candidates_is_the_loss_alone():
    case = CASES[0]
    f = exact.frontier(case.L, case.w, np.zeros(len(case.w), bool))
    assert_close(f.losses, [case.L(case.w)])
    assert f.masks.all()
    assert f.order.shape == (0,)
    assert_close(f.interactions, f.losses**2)


def test_the_frontier_stays_in_float32():
    case = make_case("single", Linear(2, 2), Tanh(), Linear(2, 2), l2=0.1)
    f, expected = (exact.frontier(case.L, w) for w in (case.w.astype(np.float32), case.w))
    assert f.losses.dtype == f.best.dtype == f.nested.dtype == f.interactions.dtype == np.float32
    assert_close(f.losses, expected.losses, 1e-5)
    assert_close(f.interactions, expected.interactions, 1e-5)


def test_too_many_candidates_are_refused_with_their_count():
    case = make_case("many", Linear(10, 2), Tanh(), Linear(2, 1))
    with pytest.raises(ValueError, match="among: expected at most 22 candidates, whose subsets are all listed, got 25"):
        exact.frontier(case.L, case.w)
    with pytest.raises(ValueError, match="among: expected dtype bool"):
        exact.frontier(case.L, case.w, np.arange(25))
    with pytest.raises(ValueError, match=r"w: expected shape \(25,\)"):
        exact.frontier(case.L, case.w[:4])
