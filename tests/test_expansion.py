"""The expansion of the saliency: slow derivatives agree, parabolas leave nothing, the rest is of third order."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import Identity, Linear, Network, Objective, SquaredError, differences
from pruning import exact
from pruning.exact.expansion import TaylorTerms, taylor_terms
from tests.cases import CASES, SMOOTH, assert_close, identify, make_case

QUADRATIC = [
    make_case("least squares", Linear(4, 3), loss=SquaredError(), n=12, l2=0.3),
    make_case("deep linear", Linear(3, 4), Identity(), Linear(4, 2), Linear(2, 3), loss=SquaredError(0.5), n=7, l2=0.1),
]


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_terms_agree_with_the_complex_step_and_add_up_to_plain_removal(case):
    L, w = case.L, case.w
    terms, scale = taylor_terms(L, w), abs(L(w))
    plain = [L(w * (np.arange(len(w)) != j)) - L(w) for j in range(len(w))]
    assert_close(terms.saliency, plain, scale=scale)
    assert_close(terms.first, -differences.complex_step_gradient(L, w) * w)
    assert_close(terms.second, 0.5 * np.diagonal(differences.complex_step_hessian(L, w)) * w**2)
    assert_close(terms.first + terms.second + terms.remainder, plain, scale=scale)


@pytest.mark.parametrize("case", QUADRATIC, ids=identify)
def test_where_the_loss_is_a_parabola_along_each_weight_nothing_remains(case):
    terms = taylor_terms(case.L, case.w)
    assert np.abs(terms.remainder).max() < 1e-14 * case.L(case.w)
    assert terms.explained(2) == pytest.approx(1, abs=1e-14)
    assert terms.explained(1) < 1


@pytest.mark.parametrize("name", ["tanh", "squared error", "deep tanh", "convolution", "residual first", "gelu"])
def test_the_remainder_is_the_third_derivative_up_to_fourth_order(name):
    """Scale w_j by f alone: r_j + (1/6) T_jjj (f w_j)³ falls as f⁴, with T_jjj by central differences of H_jj."""
    case = next(c for c in SMOOTH if c.name == name)
    largest = []
    for f in (1 / 16, 1 / 32, 1 / 64):
        errors = []
        for j in range(0, len(case.w), 4):
            w, h = case.w.copy(), 1e-5 * np.eye(len(case.w))[j]
            w[j] *= f
            third = (second_derivative(case.L, w + h, j) - second_derivative(case.L, w - h, j)) / 2e-5
            errors.append(taylor_terms(case.L, w).remainder[j] + third * w[j] ** 3 / 6)
        largest.append(np.abs(errors).max())
    assert largest[-1] > 20 * np.finfo(float).eps, "rounding, not the fourth order"
    assert_close(np.log2(largest[:-1]) - np.log2(largest[1:]), np.full(2, 4.0), 0.05)


def second_derivative(L, w, j):
    """H_jj by the complex step of the gradient."""
    return L.gradient(w + 1e-20j * np.eye(len(w))[j])[j].imag / 1e-20


def test_explained_is_one_minus_the_squared_error_over_that_of_the_mean():
    s, first, second = np.array([1.0, 2, 6]), np.array([2.0, 2, 2]), np.array([-1.0, 1, 3])
    terms = TaylorTerms(s, first, second, s - first - second)
    assert terms.explained(1) == 1 - (1 + 0 + 16) / (4 + 1 + 9)
    assert terms.explained(2) == 1 - (0 + 1 + 1) / (4 + 1 + 9)
    assert terms.explained(2, among=np.array([True, True, False])) == 1 - 1 / 0.5


def test_explained_does_not_forgive_a_constant_error_or_a_wrong_scale():
    s = np.array([1.0, 2, 3])
    for first in (s + 5, 3 * s):
        assert TaylorTerms(s, first, np.zeros(3), s - first).explained(1) < 0


def test_terms_stay_in_float32_and_leave_w_alone():
    case = CASES[0]
    w = case.w.astype(np.float32)
    terms = taylor_terms(case.L, w)
    assert {a.dtype for a in vars(terms).values()} == {np.dtype(np.float32)}
    assert np.array_equal(w, case.w.astype(np.float32))


def test_taylor_terms_and_explained_refuse():
    L = Objective(Network(Linear(2, 1)), SquaredError(), np.eye(2), np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"w: expected shape \(3,\)"):
        taylor_terms(L, np.ones(4))
    with pytest.raises(ValueError, match="w: expected dtype float"):
        taylor_terms(L, np.ones(3, complex))
    terms = taylor_terms(L, np.array([1.0, 2, 3]))
    with pytest.raises(ValueError, match="order: expected an integer >= 1 <= 2, got 3"):
        terms.explained(3)
    with pytest.raises(ValueError, match=r"among: expected shape \(3,\)"):
        terms.explained(1, among=np.ones(2, bool))
    with pytest.raises(ValueError, match="among: expected entries of at least two different saliencies, got 1 equal"):
        terms.explained(1, among=np.array([True, False, False]))
    assert_close(terms.saliency, exact.reference(L, np.array([1.0, 2, 3])))
