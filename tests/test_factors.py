"""K-FAC factors, LeCun's recursion, gradient covariance and blocks by layer, each beside loops and the complex step."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import (
    Conv2d,
    Flatten,
    Linear,
    Network,
    Objective,
    ReLU,
    Residual,
    SoftmaxCrossEntropy,
    SquaredError,
    Tanh,
    curvature,
    differences,
    memory,
)
from minimal_nn.curvature import blocks
from minimal_nn.layers import Activation, Layer
from tests.cases import CASES, assert_close, identify, make_case

CHAINS = [c for c in CASES if all(isinstance(layer, (Linear, Activation)) for layer in c.L.network.layers)]
FACTORED = [
    c for c in CASES if all(isinstance(f, (Linear, Conv2d)) or not f.parameter_shapes() for f in c.L.network.layers)
]
RECURSIVE = [c for c in CASES if not any(isinstance(f, Residual) for f in c.L.network.layers)]
each_case = pytest.mark.parametrize("case", CASES, ids=identify)
each_chain = pytest.mark.parametrize("case", CHAINS, ids=identify)
each_recursive = pytest.mark.parametrize("case", RECURSIVE, ids=identify)
each_factored = pytest.mark.parametrize("case", FACTORED, ids=identify)


def layer_of(case) -> np.ndarray:
    """The index of the layer to which each entry of w belongs (P,)."""
    layout, layer = case.L.network.layout, np.empty(len(case.w), int)
    for name in layout:
        layer[layout[name]] = int(name.split(".")[0])
    return layer


def own_blocks(case, M: np.ndarray) -> dict[int, np.ndarray]:
    layer = layer_of(case)
    return {i: M[np.ix_(layer == i, layer == i)] for i in np.unique(layer)}


def assert_same_blocks(found, expected, tolerance=1e-12, scale=1e-3):
    assert list(found) == list(expected)
    largest = max([scale, *(np.abs(block).max() for block in expected.values())])
    for i, block in expected.items():
        assert_close(found[i], block, tolerance, scale=largest)


def slopes(f, a: np.ndarray) -> np.ndarray:
    """∂f/∂a (entries of a, entries of f) by the complex step, for arrays of any shape."""
    return differences.complex_step(lambda v: np.ravel(f(v.reshape(a.shape))), a.ravel())


def rows_by_loops(layer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What the weights multiply at each position of one example's output y (o, ...), as rows with a 1 for the bias."""
    rows = [x]
    if isinstance(layer, Conv2d):
        k, s, p = layer.kernel, layer.stride, layer.padding
        padded = np.zeros((len(x), x.shape[1] + 2 * p, x.shape[2] + 2 * p), x.dtype)
        padded[:, p : p + x.shape[1], p : p + x.shape[2]] = x
        rows = [padded[:, s * i : s * i + k, s * j : s * j + k].ravel() for i, j in np.ndindex(y.shape[1:])]
    return np.array([np.append(row, 1.0) if layer.bias else row for row in rows])


def kfac_by_loops(case, kind: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """One example at a time: δ and ∂z/∂y_l by the complex step; E[δδᵀ] = Jᵀ (∂²ℓ/∂z²) J for the model's labels."""
    L, w, factors = case.L, case.w, {}
    own, layers = L.network.parameters(w), L.network.layers
    for i, layer in enumerate(layers):
        if not isinstance(layer, (Linear, Conv2d)):
            continue
        A, B = 0.0, 0.0
        for n in range(L.n_examples):
            trace = L.network.trace(w, L.x[n : n + 1])
            rows = rows_by_loops(layer, trace[i][0], trace[i + 1][0])
            T = len(rows)

            def outputs(y, i=i):
                y = y[None]
                for j in range(i + 1, len(layers)):
                    y = layers[j].forward(own[j], y)
                return y[0]

            A = A + rows.T @ rows / L.n_examples
            if kind == "true":
                J = slopes(outputs, trace[i + 1][0]).reshape(layer.outputs, T, -1)
                for J_t in J.swapaxes(0, 1):
                    B = B + J_t @ L.loss.hessian(trace[-1])[0] @ J_t.T / (T * L.n_examples)
            else:
                loss = lambda y, n=n, f=outputs: L.loss.value(f(y)[None], L.y[n : n + 1])[0]  # noqa: E731
                delta = slopes(loss, trace[i + 1][0]).reshape(layer.outputs, T)
                for delta_t in delta.T:
                    B = B + np.outer(delta_t, delta_t) / (T * L.n_examples)
        factors[i] = A, B
    return factors


@each_factored
@pytest.mark.parametrize("kind", ["true", "empirical"])
def test_kfac_factors_are_those_of_loops_over_examples(case, kind):
    found, expected = curvature.kfac(case.L, case.w, kind), kfac_by_loops(case, kind)
    assert list(found) == list(expected)
    for i in expected:
        for factor, by_loops in zip(found[i], expected[i], strict=True):
            assert_close(factor, by_loops, scale=1e-3)


@each_chain
@pytest.mark.parametrize("kind", ["true", "empirical", "sampled"])
def test_kfac_of_one_example_is_the_fisher_block(case, kind):
    one = case.L.subset([0])
    options = {"kind": kind, "samples": 2 if kind == "sampled" else 1}
    factors = curvature.kfac(one, case.w, rng=np.random.default_rng(1), **options)
    F = curvature.fisher(one, case.w, rng=np.random.default_rng(1), **options)
    assert_same_blocks({i: curvature.kfac_block(A, B) for i, (A, B) in factors.items()}, own_blocks(case, F))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_kfac_of_a_linear_network_with_squared_error_is_the_fisher_block_for_any_number_of_examples(scale):
    """∂z/∂y_l is the product of the weights behind layer l: the same for all examples (Bernacchia et al. 2018)."""
    layers = Linear(3, 4), Linear(4, 2, bias=False), Linear(2, 3)
    case = make_case("kfac", *layers, loss=SquaredError(scale), l2=0.1, n=12)
    factors = curvature.kfac(case.L, case.w)
    F = own_blocks(case, curvature.fisher(case.L, case.w))
    assert_same_blocks({i: curvature.kfac_block(A, B) for i, (A, B) in factors.items()}, F)


def test_kfac_is_not_the_fisher_block_where_inputs_and_adjoints_vary_together():
    case = next(c for c in CASES if c.name == "tanh")
    for i, block in own_blocks(case, curvature.fisher(case.L, case.w)).items():
        approximate = curvature.kfac_block(*curvature.kfac(case.L, case.w)[i])
        assert np.abs(approximate - block).max() > 1e-2 * np.abs(block).max()
        assert approximate.shape == block.shape


def test_kfac_block_by_hand_in_the_order_of_w():
    """One input and a bias, two outputs: w = (W_11, W_12, b_1, b_2)."""
    A, B = np.array([[4.0, 2.0], [2.0, 1.0]]), np.array([[3.0, 5.0], [5.0, 7.0]])
    expected = [[12, 20, 6, 10], [20, 28, 10, 14], [6, 10, 3, 5], [10, 14, 5, 7]]
    assert curvature.kfac_block(A, B).tolist() == expected


@pytest.mark.parametrize("bias", [True, False])
def test_kfac_of_a_convolution_that_sees_the_whole_image_at_once_is_the_fisher_block(bias):
    layer = Conv2d(2, 3, 3, bias=bias)
    L, w = objective(layer, Tanh(), Flatten(), Linear(3, 2), shape=(2, 3, 3))
    one = L.subset([2])
    F = curvature.fisher(one, w)
    factors = curvature.kfac(one, w)
    size = layer.kernel**2 * 6 + 3 * bias
    assert_close(curvature.kfac_block(*factors[0], layer), F[:size, :size], scale=1e-3)
    assert_close(curvature.kfac_block(*factors[3], L.network.layers[3]), F[size:, size:], scale=1e-3)
    same = curvature.kfac_block(*curvature.kfac(L, w)[3])
    assert_close(curvature.kfac_block(*curvature.kfac(L, w)[3], L.network.layers[3]), same)


def test_kfac_skips_layers_without_parameters():
    case = make_case("flat", Linear(4, 3), Tanh(), Linear(3, 2))
    images = Network(Flatten(), *case.L.network.layers)
    L = Objective(images, case.L.loss, case.L.x.reshape(-1, 1, 2, 2), case.L.y)
    found, expected = curvature.kfac(L, case.w), curvature.kfac(case.L, case.w)
    for i, factors in expected.items():
        for a, b in zip(found[i + 1], factors, strict=True):
            assert_close(a, b)
    assert_close(curvature.obd_recursive_diagonal(L, case.w), curvature.obd_recursive_diagonal(case.L, case.w))


def obd_by_loops(case) -> np.ndarray:
    """LeCun's recursion example by example, each layer's ∂y/∂x and ∂y/∂θ as matrices by the complex step."""
    L, w = case.L, case.w
    own, layers = L.network.parameters(w), L.network.layers
    total = np.zeros_like(w)
    views = L.network.parameters(total)
    first = min(i for i, layer in enumerate(layers) if layer.parameter_shapes())
    for n in range(L.n_examples):
        trace = [t[0] for t in L.network.trace(w, L.x[n : n + 1])]
        h = differences.complex_step(lambda z, n=n: L.loss.gradient(z[None], L.y[n : n + 1])[0], trace[-1]).diagonal()
        for i in range(len(layers) - 1, first - 1, -1):
            layer, p, x, y = layers[i], own[i], trace[i], trace[i + 1]
            h_x = slopes(lambda x, f=layer, p=p: f.forward(p, x[None]), x) ** 2 @ h
            for name, theta in p.items():
                slope = slopes(lambda t, f=layer, p=p, x=x, name=name: f.forward({**p, name: t}, x[None]), theta)
                views[i][name][...] += (slope**2 @ h).reshape(theta.shape) / L.n_examples
            if isinstance(layer, Activation):

                def behind(y, i=i, n=n):
                    y = y[None]
                    for j in range(i + 1, len(layers)):
                        y = layers[j].forward(own[j], y)
                    return L.loss.value(y, L.y[n : n + 1])[0]

                bend = slopes(lambda x, f=layer: f.derivative(x, f.forward({}, x)), x).diagonal()
                h_x = h_x + bend * slopes(behind, y).ravel()
            h = h_x
    return total + L.l2


@each_recursive
def test_recursive_diagonal_is_that_of_scalar_loops(case):
    assert_close(curvature.obd_recursive_diagonal(case.L, case.w), obd_by_loops(case), scale=1e-3)


@pytest.mark.parametrize("case", [c for c in CHAINS if not isinstance(c.L.loss, SoftmaxCrossEntropy)], ids=identify)
def test_recursive_diagonal_is_exact_for_diagonal_output_hessians_on_the_top_two_linear_layers(case):
    found, exact = curvature.obd_recursive_diagonal(case.L, case.w), curvature.hessian_diagonal(case.L, case.w)
    top = np.isin(layer_of(case), np.unique(layer_of(case))[-2:])
    assert_close(found[top], exact[top])


@each_chain
def test_recursive_diagonal_is_exact_on_the_last_linear_layer_for_every_loss(case):
    found, exact = curvature.obd_recursive_diagonal(case.L, case.w), curvature.hessian_diagonal(case.L, case.w)
    top = layer_of(case) == layer_of(case).max()
    assert_close(found[top], exact[top], scale=1e-3)


def test_recursive_diagonal_differs_below_the_top_two_layers_and_below_the_top_one_for_softmax():
    layers = Linear(3, 4), Tanh(), Linear(4, 5), Tanh(), Linear(5, 3)
    for loss, exact_layers in ((SquaredError(), (2, 4)), (SoftmaxCrossEntropy(), (4,))):
        case = make_case("recursion", *layers, loss=loss)
        found, exact = curvature.obd_recursive_diagonal(case.L, case.w), curvature.hessian_diagonal(case.L, case.w)
        for i in (0, 2, 4):
            own = layer_of(case) == i
            error = np.abs(found - exact)[own].max() / np.abs(exact[own]).max()
            assert error < 1e-12 if i in exact_layers else error > 1e-2, (loss, i, error)


def test_recursive_diagonal_is_exact_where_every_layer_has_one_unit():
    case = make_case("thread", Linear(1, 1), Tanh(), Linear(1, 1), Tanh(), Linear(1, 1), loss=SquaredError(), l2=0.3)
    assert_close(curvature.obd_recursive_diagonal(case.L, case.w), curvature.hessian_diagonal(case.L, case.w))


@each_case
def test_gradient_covariance_is_the_empirical_fisher_less_the_mean_gradients_product(case):
    L, w = case.L, case.w
    found = curvature.gradient_covariance(L, w)
    mean = L.gradient(w) - L.l2 * w
    F = curvature.fisher(L, w, kind="empirical")
    assert_close(found, F - np.outer(mean, mean), scale=max(1e-3, np.abs(F).max()))
    by_loops, each = np.zeros_like(F), [L.subset([n]).gradient(w) - L.l2 * w for n in range(L.n_examples)]
    for g in each:
        by_loops += np.outer(g - np.mean(each, axis=0), g - np.mean(each, axis=0)) / L.n_examples
    assert_close(found, by_loops, scale=1e-3)
    assert np.linalg.eigvalsh(found)[0] >= -1e-14 * max(1, np.abs(found).max())


def test_gradient_covariance_of_one_example_and_of_equal_examples_vanishes():
    case = next(c for c in CASES if c.name == "tanh")
    for index in ([3], [3] * 5):
        assert np.abs(curvature.gradient_covariance(case.L.subset(index), case.w)).max() < 1e-30


@each_case
def test_blocks_are_the_diagonal_blocks_of_the_matrices(case):
    L, w = case.L, case.w
    H = own_blocks(case, curvature.hessian(L, w))
    assert_same_blocks(curvature.hessian_blocks(L, w), H)
    assert_same_blocks(curvature.hessian_blocks_by_products(L, w), H)
    assert_same_blocks(curvature.gauss_newton_blocks(L, w), own_blocks(case, curvature.gauss_newton(L, w)))
    for kind in ("true", "empirical", "sampled"):
        F = own_blocks(case, curvature.fisher(L, w, kind=kind, rng=np.random.default_rng(2)))
        assert_same_blocks(curvature.fisher_blocks(L, w, kind=kind, rng=np.random.default_rng(2)), F)
    for block in [*curvature.hessian_blocks(L, w).values(), *curvature.gauss_newton_blocks(L, w).values()]:
        assert (block == block.T).all()


@each_case
def test_hessian_blocks_by_the_complex_step(case):
    found = curvature.hessian_blocks(case.L, case.w)
    assert_same_blocks(found, own_blocks(case, differences.complex_step_hessian(case.L, case.w)))


@pytest.mark.parametrize("name", ["relu", "squared error, relu", "dead relu unit", "identity", "deep linear"])
def test_blocks_of_a_piecewise_linear_network_are_those_of_gauss_newton(name):
    case = next(c for c in CASES if c.name == name)
    H, G = curvature.hessian_blocks(case.L, case.w), curvature.gauss_newton_blocks(case.L, case.w)
    assert_same_blocks({i: block - case.L.l2 * np.eye(len(block)) for i, block in H.items()}, G)


def test_hessian_blocks_take_the_closed_form_for_chains_and_products_otherwise(monkeypatch):
    chain = next(c for c in CASES if c.name == "tanh")
    monkeypatch.setattr(blocks, "hessian_blocks_by_products", lambda L, w: "products")
    assert list(curvature.hessian_blocks(chain.L, chain.w)) == [0, 2]
    net = Network(Residual(Linear(4, 4), Tanh()), Linear(4, 3))
    other = Objective(net, chain.L.loss, chain.L.x, chain.L.y)
    assert curvature.hessian_blocks(other, net.init(np.random.default_rng(0))) == "products"


def test_everything_stays_in_float32_and_in_pieces_of_any_size(monkeypatch):
    def everything(L, w):
        yield curvature.obd_recursive_diagonal(L, w)
        yield curvature.gradient_covariance(L, w)
        for factors in curvature.kfac(L, w).values():
            yield from factors
        for f in (curvature.hessian_blocks, curvature.gauss_newton_blocks, curvature.fisher_blocks):
            yield from f(L, w).values()
        yield from curvature.hessian_blocks_by_products(L, w).values()

    for name in ("deep mixed, l2", "squared error"):
        case = next(c for c in CASES if c.name == name)
        whole = list(everything(case.L, case.w))
        for a, b in zip(everything(case.L, case.w.astype(np.float32)), whole, strict=True):
            assert a.dtype == np.float32
            assert_close(a, b, 1e-5)
        with monkeypatch.context() as patch:
            patch.setattr(memory.pieces, "__defaults__", (1.0,))
            for a, b in zip(everything(case.L, case.w), whole, strict=True):
                assert_close(a, b)


def objective(*layers, shape=(1, 4, 4)):
    net, rng = Network(*layers), np.random.default_rng(0)
    L = Objective(net, SoftmaxCrossEntropy(), rng.standard_normal((5, *shape)), np.array([0, 1, 0, 1, 1]))
    return L, net.init(rng)


class Stranger(Layer):
    """A layer without parameters that is no elementwise activation."""

    def forward(self, p, x):
        return x[:, ::-1]


residual = objective(Linear(3, 4), Residual(Linear(4, 4), Tanh()), Linear(4, 2), shape=(3,))
pooled = objective(Linear(4, 4), Stranger(), Linear(4, 2), shape=(4,))
plain = objective(Linear(3, 2), shape=(3,))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curvature.kfac(*residual), r"layers\[1\]: K-FAC factors: .* but Linear and Conv2d, got Residual\("),
        (lambda: curvature.obd_recursive_diagonal(*residual), r"layers\[1\]: .*one of Linear, .*, got Residual\("),
        (lambda: curvature.obd_recursive_diagonal(*pooled), r"layers\[1\]: .*elementwise activation .*got Stranger"),
        (lambda: curvature.kfac_block(np.eye(4), np.eye(2), Linear(2, 2)), r"A: expected shape \(3, 3\)"),
        (lambda: curvature.kfac_block(np.eye(2), np.eye(2), ReLU()), r"layer: expected Linear or Conv2d, got ReLU"),
        (lambda: curvature.kfac(*plain, kind="wrong"), "kind: expected one of true, empirical, sampled"),
        (lambda: curvature.kfac(*plain, kind="sampled"), "rng: expected a numpy.random.Generator"),
        (lambda: curvature.kfac(plain[0], plain[1][:-1]), r"w: expected shape \(8,\)"),
        (lambda: curvature.kfac_block(np.ones((2, 3)), np.eye(2)), "A: expected a square matrix"),
        (lambda: curvature.kfac_block(np.eye(2), np.ones(3)), r"B: expected shape \(any, any\)"),
        (lambda: curvature.obd_recursive_diagonal(plain[0], np.full(8, np.nan)), "w: expected finite numbers"),
        (lambda: curvature.gradient_covariance(plain[0], np.zeros(7)), r"w: expected shape \(8,\)"),
        (lambda: curvature.hessian_blocks(plain[0], np.zeros(7)), r"w: expected shape \(8,\)"),
        (lambda: curvature.fisher_blocks(*plain, kind="wrong"), "kind: expected one of true, empirical, sampled"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
