"""Second order: closed form, R-operator, complex step and sums of outer products agree, and the identities hold."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import (
    Linear,
    Network,
    Objective,
    ReLU,
    Sigmoid,
    SoftmaxCrossEntropy,
    SquaredError,
    Tanh,
    curvature,
    differences,
    memory,
)
from minimal_nn.curvature import closed_form, fishers
from tests.cases import CASES, assert_close, identify, make_case

each_case = pytest.mark.parametrize("case", CASES, ids=identify)


def expected_route(network):
    kinds = {type(layer).__name__ for layer in network.layers}
    if kinds & {"Residual", "BatchNorm"}:
        return "products"
    return "accumulation" if kinds & {"Conv2d", "Flatten", "AvgPool2d", "MaxPool2d"} else "closed form"


def test_every_route_of_the_hessian_has_its_cases():
    routes = [curvature.hessian_route(case.L.network) for case in CASES]
    assert min(routes.count(route) for route in ("closed form", "accumulation", "products")) >= 9


@each_case
def test_hessian_by_closed_form_products_and_complex_step(case):
    L, w = case.L, case.w
    assert curvature.hessian_route(L.network) == expected_route(L.network)
    H = curvature.hessian(L, w)
    assert_close(H, curvature.hessian_by_products(L, w), scale=1e-3)
    assert_close(H, differences.complex_step_hessian(L, w), scale=1e-3)
    assert (H == H.T).all()


@each_case
def test_hessian_diagonal_by_backpropagation_full_matrix_and_complex_step(case):
    L, w = case.L, case.w
    diagonal = curvature.hessian_diagonal(L, w)
    assert_close(diagonal, np.diagonal(curvature.hessian_by_products(L, w)), scale=1e-3)
    assert_close(diagonal, np.diagonal(differences.complex_step_hessian(L, w)), scale=1e-3)


def test_hessian_diagonal_never_forms_the_matrix(monkeypatch):
    monkeypatch.setattr(closed_form, "_matrix", None)
    L, w = CASES[0].L, CASES[0].w
    assert curvature.hessian_diagonal(L, w).shape == w.shape


@each_case
def test_gauss_newton_by_jacobians_products_and_complex_step(case):
    L, w = case.L, case.w
    G = curvature.gauss_newton(L, w)
    assert_close(G, curvature.gauss_newton_by_products(L, w), scale=1e-3)
    assert_close(G, fishers.gauss_newton_by_jacobians(L, w), scale=1e-3)
    J = differences.complex_step(lambda v: L.network.forward(v, L.x), w)
    z = L.network.forward(w, L.x)
    by_definition = np.zeros_like(G)
    for n in range(L.n_examples):
        H_out = differences.complex_step(lambda zn, n=n: L.loss.gradient(zn[None], L.y[n : n + 1])[0], z[n])
        by_definition += J[:, n] @ H_out @ J[:, n].T / L.n_examples
    assert_close(G, by_definition, scale=1e-3)


@each_case
def test_fisher_equals_gauss_newton_for_softmax_and_squared_error(case):
    assert_close(curvature.fisher(case.L, case.w), curvature.gauss_newton(case.L, case.w), scale=1e-3)


@each_case
def test_empirical_fisher_is_the_mean_of_outer_products_of_gradients(case):
    L, w = case.L, case.w
    F = np.zeros((len(w), len(w)))
    for n in range(L.n_examples):
        g = L.subset([n]).gradient(w) - L.l2 * w
        F += np.outer(g, g) / L.n_examples
    assert_close(curvature.fisher(L, w, kind="empirical"), F, scale=1e-3)


@each_case
@pytest.mark.parametrize("kind", ["true", "empirical", "sampled"])
def test_fisher_diagonal_is_the_diagonal_of_the_fisher(case, kind):
    full = curvature.fisher(case.L, case.w, kind=kind, samples=3, rng=np.random.default_rng(5))
    diagonal = curvature.fisher_diagonal(case.L, case.w, kind=kind, samples=3, rng=np.random.default_rng(5))
    assert_close(diagonal, np.diagonal(full), scale=1e-3)


@each_case
def test_fisher_is_the_sum_of_products_of_score_rows(case):
    L, w = case.L, case.w
    for kind in ("true", "empirical"):
        rows = np.concatenate(list(fishers._weighted_scores(L, w, kind, 1, None)))
        assert_close(curvature.fisher(L, w, kind=kind), rows.T @ rows / L.n_examples, scale=1e-3)


@pytest.mark.parametrize("name", ["tanh", "squared error", "softmax of tanh, scale", "squared error, sigmoid output"])
def test_sampled_fisher_approaches_the_true_one(name):
    """The error of a mean of M draws falls as 1/√M; five standard errors, estimated from 40 repetitions."""
    case = next(c for c in CASES if c.name == name)
    rng = np.random.default_rng(0)
    draws = np.array([curvature.fisher(case.L, case.w, kind="sampled", samples=50, rng=rng) for _ in range(40)])
    standard_error = draws.std(axis=0, ddof=1).max() / np.sqrt(40)
    assert np.abs(draws.mean(axis=0) - curvature.fisher(case.L, case.w)).max() < 5 * standard_error


@each_case
def test_pieces_of_any_size_give_the_same_matrices(case, monkeypatch):
    L, w = case.L, case.w
    functions = curvature.hessian, curvature.hessian_diagonal, curvature.gauss_newton, curvature.fisher
    whole = [f(L, w) for f in functions]
    monkeypatch.setattr(memory.pieces, "__defaults__", (1.0,))
    for f, expected in zip(functions, whole, strict=True):
        assert_close(f(L, w), expected, scale=1e-3)


def test_matrices_stay_in_float32():
    for case in CASES:
        w = case.w.astype(np.float32)
        for f in (curvature.hessian, curvature.hessian_diagonal, curvature.gauss_newton, curvature.fisher):
            assert f(case.L, w).dtype == np.float32, (case.name, f.__name__)


@pytest.mark.parametrize("name", ["relu", "squared error, relu", "dead relu unit", "identity", "deep linear"])
def test_piecewise_linear_networks_have_the_gauss_newton_blocks_of_each_layer(name):
    case = next(c for c in CASES if c.name == name)
    L, w = case.L, case.w
    H, G = curvature.hessian(L, w) - L.l2 * np.eye(len(w)), curvature.gauss_newton(L, w)
    layer = np.array([int(n.split(".")[0]) for n in L.network.layout for _ in range(len(w[L.network.layout[n]]))])
    same = layer[:, None] == layer[None, :]
    assert_close(H * same, G * same)
    assert np.abs(H - G).max() > 1e-3 * np.abs(G).max(), "between layers they must differ"


def test_penalty_is_in_the_hessian_and_never_in_gauss_newton_or_fisher():
    case = CASES[0]
    with_penalty = Objective(case.L.network, case.L.loss, case.L.x, case.L.y, l2=0.7)
    P = len(case.w)
    assert_close(curvature.hessian(with_penalty, case.w) - curvature.hessian(case.L, case.w), 0.7 * np.eye(P))
    for kind in ("true", "empirical"):
        assert (curvature.fisher(with_penalty, case.w, kind=kind) == curvature.fisher(case.L, case.w, kind=kind)).all()
    assert (curvature.gauss_newton(with_penalty, case.w) == curvature.gauss_newton(case.L, case.w)).all()


def test_empirical_fisher_vanishes_at_zero_residuals_and_the_true_one_does_not():
    case = next(c for c in CASES if c.name == "squared error")
    fitted = Objective(case.L.network, case.L.loss, case.L.x, case.L.network.forward(case.w, case.L.x))
    assert not curvature.fisher(fitted, case.w, kind="empirical").any()
    assert np.abs(curvature.fisher(fitted, case.w)).max() > 0.1


def test_softmax_hessian_has_the_nullity_of_shifted_logits_and_dead_inputs():
    """fan_in + 1 for the shift of all logits, fan_out of the first layer for each input that is always zero."""
    case = make_case("null", Linear(4, 5), Tanh(), Linear(5, 3), zero_input=2, n=60)
    eigenvalues = np.linalg.eigvalsh(curvature.hessian(case.L, case.w))
    assert (np.abs(eigenvalues) < 1e-14).sum() == (5 + 1) + 5


def test_hand_case_of_a_product_of_two_weights():
    """f = w_1 w_2 at (1, 2), x = 1, squared error; y = 0 and y = 2. H, G and F_emp by pencil."""
    net = Network(Linear(1, 1, bias=False), Linear(1, 1, bias=False))
    w = np.array([1.0, 2.0])
    for y, H, F_emp in ((0.0, [[4, 4], [4, 1]], [[16, 8], [8, 4]]), (2.0, [[4, 2], [2, 1]], [[0, 0], [0, 0]])):
        L = Objective(net, SquaredError(), np.ones((1, 1)), np.array([[y]]))
        assert curvature.hessian(L, w).tolist() == H
        assert curvature.gauss_newton(L, w).tolist() == [[4, 2], [2, 1]]
        assert curvature.fisher(L, w, kind="empirical").tolist() == F_emp


def test_inverse_is_the_inverse():
    case = next(c for c in CASES if c.name == "logistic regression")
    H = curvature.hessian(case.L, case.w)
    for damping in (0.0, 0.3):
        assert_close(curvature.inverse(H, damping), np.linalg.inv(H + damping * np.eye(len(H))), 1e-12)
    assert curvature.inverse(H.astype(np.float32)).dtype == np.float32
    inverse = curvature.inverse(H)
    assert (inverse == inverse.T).all()


@pytest.mark.parametrize("H", [np.diag([1.0, 0.0]), np.diag([1.0, -0.5]), np.ones((3, 3)), np.diag([1.0, 1e-17])])
def test_inverse_of_a_singular_or_indefinite_matrix_is_an_error_with_the_remedy(H):
    with pytest.raises(ValueError, match=r"H: expected a positive definite matrix.*least eigenvalue.*damping"):
        curvature.inverse(H)
    curvature.inverse(H, damping=0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "wrong"}, "kind: expected one of true, empirical, sampled"),
        ({"kind": "sampled"}, "rng: expected a numpy.random.Generator"),
        ({"kind": "sampled", "rng": np.random.default_rng(0), "samples": 0}, "samples: expected an integer >= 1"),
    ],
)
def test_fisher_refuses_unknown_kinds_and_sampling_without_a_generator(options, message):
    with pytest.raises(ValueError, match=message):
        curvature.fisher(CASES[0].L, CASES[0].w, **options)


def test_a_network_the_closed_form_does_not_know_takes_the_products():
    class Doubled(Tanh):
        """A stranger that is not an Activation by type would come here; force the dispatch instead."""

    L = Objective(Network(Linear(2, 3), Doubled(), Linear(3, 2)), SoftmaxCrossEntropy(), np.eye(2), np.array([0, 1]))
    assert closed_form.is_chain(L.network), "a subclass of an activation is still elementwise"


def test_relu_hessian_equals_fisher_only_at_zero_decay():
    case = make_case("relu alone", Linear(3, 4), ReLU(), Linear(4, 2), l2=0.1)
    H, F = curvature.hessian_diagonal(case.L, case.w), curvature.fisher_diagonal(case.L, case.w)
    assert_close(H - 0.1, F)


def test_a_sigmoid_output_adds_its_own_curvature():
    """With one linear layer and σ at the output, H − G = residual · σ″ x xᵀ: nonzero, by hand."""
    x, y = np.array([[1.0, 2.0]]), np.array([[0.9]])
    L = Objective(Network(Linear(2, 1, bias=False), Sigmoid()), SquaredError(), x, y)
    w = np.array([0.3, -0.2])
    s = 1 / (1 + np.exp(-(x[0] @ w)))
    by_hand = ((s * (1 - s)) ** 2 + (s - 0.9) * s * (1 - s) * (1 - 2 * s)) * np.outer(x, x)
    assert_close(curvature.hessian(L, w), by_hand)
