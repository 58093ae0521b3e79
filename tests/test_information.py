"""Mutual information: hand tables, closed forms, quadrature beside scipy's, estimators on their published cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimal_nn import datasets
from pruning.criteria.information import discrete, estimators, noisy

LN2 = np.log(2)


def by_definition(table):
    a, b = table.sum(axis=1), table.sum(axis=0)
    return sum(
        table[i, j] * (np.log(table[i, j]) - np.log(a[i]) - np.log(b[j]))
        for i, j in np.ndindex(*table.shape)
        if table[i, j] > 0
    )  # fmt: skip


tables = (
    st.lists(st.floats(0, 1), min_size=6, max_size=6)
    .filter(lambda v: sum(v) > 0.1)
    .map(lambda v: np.array(v).reshape(2, 3) / sum(v))
)


@given(tables)
def test_of_a_table_follows_the_definition_and_is_symmetric(table):
    assert discrete.of_table(table) == pytest.approx(by_definition(table), abs=1e-12)
    assert discrete.of_table(table) == pytest.approx(discrete.of_table(table.T), abs=1e-12)
    assert 0 <= discrete.of_table(table) <= min(discrete.entropy(table.sum(0)), discrete.entropy(table.sum(1))) + 1e-12


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50)
def test_processing_data_loses_information_and_the_chain_rule_holds(seed):
    rng = np.random.default_rng(seed)
    a, b, c = rng.integers(0, 4, (3, 60))
    merged = a // 2
    assert discrete.mutual_information(merged, b) <= discrete.mutual_information(a, b) + 1e-12
    both = np.stack([a, c], axis=1)
    chain = discrete.mutual_information(c, b) + discrete.mutual_information(a, b, given=c)
    assert discrete.mutual_information(both, b) == pytest.approx(chain, abs=1e-12)
    weights = rng.dirichlet(np.ones(60))
    explicit = np.zeros((4, 4))
    for i, j, p in zip(a, b, weights, strict=True):
        explicit[i, j] += p
    assert discrete.mutual_information(a, b, weights=weights) == pytest.approx(by_definition(explicit), abs=1e-12)


def test_monks_1_by_hand():
    data = datasets.monks(1)
    a1, a2, a5 = (data.x_test[:, s].argmax(axis=1) for s in (slice(0, 3), slice(3, 6), slice(11, 15)))
    y = data.y_test
    assert discrete.mutual_information(a1, y) == pytest.approx(0, abs=1e-12)
    assert discrete.mutual_information(np.stack([a1, a2], axis=1), y) == pytest.approx(0.3183, abs=5e-5)
    assert discrete.mutual_information(a5, y) == pytest.approx(0.2158, abs=5e-5)
    assert discrete.entropy(np.bincount(y) / 432) == pytest.approx(LN2)


def test_a_copy_says_nothing_more_and_xor_only_says_it_together():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    y = a ^ b
    assert discrete.mutual_information(a, y) == 0
    assert discrete.mutual_information(a, y, given=b) == pytest.approx(LN2)
    assert discrete.mutual_information(a | b, y) == pytest.approx(0.2158, abs=5e-5)
    assert discrete.mutual_information(a, a, given=a) == 0


def test_bins_are_of_equal_width_and_constant_units_are_one_bin():
    h = np.array([[0.0, 5], [0.24, 5], [0.26, 5], [1.0, 5]])
    assert discrete.quantized(h, 4).tolist() == [[0, 0], [0, 0], [1, 0], [3, 0]]


@pytest.mark.parametrize("sigma", [1e-3, 0.01, 0.1, 1.0, 10.0])
def test_the_entropy_of_one_gaussian_is_its_closed_form(sigma):
    assert noisy.entropy(np.zeros(3), sigma) == pytest.approx(0.5 * np.log(2 * np.pi * np.e * sigma**2), abs=1e-10)
    two = np.zeros((3, 2))
    assert noisy.entropy(two, sigma) == pytest.approx(np.log(2 * np.pi * np.e * sigma**2), abs=1e-10)


@pytest.mark.parametrize("sigma", [1e-3, 0.05, 0.5])
def test_far_apart_inputs_are_told_from_each_other_exactly(sigma):
    h = 100 * sigma * np.arange(8.0)
    assert noisy.about_input(h, sigma) == pytest.approx(np.log(8), abs=1e-10)
    assert noisy.mutual_information(h, np.arange(8) % 2, sigma) == pytest.approx(LN2, abs=1e-10)
    assert noisy.mutual_information(np.zeros(8), np.arange(8) % 2, sigma) == pytest.approx(0, abs=1e-10)


def test_a_gaussian_input_by_40_nodes_meets_its_closed_form():
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    for sigma in (0.5, 1.0, 2.0):
        found = noisy.about_input(nodes, sigma, weights / weights.sum())
        assert found == pytest.approx(0.5 * np.log(1 + 1 / sigma**2), abs=1e-10)


def test_two_jointly_gaussian_units_meet_theirs():
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    p = np.outer(weights, weights).ravel() / weights.sum() ** 2
    u, v = (a.ravel() for a in np.meshgrid(nodes, nodes))
    r, sigma = 0.8, 1.0
    h = np.stack([u, r * u + np.sqrt(1 - r**2) * v], axis=1)
    rho = r / (1 + sigma**2)
    keep = p > 1e-16
    found = noisy.between(h[keep], sigma, p[keep] / p[keep].sum())
    assert found == pytest.approx(-0.5 * np.log(1 - rho**2), abs=1e-9)


def test_quadrature_beside_scipys_and_beside_a_million_draws():
    from scipy.integrate import quad

    rng = np.random.default_rng(0)
    h, y, sigma = rng.standard_normal(12), np.arange(12) % 3, 0.3

    def density(t, own):
        return np.exp(-0.5 * ((t - h[own]) / sigma) ** 2).mean() / (np.sqrt(2 * np.pi) * sigma)

    def entropy(own):
        f = lambda t: -density(t, own) * np.log(density(t, own))  # noqa: E731
        return quad(f, h.min() - 2.5, h.max() + 2.5, limit=400, epsabs=1e-11)[0]

    every = np.ones(12, bool)
    expected = entropy(every) - np.mean([entropy(y == c) for c in range(3)])
    assert noisy.mutual_information(h, y, sigma) == pytest.approx(expected, abs=1e-8)
    n = rng.integers(0, 12, 200_000)
    t = h[n] + sigma * rng.standard_normal(len(n))
    given_y = sum((y[n] == c) * np.mean(_normal(t[:, None] - h[y == c], sigma), axis=1) for c in range(3))
    draws = np.log(given_y / np.mean(_normal(t[:, None] - h, sigma), axis=1))
    assert noisy.mutual_information(h, y, sigma) == pytest.approx(draws.mean(), abs=5 * draws.std() / np.sqrt(len(n)))


def _normal(d, sigma):
    return np.exp(-0.5 * (d / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)


def test_noise_only_loses_and_units_do_not_matter():
    rng = np.random.default_rng(1)
    h, y = rng.standard_normal(30), rng.integers(0, 2, 30)
    values = [noisy.mutual_information(h, y, s) for s in (0.03, 0.1, 0.3, 1, 3)]
    assert (np.diff(values) < 0).all()
    assert noisy.mutual_information(1000 * h, y, 300.0) == pytest.approx(noisy.mutual_information(h, y, 0.3), abs=1e-10)
    pair = np.stack([h, rng.standard_normal(30)], axis=1)
    assert noisy.mutual_information(pair, y, 0.3) >= noisy.mutual_information(h, y, 0.3) - 1e-10


@pytest.mark.parametrize("sigma", [1 / 1024, 0.1])
def test_where_the_activations_lie_changes_nothing(sigma):
    rng = np.random.default_rng(4)
    h, y = rng.integers(-100, 100, (20, 2)) / 128, rng.integers(0, 2, 20)  # 2²⁸ more has no rounding
    for shift in (-1, 2.0**28):
        found = noisy.mutual_information(h[:, 0] + shift, y, sigma)
        assert found == pytest.approx(noisy.mutual_information(h[:, 0], y, sigma), abs=1e-12)
    far = h + np.array([2.0**27, -(2.0**28)])
    assert noisy.between(far, 0.1) == pytest.approx(noisy.between(h, 0.1), abs=1e-12)
    constant = np.full(3, 2.0**28)
    assert noisy.entropy(constant, sigma) == pytest.approx(0.5 * np.log(2 * np.pi * np.e * sigma**2), abs=1e-12)


def test_pieces_of_the_grid_give_the_same(monkeypatch):
    from minimal_nn import memory

    h = np.random.default_rng(2).standard_normal((40, 2))
    whole = noisy.entropy(h, 0.1), noisy.entropy(h[:, 0], 0.01)
    monkeypatch.setattr(memory, "BUDGET", 100_000)
    assert (noisy.entropy(h, 0.1), noisy.entropy(h[:, 0], 0.01)) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_ksg_meets_the_gaussian_closed_form_within_its_published_error(rho):
    rng = np.random.default_rng(3)
    found = []
    for _ in range(10):
        x, e = rng.standard_normal((2, 1000))
        found.append(estimators.ksg(x, rho * x + np.sqrt(1 - rho**2) * e))
    assert np.mean(found) == pytest.approx(-0.5 * np.log(1 - rho**2), abs=0.03)


def test_ksg_is_that_of_plain_loops():
    from scipy.special import digamma

    rng = np.random.default_rng(4)
    x, y, k, total = rng.standard_normal(30), rng.standard_normal(30), 3, 0.0
    for n in range(30):
        distance = np.sort(np.maximum(np.abs(x - x[n]), np.abs(y - y[n])))[k]
        counts = [sum(abs(v[m] - v[n]) < distance for m in range(30) if m != n) for v in (x, y)]
        total += digamma(k) + digamma(30) - digamma(counts[0] + 1) - digamma(counts[1] + 1)
    assert estimators.ksg(x, y, k) == pytest.approx(total / 30, abs=1e-12)


def test_ross_does_not_depend_on_the_unit_and_naive_ksg_does():
    rng = np.random.default_rng(5)
    y = np.arange(432) % 2
    h = np.where(y, 2.0, -2.0) + 0.5 * rng.standard_normal(432)
    by_scale = [estimators.ross(scale * h, y) for scale in (1, 100, 1000)]
    assert by_scale == pytest.approx([by_scale[0]] * 3, abs=1e-12)
    assert by_scale[0] == pytest.approx(LN2, abs=0.02)
    naive = [estimators.ksg(scale * h, y.astype(float)) for scale in (1, 1000)]
    assert naive[0] > 0.6
    assert naive[1] < 0.05


def test_ross_is_that_of_plain_loops():
    from scipy.special import digamma

    rng = np.random.default_rng(6)
    h, y = rng.standard_normal(40), rng.integers(0, 3, 40)
    total = 0.0
    for n in range(40):
        own = np.sort(np.abs(h[y == y[n]] - h[n]))
        k = min(3, len(own) - 1)
        within = sum(abs(h[m] - h[n]) < own[k] for m in range(40))
        total += digamma(40) + digamma(k) - digamma(len(own)) - digamma(within)
    assert estimators.ross(h, y) == pytest.approx(total / 40, abs=1e-12)


def test_histograms_are_biased_upwards_and_corrected_less():
    rng = np.random.default_rng(7)
    plain, corrected = [], []
    for _ in range(30):
        h, y = rng.standard_normal(300), rng.integers(0, 2, 300)
        plain.append(estimators.histogram(h, y, 30))
        corrected.append(estimators.histogram(h, y, 30, corrected=True))
    assert np.mean(plain) > 0.02, "the truth is 0"
    assert abs(np.mean(corrected)) < 0.5 * np.mean(plain)
    h, y = np.array([0.0, 0, 1, 1]), np.array([0, 0, 1, 1])
    assert estimators.histogram(h, y, 2) == pytest.approx(LN2)
    assert estimators.histogram(h, y, 2, corrected=True) == pytest.approx(LN2 + (2 + 2 - 2 - 1) / 8)


def test_the_gaussian_fit_is_right_for_gaussians_given_the_label_alone():
    rng = np.random.default_rng(8)
    h, y = rng.standard_normal(20_000), rng.integers(0, 2, 20_000)
    assert estimators.gaussian(h * np.where(y, 2.0, 2.0), y) == pytest.approx(0, abs=1e-3)
    apart = estimators.gaussian(h + 10.0 * y, y)
    assert apart > 1, "far above H(Y) = ln 2: the fit of one Gaussian to two humps"


def test_pairwise_bounds_hold_the_exact_entropy_between_them():
    rng = np.random.default_rng(9)
    for sigma in (0.05, 0.3, 2.0):
        h = rng.standard_normal(50)
        lower, upper = estimators.entropy_bounds(h, sigma)
        assert lower - 1e-12 <= noisy.entropy(h, sigma) <= upper + 1e-12
        lower, upper = estimators.entropy_bounds(h.reshape(25, 2), sigma)
        assert lower - 1e-12 <= noisy.entropy(h.reshape(25, 2), sigma) <= upper + 1e-12


def test_inputs_of_no_weight_change_no_bound():
    h = np.array([0.0, 0.5, 1e6])
    with_zero = estimators.entropy_bounds(h, 0.1, np.array([0.5, 0.5, 0.0]))
    assert with_zero == pytest.approx(estimators.entropy_bounds(h[:2], 0.1), abs=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: discrete.entropy(np.array([0.5, 0.6])), "p: expected probabilities that sum to 1"),
        (lambda: discrete.of_table(np.array([0.5, 0.5])), "table: expected shape"),
        (lambda: discrete.mutual_information(np.zeros(3), np.zeros(4)), "b: expected 3 values"),
        (lambda: discrete.mutual_information(np.array([]), np.array([])), "a: expected N values"),
        (lambda: discrete.mutual_information(np.zeros(2), np.zeros(2), weights=np.ones(2)), "weights: expected prob"),
        (lambda: discrete.mutual_information(np.zeros(3), np.zeros(3), given=np.zeros(4)), "a: expected 4 values"),
        (lambda: discrete.mutual_information(np.zeros(3), np.zeros(2), given=np.zeros(3)), "b: expected 3 values"),
        (lambda: discrete.entropy(np.ones(0)), "p: expected at least one probability"),
        (lambda: discrete.of_table(np.ones((0, 2))), "table: expected at least one probability"),
        (lambda: discrete.quantized(np.ones(0), 3), "h: expected N activations"),
        (lambda: discrete.quantized(np.ones((0, 2)), 3), "h: expected N activations"),
        (lambda: discrete.quantized(np.ones(3), 0), "bins: expected an integer >= 1"),
        (lambda: noisy.entropy(np.ones(3), 0.0), "sigma: expected a number > 0"),
        (lambda: noisy.entropy(np.ones((3, 3)), 1.0), r"h: expected shape \(N,\) or \(N, 2\)"),
        (lambda: noisy.entropy(np.array([0, 1e9]), 1.0), "sigma: 1 is too small.*expected at least 200"),
        (lambda: noisy.entropy(np.array([5e8, 5e8]), 1e-5), "sigma: 1e-05 is too small.*expected at least 0.0005"),
        (lambda: noisy.about_input(np.ones(2), 1e-300), "sigma: 1e-300 is too small"),
        (lambda: noisy.mutual_information(np.arange(2.0), np.arange(2), 1e-9), "sigma: 1e-09 is too small"),
        (lambda: noisy.entropy(np.array([[0.0, 1], [0, 2]]), 1e-6), "sigma: 1e-06 would take"),
        (lambda: noisy.mutual_information(np.ones(3), np.ones(4), 1.0), "y: expected 3 labels"),
        (lambda: noisy.between(np.ones(3), 1.0), "h: expected two units"),
        (lambda: estimators.ksg(np.ones(3), np.ones(3), 3), "k: expected an integer >= 1 <= 2"),
        (lambda: estimators.ross(np.arange(3.0), np.arange(3)), "y: expected a label that more than one"),
        (lambda: estimators.gaussian(np.ones(4), np.array([0, 0, 1, 1])), "h: expected activations that vary"),
        (lambda: estimators.histogram(np.ones((3, 2)), np.ones(3)), "h: expected shape"),
    ],
)
def test_wrong_arguments_are_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
