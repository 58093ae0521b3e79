"""Calibration, signs, halves, the parts of regret and greedy removal agree with their definitions."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minimal_nn import (
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    Linear,
    Network,
    Objective,
    ReLU,
    Residual,
    SquaredError,
    Tanh,
)
from minimal_nn.layers import sequence
from pruning import compare, exact, masks
from tests.cases import CASES, assert_close, identify, make_case

some_cases = pytest.mark.parametrize("case", CASES[::3], ids=identify)
pairs_of = st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), min_size=2, max_size=60).filter(
    lambda v: all(len(set(side)) > 1 for side in zip(*v, strict=True))
)


def linear_neuron(x=(2.0, 2.0, -3.0, 1.0)):
    """One input x, w = 1, the target its own output: ½(Σ of the removed)² is the loss, s = x²/2."""
    x = np.array([x])
    L = Objective(Network(Linear(x.shape[1], 1, bias=False)), SquaredError(), x, x.sum(axis=1, keepdims=True))
    return L, np.ones(x.shape[1])


def among_of(case, n=6):
    among = np.zeros(len(case.w), bool)
    among[np.random.default_rng(1).choice(len(case.w), min(n, len(case.w)), replace=False)] = True
    return among


def loss_without(L, w, removed):
    w = w.copy()
    w[list(removed)] = 0
    return L(w)


# calibration


@given(pairs=pairs_of)
def test_calibration_is_least_squares_and_counts_by_plain_loops(pairs):
    p, a = np.array(pairs, float).T
    found = compare.calibration(p, a)
    assert [found.slope, found.intercept] == pytest.approx(np.polyfit(p, a, 1), abs=1e-9)
    assert found.slope_through_origin == pytest.approx(np.linalg.lstsq(p[:, None], a)[0][0], abs=1e-12)
    mean = sum(a) / len(a)
    total = sum((v - mean) ** 2 for v in a)
    assert found.r2 == pytest.approx(1 - sum((v - u) ** 2 for u, v in pairs) / total, rel=1e-12, abs=1e-12)
    line = [found.intercept + found.slope * u for u in p]
    assert found.r2_line == pytest.approx(1 - sum((v - u) ** 2 for u, v in zip(line, a, strict=True)) / total, abs=1e-9)
    assert found.r2 <= found.r2_line + 1e-9
    members = [[] for _ in range(10)]
    for u, v in pairs:
        members[int(10 * sum(other < u for other in p) / len(p) + 1e-9)].append((u, v))
    assert found.counts.tolist() == [len(m) for m in members]
    for own, means in zip(members, found.deciles, strict=True):
        assert np.isnan(means).all() if not own else means == pytest.approx(np.mean(own, axis=0))


@given(seed=st.integers(0, 100), n=st.integers(10, 99))
def test_without_ties_deciles_are_equal_parts_in_order(seed, n):
    rng = np.random.default_rng(seed)
    p, a = rng.permutation(n).astype(float), rng.standard_normal(n)
    found = compare.calibration(p, a)
    assert found.counts.sum() == n
    assert np.ptp(found.counts) <= 1
    assert (np.diff(found.deciles[:, 0]) > 0).all()
    assert found.counts @ found.deciles == pytest.approx([p.sum(), a.sum()])


def test_calibration_by_hand():
    p = np.array([1.0, 2, 3, 4])
    found = compare.calibration(p, 2 * p + 1)
    assert (found.slope, found.intercept, found.r2_line) == pytest.approx((2, 1, 1))
    assert found.slope_through_origin == pytest.approx((3 + 10 + 21 + 36) / 30)
    assert found.r2 == pytest.approx(1 - (4 + 9 + 16 + 25) / 20), "worse than the mean: a wrong scale is not forgiven"
    assert found.counts.tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0, 0]
    same = compare.calibration(p, p)
    assert (same.slope, same.intercept, same.slope_through_origin, same.r2) == (1, 0, 1, 1)


def test_calibration_regresses_actual_on_predicted():
    p, a = np.array([0.0, 0, 4, 4]), np.array([0.0, 2, 0, 2])
    found = compare.calibration(p, a)
    assert found.slope == 0, "and not the other way round"
    assert found.intercept == 1
    found = compare.calibration(np.array([0.0, 1, 2, 3]), np.array([0.0, 1, 2, 5]))
    assert found.slope == pytest.approx(1.6), "not 1/1.75, which predicted on actual would be"


def test_second_order_is_calibrated_where_the_loss_is_quadratic_and_a_sized_score_is_not():
    case = make_case("quadratic", Linear(5, 3), loss=SquaredError(), n=20)
    s, terms = exact.saliency(case.L, case.w), exact.taylor_terms(case.L, case.w)
    found = compare.calibration(terms.first + terms.second, s)
    assert (found.slope, found.intercept, found.r2) == pytest.approx((1, 0, 1), abs=1e-10)
    assert compare.calibration(10 * s, s).r2_line == pytest.approx(1)
    assert compare.calibration(10 * s, s).slope == pytest.approx(0.1)
    assert compare.calibration(10 * s, s).r2 < -10


def test_r2_as_it_stands_is_what_the_taylor_terms_say():
    for case in CASES[:6]:
        terms = exact.taylor_terms(case.L, case.w)
        assert compare.calibration(terms.first, terms.saliency).r2 == pytest.approx(terms.explained(1), abs=1e-9)


def test_calibration_prints_a_table():
    lines = str(compare.calibration(np.arange(5.0), np.arange(5.0) ** 2)).splitlines()
    assert "actual = -2 + 4 · predicted" in lines[0]
    assert len(lines) == 12
    assert lines[1].split() == ["decile", "count", "predicted", "actual"]
    assert lines[2].split() == ["1", "1", "0.000e+00", "0.000e+00"]
    assert lines[3].split() == ["2", "0", "–", "–"]


# signs


@given(pairs=pairs_of)
def test_sign_agreement_counts_equal_signs(pairs):
    a, b = np.array(pairs, float).T
    same = [(u > 0 and v > 0) or (u < 0 and v < 0) or (u == 0 and v == 0) for u, v in pairs]
    assert compare.sign_agreement(a, b) == pytest.approx(sum(same) / len(same))
    assert compare.sign_agreement(b, a) == compare.sign_agreement(a, b)
    assert compare.sign_agreement(a, a) == 1
    assert compare.sign_agreement(a, -a) == pytest.approx((a == 0).mean())


def test_zero_agrees_with_zero_alone():
    assert compare.sign_agreement(np.array([0.0, 0, 0, -0.0]), np.array([0.0, 1, -1, 0])) == 0.5
    assert compare.sign_agreement(np.array([np.inf, -np.inf]), np.array([1.0, 1])) == 0.5


# half against half


@some_cases
def test_half_against_half_is_a_loop_over_the_halves(case):
    L, w = case.L, case.w
    if L.n_examples < 2:
        with pytest.raises(ValueError, match="at least 2 examples"):
            compare.half_against_half(L, w, rng=np.random.default_rng(0))
        return
    found = compare.half_against_half(L, w, 3, rng=np.random.default_rng(5))
    rng, n = np.random.default_rng(5), L.n_examples // 2
    here = L.network.layout.select("weight") & ~exact.split_half(L, w, 1, rng=np.random.default_rng(0)).dead
    assert found.entries == here.sum()
    for signed, absolute in zip(found.signed, found.absolute, strict=True):
        order = rng.permutation(L.n_examples)
        a, b = (exact.reference(L.subset(half), w)[here] for half in (order[:n], order[n:]))
        for value, (one, other) in ((signed, (a, b)), (absolute, (np.abs(a), np.abs(b)))):
            gaps = [np.diff(np.sort(v)) for v in (one, other)]
            if min(g.min(initial=1) for g in gaps) > 1e-12:  # ranks of ties are rounding
                assert value == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)


def test_half_against_half_leaves_out_what_multiplies_zeros_only():
    case = make_case("dead input", Linear(4, 5), Tanh(), Linear(5, 3), zero_input=2, n=12)
    layout = case.L.network.layout
    found = compare.half_against_half(case.L, case.w, 4, rng=np.random.default_rng(0))
    assert found.entries == layout.select("weight").sum() - 5
    halves = exact.split_half(case.L, case.w, 4, rng=np.random.default_rng(0))
    every = layout.select("weight")
    counted = [stats.spearmanr(a[every], b[every]).statistic for a, b in zip(halves.first, halves.second, strict=True)]
    assert np.abs(found.signed - counted).max() > 1e-3, "the dead weights would have changed it"
    given_all = compare.half_against_half(case.L, case.w, 4, rng=np.random.default_rng(0), among=every)
    assert (given_all.signed == found.signed).all(), "also where the candidates given hold them"
    some = np.arange(len(case.w)) < 9
    assert compare.half_against_half(case.L, case.w, 1, rng=np.random.default_rng(0), among=some).entries == 9
    silent = make_case("silent", Linear(4, 5), ReLU(), Linear(5, 3), n=12, alter=lambda p: p["0.bias"].put(0, -100))
    found = compare.half_against_half(silent.L, silent.w, 1, rng=np.random.default_rng(0))
    assert found.entries == 4 * 5 + 4 * 3, "nor what a unit that is always off multiplies"


# what is live


def weights_that_move_their_layer(L, w):
    """(P,) bool: whether 1 more in a weight of a Linear or Conv2d changes any output of that layer; True elsewhere."""
    w, moves = w.copy(), np.ones(len(w), bool)

    def visit(layers, p, moved, x):
        for layer, own, flags in zip(layers, p, moved, strict=True):
            y = layer.forward(own, x)
            if isinstance(layer, Residual):
                visit(layer.layers, *(sequence.split(layer.layers, v) for v in (own, flags)), x)
            elif isinstance(layer, (Linear, Conv2d)):
                for i in np.ndindex(own["weight"].shape):
                    before = own["weight"][i]
                    own["weight"][i] += 1
                    flags["weight"][i] = (layer.forward(own, x) != y).any()
                    own["weight"][i] = before
            x = y

    visit(L.network.layers, L.network.parameters(w), L.network.parameters(moves), L.x)
    return moves


def blackened(case, *where):
    """The case with the inputs at `where`, indices of one example, zero in every example."""
    L, x = case.L, case.L.x.copy()
    for at in where:
        x[(slice(None), *at)] = 0
    return Objective(L.network, L.loss, x, L.y, L.l2), case.w


def off(p):
    p["0.bias"][0] = -100


DEAD = {  # (L, w), how many weights only multiply zeros, and how many of them for any w
    "behind flatten": (*blackened(make_case("f", Flatten(), Linear(8, 4), Tanh(), Linear(4, 3), image=(2, 2, 2)),
                                  (0, 1, 0), (1, 1, 1)), 2 * 4, 2 * 4),
    "behind pooling": (*blackened(make_case("p", AvgPool2d(2), Flatten(), Linear(4, 3), image=(1, 4, 4)),
                                  (0, slice(2), slice(2))), 3, 3),
    "channel": (*blackened(make_case("c", Conv2d(2, 3, 2), Tanh(), Flatten(), Linear(12, 3), image=(2, 3, 3)),
                           (1,)), 3 * 4, 3 * 4),
    "padding": (*blackened(make_case("z", Conv2d(1, 2, 3, padding=1), Tanh(), Flatten(), Linear(2, 3),
                                     image=(1, 1, 1))), 2 * 8, 2 * 8),
    "first residual": (*blackened(make_case("r", Residual(Linear(4, 6), Tanh(), Linear(6, 4)), Linear(4, 3)),
                                  (2,)), 6, 6),
    "unit that is off": (*blackened(make_case("u", Linear(4, 5), ReLU(), Linear(5, 3), alter=off), (1,)), 5 + 3, 5),
    "unit that is off before a residual": (*blackened(make_case(
        "v", Linear(4, 5), ReLU(), Residual(Linear(5, 2), Tanh(), Linear(2, 5)), Linear(5, 3), alter=off)), 2, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", DEAD)
def test_weights_that_multiply_zeros_only_are_no_candidates_of_any_comparison(name):
    L, w, dead, always = DEAD[name]
    moves = weights_that_move_their_layer(L, w)
    assert (compare.live(L, w) == moves).all()
    assert (~moves).sum() == dead
    assert (~compare.live(L)).sum() == always
    assert (compare.live(L) | ~moves).all()
    here = L.network.layout.select("weight") & moves
    assert (compare.scoreboard(L, w, {}).among == here).all()
    assert compare.half_against_half(L, w, 1, rng=np.random.default_rng(0)).entries == here.sum()
    assert here[compare.exact_greedy(L, w, 2).order].all()


@some_cases
def test_live_weights_are_those_that_move_their_layer(case):
    assert (compare.live(case.L, case.w) == weights_that_move_their_layer(case.L, case.w)).all()
    assert compare.live(case.L)[compare.live(case.L, case.w)].all(), "without w no more is dead"


def test_inputs_behind_parameters_are_never_dead_for_every_w():
    case = make_case("norm first", BatchNorm(4, (0, 0, 0, 0), (1, 1, 1, 1)), Linear(4, 3), zero_input=2)
    assert compare.live(case.L).all(), "the shift of BatchNorm lifts the zeros"
    assert compare.live(case.L, case.w).all()


def test_halves_of_the_same_examples_twice_agree_and_the_spread_is_that_over_splits():
    case = make_case("halves", Linear(4, 5), Tanh(), Linear(5, 3), n=11)
    found = compare.half_against_half(case.L, case.w, 7, rng=np.random.default_rng(0))
    m = found.mean_and_sd()
    for name, values in (("signed", found.signed), ("absolute", found.absolute)):
        mean = sum(values) / 7
        assert m[name] == pytest.approx(mean)
        assert m[f"{name}_sd"] == pytest.approx((sum((v - mean) ** 2 for v in values) / 6) ** 0.5)
    assert f"signed {m['signed']:.3f} ± {m['signed_sd']:.3f}" in str(found)
    one = compare.half_against_half(case.L, case.w, 1, rng=np.random.default_rng(0))
    assert np.isnan(one.mean_and_sd()["signed_sd"])
    constant = compare.half_against_half(case.L, 0 * case.w, 2, rng=np.random.default_rng(0))
    assert np.isnan(constant.signed).all()
    x = np.repeat(case.L.x[:1], 6, axis=0)
    same = Objective(case.L.network, case.L.loss, x, np.repeat(case.L.y[:1], 6), l2=0.1)
    assert compare.half_against_half(same, case.w, 2, rng=np.random.default_rng(0)).signed == pytest.approx([1, 1])


# the parts of regret


def test_the_neuron_by_hand():
    L, w = linear_neuron()
    s = exact.saliency(L, w)
    assert s == pytest.approx([2, 2, 9 / 2, 1 / 2])
    c = np.array([1.0, 3, 2, 4])
    assert compare.spearman(c, s) == pytest.approx(-0.632, abs=5e-4)
    assert np.corrcoef(np.argsort(np.argsort(c)), np.argsort(np.argsort(s)))[0, 1] == pytest.approx(-0.4), "ties"
    found = compare.prices(exact.frontier(L, w), c)
    assert (found.one_shot - found.best)[1:4] == pytest.approx([0, 4, 25 / 2])
    assert found.criterion[2] == pytest.approx(1 / 2)
    assert found.regret[2] == pytest.approx(0), "correlation −0.63 and regret 0, where correlation 1 has regret 4"
    assert found.best[1:4] == pytest.approx([1 / 2, 1 / 2, 0])
    assert found.nested[1:4].sum() == pytest.approx(5 / 2)
    assert found.greedy[1:4] == pytest.approx([1 / 2, 2, 0])
    assert str(found).splitlines()[0].split()[:6] == ["k", "best", "nested", "greedy", "one_shot", "criterion"]


def test_the_xor_network_by_hand():
    x = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    net = Network(Linear(2, 2), ReLU(), Linear(2, 1, bias=False))
    L = Objective(net, SquaredError(), x, np.array([[0.0], [1], [1], [0]]))
    w = np.array([1.0, 1, 1, 1, 0, -1, 1, -2])
    among = net.layout.select("weight")
    found = compare.prices(exact.frontier(L, w, among), np.abs(w))
    assert found.best == pytest.approx([0, *[1 / 4] * 6])
    assert found.criterion[0] == 0
    assert found.criterion[6] == pytest.approx(1 / 4)


@some_cases
def test_prices_are_losses_of_masks_and_their_sum_is_the_regret(case):
    L, w, among = case.L, case.w, among_of(case)
    scores = np.random.default_rng(2).integers(0, 4, len(w)).astype(float)  # with ties
    n, found = int(among.sum()), compare.prices(exact.frontier(L, w, among), scores)
    candidates = np.flatnonzero(among).tolist()
    assert_close(found.criterion, [L(w * masks.smallest(scores, k / n, among=among)) for k in range(n + 1)])
    for k in range(n + 1):
        least = min(loss_without(L, w, chosen) for chosen in itertools.combinations(candidates, k))
        assert found.best[k] == pytest.approx(least, rel=1e-12)
        assert found.regret[k] == pytest.approx(found.criterion[k] - least, abs=1e-12 * L(w))
    parts = found.nestedness + found.additivity + found.own_error
    assert_close(parts, found.regret, scale=found.criterion.max())
    tolerance = 1e-12 * np.abs(found.criterion).max()
    for path in (found.nested, found.greedy, found.one_shot, found.criterion):
        assert (path >= found.best - tolerance).all()
        assert path[[0, -1]] == pytest.approx(found.best[[0, -1]], rel=1e-12)
        assert found.nested.sum() <= path.sum() + n * tolerance
    assert found.greedy[1] == pytest.approx(found.best[1], rel=1e-12)


def distinct(L, w, among):
    """Whether no two candidates are tied, to rounding, so that every order is defined."""
    s = np.sort(exact.reference(L, w)[among])
    return len(s) > 1 and np.diff(s).min() > 1e-10 * L(w)


UNTIED = [c for c in CASES if distinct(c.L, c.w, among_of(c))]


def test_enough_cases_have_no_ties():
    assert len(UNTIED) > 30


@pytest.mark.parametrize("case", UNTIED[::3], ids=identify)
def test_one_shot_and_greedy_from_the_table_are_those_by_the_exact_saliency(case):
    L, w, among = case.L, case.w, among_of(case)
    n, found = int(among.sum()), compare.prices(exact.frontier(L, w, among), np.zeros(len(w)))
    s = exact.saliency(L, w)
    assert_close(found.one_shot, [L(w * masks.smallest(s, k / n, among=among)) for k in range(n + 1)])
    assert_close(compare.prices(exact.frontier(L, w, among), s).own_error, np.zeros(n + 1), scale=L(w))
    assert_close(found.greedy, compare.exact_greedy(L, w, n, among).losses)


def test_prices_take_no_more_than_the_order_of_the_scores():
    L, w = linear_neuron()
    frontier = exact.frontier(L, w)
    c = np.array([1.0, 3, 2, 4])
    for same in (c**3, c - 10, np.array([-np.inf, 0, -1, np.inf])):
        assert (compare.prices(frontier, same).criterion == compare.prices(frontier, c).criterion).all()


# greedy


@some_cases
def test_every_step_of_exact_greedy_has_the_least_loss_of_all_choices(case):
    L, w, among = case.L, case.w.copy(), among_of(case)
    before = w.copy()
    found = compare.exact_greedy(L, w, int(among.sum()), among)
    assert (w == before).all()
    assert sorted(found.order) == np.flatnonzero(among).tolist()
    assert found.losses[0] == L(w)
    tolerance = 1e-12 * max(found.losses.max(), L(w))
    for k, q in enumerate(found.order):
        gone = found.order[:k].tolist()
        losses = {j: loss_without(L, w, [*gone, j]) for j in np.flatnonzero(among) if j not in gone}
        assert losses[q] <= min(losses.values()) + tolerance
        assert found.losses[k + 1] == pytest.approx(losses[q], abs=tolerance)


def test_greedy_by_hand_and_its_masks():
    L, w = linear_neuron()
    found = compare.exact_greedy(L, w, 3)
    assert found.order.tolist() == [3, 2, 0], "1, then −3, then 2: the lower index of two equal ones"
    assert found.losses == pytest.approx([0, 1 / 2, 2, 0])
    assert found.mask(2, 4).tolist() == [True, True, False, False]
    assert compare.exact_greedy(L, w, 0).losses.tolist() == [0]


def test_greedy_never_spends_a_removal_on_what_is_gone():
    L, w = linear_neuron((1.0, 1.0, 5.0))
    assert sorted(compare.exact_greedy(L, w, 3).order) == [0, 1, 2], "a removed weight has saliency 0, the least"


def test_comparisons_do_not_know_the_criteria_they_judge():
    for path in Path(compare.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pruning"):
                names = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                assert not any("criteria" in name for name in names), path


L4, W4 = linear_neuron()
F4 = exact.frontier(L4, W4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare.calibration(np.ones(20), np.arange(20.0)), "predicted: expected values that differ, got 20"),
        (lambda: compare.calibration(np.full(3, 0.1), np.arange(3.0)), "predicted: expected values that differ"),
        (lambda: compare.calibration(np.arange(3.0), np.full(3, 0.1)), "actual: expected values that differ, got 3"),
        (lambda: compare.calibration(np.ones(0), np.ones(0)), "predicted: expected values that differ, got 0"),
        (lambda: compare.calibration(np.arange(3.0), np.arange(4.0)), "actual: expected 3 values, as many as.*got 4"),
        (lambda: compare.calibration(np.array([1, np.inf]), np.ones(2)), "predicted: expected finite numbers"),
        (lambda: compare.calibration(np.ones((2, 2)), np.ones(2)), r"predicted: expected shape \(any,\)"),
        (lambda: compare.calibration(np.arange(2.0), [True, False]), "actual: expected dtype float or integer"),
        (lambda: compare.sign_agreement(np.ones(0), np.ones(0)), "a: expected at least one score, got none"),
        (lambda: compare.sign_agreement(np.ones(2), np.ones(3)), "b: expected 2 scores, as many as in a, got 3"),
        (lambda: compare.sign_agreement(np.ones(2), np.array([1, np.nan])), "b: expected a vector of scores"),
        (lambda: compare.spearman(np.array(["1", "2"]), np.ones(2)), "a: expected a vector of scores"),
        (lambda: compare.half_against_half(L4, W4, rng=None), "rng: expected a numpy.random.Generator"),
        (lambda: compare.half_against_half(L4, W4, 0, rng=np.random.default_rng(0)), "splits: expected an integer"),
        (lambda: compare.prices(F4, np.ones(3)), "scores: expected one for each of 4 parameters, got 3"),
        (lambda: compare.prices(F4, np.full(4, np.nan)), "scores: expected a vector of scores without NaN"),
        (lambda: compare.exact_greedy(L4, W4, 5), "k: expected an integer >= 0 <= 4, got 5"),
        (lambda: compare.exact_greedy(L4, W4[:3], 1), "w: expected shape"),
        (lambda: compare.exact_greedy(L4, W4, 1, np.zeros(4, bool)), "among: expected at least one candidate"),
        (lambda: compare.exact_greedy(L4, W4, 1).mask(2, 4), "k: expected an integer >= 0 <= 1, got 2"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
