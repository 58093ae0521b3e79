"""Re-optimised removal: OBS where the loss is quadratic, a smaller network's minimum, a stationary point elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import Linear, Network, Objective, ReLU, SoftmaxCrossEntropy, SquaredError, Tanh, curvature, optimizers
from minimal_nn.differences import complex_step_gradient
from pruning import exact
from pruning.exact.reoptimization import reoptimized
from tests.cases import CASES, SMOOTH, assert_close, identify, make_case

QUADRATIC = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=20, l2=0.2)
MINIMUM = optimizers.newton(QUADRATIC.L, QUADRATIC.w).w


@pytest.mark.parametrize("S", [[j] for j in range(10)] + [[0, 3], [9, 1, 5], list(range(1, 10))], ids=str)
def test_at_a_quadratic_minimum_the_rise_is_that_of_the_optimal_brain_surgeon(S):
    L, w = QUADRATIC.L, MINIMUM
    inverse = np.linalg.inv(curvature.hessian(L, w))
    block = np.linalg.inv(inverse[np.ix_(S, S)])
    rise = 0.5 * w[S] @ block @ w[S]
    if len(S) == 1:
        assert_close(rise, w[S[0]] ** 2 / (2 * inverse[S[0], S[0]]))
    found = reoptimized(L, w, S)
    assert found.converged
    for end in found.results.values():
        assert_close(end.value - L(w), rise, 1e-10)
        assert_close(end.w, w - inverse[:, S] @ block @ w[S], 1e-10)
    assert list(found.results) == ["removed", "compensated"]
    assert found.results["compensated"].steps <= 1
    assert not found.w[S].any()


def test_removing_an_input_ends_at_the_minimum_of_the_network_without_it():
    case = make_case("convex", Linear(4, 3), n=25, l2=0.1)
    without = Objective(Network(Linear(3, 3)), SoftmaxCrossEntropy(), case.L.x[:, [0, 1, 3]], case.L.y, l2=0.1)
    smaller = optimizers.newton(without, optimizers.lbfgs(without, np.zeros(12)).w)
    found = reoptimized(case.L, case.w, [6, 7, 8])
    assert smaller.converged
    assert found.converged
    assert_close(found.rise, smaller.value - case.L(case.w), 1e-12)
    assert_close(np.delete(found.w, [6, 7, 8]), smaller.w, 1e-10)


@pytest.mark.parametrize("case", SMOOTH[::4], ids=identify)
def test_the_end_is_stationary_no_higher_than_plain_removal_and_keeps_the_weight_at_zero(case):
    L = Objective(case.L.network, case.L.loss, case.L.x, case.L.y, l2=0.1)
    j = len(case.w) // 2
    found = reoptimized(L, case.w, j)
    removed = case.w * (np.arange(len(case.w)) != j)
    assert found.converged
    assert found.w[j] == 0
    g, before = complex_step_gradient(L, found.w), complex_step_gradient(L, removed)
    scale = max(np.abs(before).max(), L(removed) / np.abs(removed).max())
    assert np.abs(np.delete(g, j)).max() <= 1.01e-8 * scale
    assert found.rise == L(found.w) - L(case.w)
    assert found.rise <= exact.reference(L, case.w)[j]
    assert found.rise == min(end.value for end in found.results.values()) - L(case.w)
    assert found.results[found.start].value == L(found.w)


def test_at_a_minimum_of_a_tanh_network_the_rise_lies_between_nothing_and_the_saliency_and_starts_may_part():
    case = make_case("small tanh", Linear(3, 3), Tanh(), Linear(3, 2), n=40, l2=1e-3, seed=2)
    w = optimizers.newton(case.L, optimizers.lbfgs(case.L, case.w).w).w
    s, apart = exact.saliency(case.L, w), []
    for j in (1, 5, 8, 12):
        found = reoptimized(case.L, w, j)
        assert found.converged
        assert 0 < found.rise < s[j]
        ends = [end.value for end in found.results.values()]
        assert len(ends) == 2
        assert found.rise == min(ends) - case.L(w)
        apart.append(abs(ends[0] - ends[1]) > 1e-3)
    assert any(apart)
    assert not all(apart)


def test_removing_the_bias_that_keeps_a_relu_dead_lowers_the_loss_and_the_rise_is_negative():
    x = np.array([[0.5], [1.0], [2.0], [3.0]])
    L = Objective(Network(Linear(1, 1), ReLU(), Linear(1, 1)), SquaredError(), x, 2 * x - 1)
    w = np.array([1.0, -100, 0.5, (2 * x - 1).mean()])
    assert np.abs(L.gradient(w)).max() < 1e-15
    found = reoptimized(L, w, 1)
    assert found.converged
    assert_close(found.rise, -0.5 * np.var(2 * x - 1), 1e-10)
    assert reoptimized(L, w, 0).rise == pytest.approx(0, abs=1e-15)


def test_a_saddle_is_stationary_and_other_starts_leave_it():
    x = np.linspace(-1, 1, 9)[:, None]
    L = Objective(Network(Linear(1, 2), Tanh(), Linear(2, 1)), SquaredError(), x, x, l2=0.01)
    nowhere = np.zeros(7)
    stays = reoptimized(L, nowhere, 0)
    assert (stays.converged, stays.rise, stays.results["removed"].steps) == (True, 0, 0)
    starts = {"saddle": nowhere, "drawn": np.random.default_rng(0).standard_normal(7)}
    leaves = reoptimized(L, nowhere, 0, starts)
    assert leaves.start == "drawn"
    assert leaves.rise < -0.01
    assert list(leaves.results) == list(starts)


def test_what_has_not_converged_says_so():
    case = next(c for c in CASES if c.name == "tanh")
    found = reoptimized(case.L, case.w, 3, max_steps=1)
    assert not found.converged
    assert found.gradient_norm == np.abs(np.delete(case.L.gradient(found.w), 3)).max() > 1e-3


def test_removing_everything_leaves_the_loss_at_zero_weights():
    found = reoptimized(QUADRATIC.L, MINIMUM, range(10))
    assert not found.w.any()
    assert found.rise == QUADRATIC.L(np.zeros(10)) - QUADRATIC.L(MINIMUM)
    assert (found.converged, found.gradient_norm) == (True, 0)


def test_arguments_are_left_alone_and_float32_stays():
    w = MINIMUM.astype(np.float32)
    start = w + 1
    found = reoptimized(QUADRATIC.L, w, np.array([2]), {"one": start}, tolerance=1e-4)
    assert found.w.dtype == np.float32
    assert found.converged
    assert np.array_equal(w, MINIMUM.astype(np.float32))
    assert np.array_equal(start, w + 1)


@pytest.mark.parametrize(
    ("w", "indices", "options", "message"),
    [
        (np.ones(9), 0, {}, r"w: expected shape \(10,\)"),
        (MINIMUM, 10, {}, "indices: expected an integer >= 0 <= 9, got 10"),
        (MINIMUM, [0, -1], {}, "indices: expected an integer >= 0 <= 9, got -1"),
        (MINIMUM, True, {}, "indices: expected an integer"),
        (MINIMUM, 1.0, {}, "indices: expected dtype integer"),
        (MINIMUM, [[1]], {}, r"indices: expected shape \(any,\)"),
        (MINIMUM, [], {}, "indices: expected at least one weight and none twice"),
        (MINIMUM, [1, 1], {}, "indices: expected at least one weight and none twice"),
        (MINIMUM, 0, {"starts": {}}, "starts: expected a mapping of at least one name"),
        (MINIMUM, 0, {"starts": [MINIMUM]}, "starts: expected a mapping of at least one name"),
        (MINIMUM, 0, {"starts": {"short": np.ones(2)}}, r"starts\['short'\]: expected shape \(10,\)"),
        (MINIMUM, 0, {"tolerance": -1}, "tolerance: expected a finite number"),
        (MINIMUM, 0, {"max_steps": 0.5}, "max_steps: expected an integer"),
    ],
)
def test_reoptimized_refuses(w, indices, options, message):
    with pytest.raises(ValueError, match=message):
        reoptimized(QUADRATIC.L, w, indices, **options)
