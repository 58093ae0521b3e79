"""The best mask of a row: branch and bound equals enumeration, and both a plain loop over the definition."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import combinations
from math import comb
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minimal_nn import curvature, datasets, memory
from pruning.exact import rows
from pruning.exact.rows import row_optimum
from tests.cases import assert_close


def by_definition(X, w, removed, update, damping):
    """The error of one removed set, straight from (1/N) ‖X w − X w′‖² + λ ‖w − w′‖²; least squares by lstsq."""
    design = np.concatenate([X / np.sqrt(len(X)), np.sqrt(damping) * np.eye(len(w))])
    rest = [j for j in range(len(w)) if j not in removed]
    fitted = np.where(np.isin(np.arange(len(w)), removed), 0.0, w)
    if update:
        fitted[rest] = np.linalg.lstsq(design[:, rest], design @ w, rcond=None)[0]
    return ((design @ (w - fitted)) ** 2).sum()


def best_by_definition(X, w, k, update, damping):
    return min(by_definition(X, w, list(S), update, damping) for S in combinations(range(len(w)), k))


def by_branch_and_bound(*args, **options):
    with mock.patch.object(rows, "ENUMERATED", 0):
        return row_optimum(*args, **options)


def correlated(d, N, seed=0, rho=0.9):
    rng = np.random.default_rng(seed)
    C = rho ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    return rng.standard_normal((N, d)) @ np.linalg.cholesky(C).T, rng.standard_normal(d)


def check(found, X, w, k, update, damping, tolerance=1e-10):
    """One result is a mask of k zeros, weights on it, and the error of these weights, which is the least there is."""
    N, d = X.shape
    scale = (w**2 * ((X**2).sum(axis=0) / N + damping)).sum()
    assert found.mask.shape == found.weights.shape == (d,)
    assert (~found.mask).sum() == k
    assert not found.weights[~found.mask].any()
    change = w - found.weights
    assert_close(found.error, ((X @ change) ** 2).sum() / N + damping * change @ change, tolerance, scale)
    assert_close(found.error, best_by_definition(X, w, k, update, damping), tolerance, scale)
    if not update:
        assert_close(found.weights, w * found.mask, 1e-15)


@st.composite
def rows_of_whole_numbers(draw):
    """X with few or many examples, inputs that are dead, equal or opposite, and weights that are zero already."""
    N, d = draw(st.integers(1, 9)), draw(st.integers(1, 7))
    numbers = st.integers(-3, 3)
    X = np.array(draw(st.lists(numbers, min_size=N * d, max_size=N * d)), float).reshape(N, d)
    for j in range(d):
        kind = draw(st.sampled_from(["own", "own", "own", "equal", "opposite", "dead", "sum"]))
        other, third = draw(st.integers(0, d - 1)), draw(st.integers(0, d - 1))
        if kind != "own":
            X[:, j] = {"equal": 1, "opposite": -2, "dead": 0, "sum": 1}[kind] * X[:, other]
            X[:, j] += (kind == "sum") * X[:, third]
    w = np.array(draw(st.lists(numbers, min_size=d, max_size=d)), float) / 2
    return X, w, draw(st.integers(0, d)), draw(st.sampled_from([0.0, 0.0, 0.25]))


@settings(max_examples=150, deadline=None)
@given(rows_of_whole_numbers(), st.booleans())
@example((np.zeros((2, 3)), np.ones(3), 2, 0.0), True)
@example((np.ones((1, 5)), np.arange(5.0), 3, 0.0), False)
@example((np.eye(4), np.ones(4), 2, 0.0), True)
def test_enumeration_and_branch_and_bound_find_the_least_error_of_all_masks(problem, update):
    X, w, k, damping = problem
    for search in (row_optimum, by_branch_and_bound):
        check(search(X, w, k, update, damping), X, w, k, update, damping)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 10), st.integers(1, 15), st.booleans(), st.sampled_from([0.0, 0.99]))
def test_of_drawn_correlated_inputs_too_in_whatever_units_they_come(seed, d, N, update, rho):
    X, w = correlated(d, N, seed, rho)
    units = 10.0 ** np.random.default_rng(seed).integers(-6, 7, d)
    k = seed % (d + 1)
    for search in (row_optimum, by_branch_and_bound):
        found = search(X * units, w / units, k, update)
        found = replace(found, weights=np.where(found.mask, found.weights * units, 0))
        check(found, X, w, k, update, 0.0, 1e-9)


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize(("N", "k"), [(60, 8), (12, 9)])
def test_branch_and_bound_equals_enumeration_with_sixteen_inputs(N, k, update):
    X, w = correlated(16, N)
    found, every = by_branch_and_bound(X, w, k, update), row_optimum(X, w, k, update)
    assert (found.mask == every.mask).all()
    assert found.error == every.error
    assert every.examined == comb(16, k)
    assert found.examined < every.examined


def test_on_real_inputs_with_dead_pixels_both_searches_agree():
    x = datasets.digits().x_train[:200, :18]
    w = np.random.default_rng(1).standard_normal(18)
    assert (x == 0).all(axis=0).any()
    for update in (False, True):
        found, every = by_branch_and_bound(x, w, 9, update), row_optimum(x, w, 9, update)
        assert_close(found.error, every.error, 1e-10, scale=(w**2).sum())


def test_the_error_with_update_is_the_schur_complement_and_without_it_the_quadratic_form():
    X, w = correlated(8, 40)
    G = X.T @ X / 40 + 0.1 * np.eye(8)
    for k in range(1, 8):
        for update in (False, True):
            found = row_optimum(X, w, k, update, damping=0.1)
            S = ~found.mask
            block = np.linalg.inv(curvature.inverse(G)[np.ix_(S, S)]) if update else G[np.ix_(S, S)]
            assert_close(found.error, w[S] @ block @ w[S])


def test_one_removal_with_update_is_the_optimal_brain_surgeon():
    X, w = correlated(7, 30)
    inverse = np.linalg.inv(X.T @ X / 30)
    costs = w**2 / np.diagonal(inverse)
    found, q = row_optimum(X, w, 1, update=True), int(costs.argmin())
    assert np.flatnonzero(~found.mask).tolist() == [q]
    assert_close(found.error, costs[q], 1e-11)
    assert_close(found.weights, w - w[q] / inverse[q, q] * inverse[:, q], 1e-11)


def test_uncorrelated_inputs_lose_the_smallest_products_of_weight_and_norm_as_wanda_does():
    Q = np.linalg.qr(np.random.default_rng(0).standard_normal((50, 30)))[0]
    X, w = Q * np.linspace(1, 3, 30), np.random.default_rng(1).standard_normal(30)
    wanda = np.abs(w) * np.linalg.norm(X, axis=0)
    for update in (False, True):
        found = row_optimum(X, w, 12, update)
        assert set(np.flatnonzero(~found.mask)) == set(np.argsort(wanda)[:12])
        assert_close(found.error, np.sort(wanda**2)[:12].sum() / 50)


def test_beyond_twenty_inputs_no_exchange_of_up_to_two_weights_is_better():
    X, w = correlated(24, 100, seed=3)
    for update in (False, True):
        found = row_optimum(X, w, 10, update)
        gone, here = np.flatnonzero(~found.mask), np.flatnonzero(found.mask)
        assert_close(found.error, by_definition(X, w, gone, update, 0.0), 1e-11)
        rng = np.random.default_rng(0)
        for size in (1, 2):
            for _ in range(150):
                out, back = rng.choice(here, size, replace=False), rng.choice(gone, size, replace=False)
                other = [*np.setdiff1d(gone, back), *out]
                assert by_definition(X, w, other, update, 0.0) > found.error


def test_greedy_misses_what_the_search_finds():
    X, w = correlated(30, 200)
    found = row_optimum(X, w, 15)
    removed = []
    for _ in range(15):
        trials = [[*removed, j] for j in range(30) if j not in removed]
        removed = min(trials, key=lambda S: by_definition(X, w, S, False, 0.0))
    assert found.error < 0.99 * by_definition(X, w, removed, False, 0.0)


def test_with_update_never_costs_more_and_more_removals_never_less():
    X, w = correlated(9, 6, seed=5)
    errors = np.array([[row_optimum(X, w, k, update).error for k in range(10)] for update in (False, True)])
    slack = 1e-12 * (w**2).sum()
    assert (errors[1] <= errors[0] + slack).all()
    assert (np.diff(errors[1]) >= -slack).all()
    assert errors[:, 0].tolist() == [0, 0]
    assert_close(errors[:, 9], [((X @ w) ** 2).mean()] * 2)


@pytest.mark.parametrize("search", [row_optimum, by_branch_and_bound])
def test_linear_dependences_make_as_many_removals_free_and_no_more(search):
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((10, 13)), rng.standard_normal(13)
    assert search(X, w, 3, update=True).error < 1e-24
    assert_close(search(X, w, 4, update=True).error, best_by_definition(X, w, 4, True, 0.0), 1e-8)


@pytest.mark.parametrize("update", [False, True])
def test_the_size_of_the_pieces_does_not_matter(monkeypatch, update):
    X, w = correlated(12, 20)
    whole = row_optimum(X, w, 5, update), by_branch_and_bound(X, w, 5, update)
    monkeypatch.setattr(memory, "BUDGET", 1)
    monkeypatch.setattr(memory.pieces, "__defaults__", (5000.0,))
    for before, search in zip(whole, (row_optimum, by_branch_and_bound), strict=True):
        found = search(X, w, 5, update)
        assert (found.mask == before.mask).all()
        assert_close(found.error, before.error)


def test_enumeration_of_twenty_inputs_stays_within_the_memory_budget():
    X, w = correlated(20, 100)
    tracemalloc.start()
    try:
        row_optimum(X, w, 10, update=True)
        assert tracemalloc.get_traced_memory()[1] < memory.BUDGET
    finally:
        tracemalloc.stop()


def test_float32_weights_stay_float32_and_arguments_are_left_alone():
    X, w = correlated(6, 10)
    X32, w32 = X.astype(np.float32), w.astype(np.float32)
    kept = X32.copy(), w32.copy()
    for update in (False, True):
        found = row_optimum(X32, w32, 3, update)
        assert found.weights.dtype == np.float32
        assert_close(found.error, row_optimum(X, w, 3, update).error, 1e-5)
    assert np.array_equal(X32, kept[0])
    assert np.array_equal(w32, kept[1])


X, W = np.ones((3, 2)), np.ones(2)


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        ((np.ones(3), W, 1), {}, r"X: expected shape \(any, any\)"),
        ((np.ones((0, 2)), W, 1), {}, "X: expected at least one example and one input"),
        ((X * np.nan, W, 1), {}, "X: expected finite numbers"),
        ((X, np.ones(3), 1), {}, r"w: expected shape \(2,\)"),
        ((X, np.array([1, 2]), 1), {}, "w: expected dtype float"),
        ((X, W, 3), {}, "k: expected an integer >= 0 <= 2, got 3"),
        ((X, W, 1), {"update": 1}, "update: expected True or False, got 1"),
        ((X, W, 1), {"damping": -1}, "damping: expected a finite number"),
        ((X, W, 1), {"limit": 0}, "limit: expected an integer >= 1"),
        ((X, W, 1), {"limit": 1}, r"limit: expected at least C\(2, 1\) = 2 masks to compare, got 1"),
    ],
)
def test_row_optimum_refuses(args, options, message):
    with pytest.raises(ValueError, match=message):
        row_optimum(*args, **options)


def test_a_search_beyond_its_limit_is_an_error_that_tells_how_many_nodes():
    rows_and_weights = correlated(30, 200)
    with pytest.raises(ValueError, match=r"limit: 1000 nodes did not suffice, \d+ were examined"):
        row_optimum(*rows_and_weights, 15, limit=1000)


@pytest.mark.parametrize("seed", [52, 0, 1, 2, 3])
def test_update_finds_the_optimum_where_few_examples_leave_many_exact_fits(seed):
    rng = np.random.default_rng(seed)
    d, N = rng.integers(1, 9), rng.integers(1, 12)
    X, w = rng.standard_normal((N, d)), rng.standard_normal(d)
    for k in range(d + 1):
        errors = []
        for removed in combinations(range(d), k):
            kept = X[:, [i for i in range(d) if i not in removed]]
            residual = X @ w - kept @ np.linalg.lstsq(kept, X @ w, rcond=None)[0]
            errors.append(residual @ residual / N)
        assert abs(row_optimum(X, w, k, update=True).error - min(errors)) <= 1e-13 * ((X @ w) @ (X @ w) / N)
