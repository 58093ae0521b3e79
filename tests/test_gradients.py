"""Values and first derivatives: backpropagation, the complex step and central differences agree."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import (
    BinaryCrossEntropy,
    Linear,
    Network,
    Objective,
    ReLU,
    SquaredError,
    differences,
    memory,
)
from tests import plain
from tests.cases import CASES, SMOOTH, assert_close, identify

each_case = pytest.mark.parametrize("case", CASES, ids=identify)


def plain_loss(loss, z, y):
    """ℓ of one example, written out."""
    if isinstance(loss, SquaredError):
        return loss.scale * sum((z[c] - y[c]) ** 2 for c in range(len(z))) / 2
    if isinstance(loss, BinaryCrossEntropy):
        p = 1 / (1 + np.exp(-z))
        return -loss.scale * sum(y * np.log(p) + (1 - y) * np.log(1 - p))
    target = y if np.ndim(y) else np.eye(len(z))[y]
    return -loss.scale * target @ (z - z.max() - np.log(np.exp(z - z.max()).sum()))


@each_case
def test_forward_and_value_are_plain_loops_over_units_and_examples(case):
    L, w = case.L, case.w
    p = L.network.layout.unflatten(w)
    z = np.array([plain.forward(L.network.layers, p, x) for x in L.x])
    assert_close(L.network.forward(w, L.x), z)
    losses = [plain_loss(L.loss, z_n, y_n) for z_n, y_n in zip(z, L.y, strict=True)]
    assert_close(L.per_example_losses(w), losses, scale=1.0)
    assert L(w) == pytest.approx(np.mean(losses) + L.l2 / 2 * sum(w**2), rel=1e-12, abs=1e-12)


@each_case
def test_gradient_equals_the_complex_step(case):
    assert_close(case.L.gradient(case.w), differences.complex_step_gradient(case.L, case.w), scale=1e-3)


@pytest.mark.parametrize("case", SMOOTH, ids=identify)
def test_central_differences_approach_the_gradient_with_slope_two(case):
    """Along one random direction: the error is C h² until rounding, so the slope tells a right gradient."""
    L, w = case.L, case.w
    v = np.random.default_rng(1).standard_normal(len(w))
    v /= np.linalg.norm(v)
    steps = np.array([1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 3e-5, 1e-5])
    errors = np.array([abs((L(w + h * v) - L(w - h * v)) / (2 * h) - L.gradient(w) @ v) for h in steps])
    assert errors.min() < 1e-8
    clear = np.flatnonzero(errors[:5] > 1e-9)  # well above rounding: fit only where the error is the method's own
    if len(clear) >= 2:
        first, last = clear[-2], clear[-1]
        slope = np.log(errors[first] / errors[last]) / np.log(steps[first] / steps[last])
        assert slope == pytest.approx(2, abs=0.05)


def test_most_smooth_cases_do_show_the_slope():
    cubic = [
        c
        for c in SMOOTH
        if np.abs(differences.central_difference_gradient(c.L, c.w, 1e-2) - c.L.gradient(c.w)).max() > 1e-9
    ]
    assert len(cubic) > len(SMOOTH) / 2


@each_case
def test_per_example_gradients_are_those_of_each_example_alone(case):
    L, w = case.L, case.w
    rows = L.per_example_gradients(w)
    alone = [L.subset([n]).gradient(w) - L.l2 * w for n in range(L.n_examples)]
    assert_close(rows, np.array(alone), scale=1e-3)
    assert_close(rows.mean(axis=0) + L.l2 * w, L.gradient(w), scale=1e-3)


@each_case
def test_jacobian_equals_the_complex_step_of_the_outputs(case):
    L, w = case.L, case.w
    J = differences.complex_step(lambda v: L.network.forward(v, L.x), w)  # (P, N, C)
    assert_close(L.jacobian(w), J.transpose(1, 2, 0))


@each_case
@pytest.mark.parametrize("K", [1, 7])
def test_hvp_equals_the_complex_step_hessian_times_each_tangent(case, K):
    V = np.random.default_rng(2).standard_normal((len(case.w), K))
    H = differences.complex_step_hessian(case.L, case.w)
    assert_close(case.L.hvp(case.w, V), H @ V, scale=1e-3)
    assert_close(case.L.hvp(case.w, V[:, 0]), H @ V[:, 0], scale=1e-3)


@each_case
def test_pieces_of_any_size_give_the_same_sums(case, monkeypatch):
    L, w = case.L, case.w
    V = np.random.default_rng(3).standard_normal((len(w), 3))
    whole = L(w), L.gradient(w), L.hvp(w, V), L.jacobian(w)
    monkeypatch.setattr(memory.pieces, "__defaults__", (1.0,))  # a budget of one byte: one example at a time
    assert len(list(L.traces(w))) == L.n_examples
    for in_pieces, at_once in zip((L(w), L.gradient(w), L.hvp(w, V), L.jacobian(w)), whole, strict=True):
        assert_close(in_pieces, at_once, scale=1e-3)


@each_case
def test_derivatives_stay_in_float32_and_agree_with_float64(case):
    L, w = case.L, case.w.astype(np.float32)
    v = np.ones(len(w))
    results = (
        L(w),
        L.gradient(w),
        L.per_example_gradients(w),
        L.jacobian(w),
        L.hvp(w, v),
        L.hvp(w, v.astype(np.float32)),
    )
    assert {np.asarray(r).dtype for r in results} == {np.dtype(np.float32)}
    assert_close(L.gradient(w), L.gradient(w.astype(np.float64)), 1e-4, scale=1e-2)


def test_objective_never_changes_its_arguments():
    case = CASES[0]
    w, x, y = case.w.copy(), case.L.x.copy(), case.L.y.copy()
    case.L(case.w), case.L.gradient(case.w), case.L.hvp(case.w, case.w), case.L.jacobian(case.w)
    assert (w == case.w).all()
    assert (x == case.L.x).all()
    assert (y == case.L.y).all()


def test_relu_at_exactly_zero_has_slope_zero():
    L = Objective(Network(Linear(1, 1), ReLU(), Linear(1, 1)), SquaredError(), np.ones((1, 1)), np.ones((1, 1)))
    w = np.array([0.0, 0, 2, 0.5])
    assert L.gradient(w).tolist() == [0, 0, 0, -0.5]
    assert L.hvp(w, np.eye(4)).tolist() == np.diag([0, 0, 0, 1.0]).tolist()


def test_a_permutation_of_the_examples_changes_nothing():
    L, w = CASES[0].L, CASES[0].w
    order = np.random.default_rng(0).permutation(L.n_examples)
    assert_close(L.subset(order).gradient(w), L.gradient(w))
    assert_close(L.subset(order).per_example_losses(w), L.per_example_losses(w)[order])
