"""Layers at their edges: ties, strides that do not divide, shapes that do not fit, and drawn networks of every kind."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimal_nn import (
    GELU,
    AvgPool2d,
    BatchNorm,
    BinaryCrossEntropy,
    Conv2d,
    Flatten,
    Identity,
    Linear,
    MaxPool2d,
    Network,
    Objective,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    SoftmaxCrossEntropy,
    Softplus,
    SquaredError,
    Tanh,
    curvature,
    differences,
)
from minimal_nn.layers import Activation, Layer
from minimal_nn.losses import Loss
from tests import plain
from tests.cases import assert_close, make_case


def test_the_first_of_equal_values_is_the_largest_of_a_window():
    pool, x = MaxPool2d(2), np.ones((1, 1, 2, 2))
    assert pool.forward({}, x).tolist() == [[[[1.0]]]]
    assert pool.vjp({}, x, np.ones((1, 1, 1, 1)), np.full((1, 1, 1, 1), 5.0)).tolist() == [[[[5.0, 0.0], [0.0, 0.0]]]]


def test_a_rest_at_the_border_is_left_out_and_gets_no_adjoint():
    for pool in (AvgPool2d(2), MaxPool2d(2)):
        x = np.arange(25.0).reshape(1, 1, 5, 5)
        y = pool.forward({}, x)
        assert y.shape == (1, 1, 2, 2)
        spread = pool.vjp({}, x, y, np.ones_like(y))
        assert not spread[..., 4, :].any()
        assert not spread[..., :, 4].any()
        assert spread.sum() == 4


def test_hand_case_of_a_one_dimensional_kernel():
    """(1, 2, 3, 4) under the kernel (1, 0, −1): a correlation gives (−2, −2), a true convolution would give (2, 2)."""
    net = Network(Conv2d(1, 1, 3, bias=False), Flatten())
    kernel = np.zeros((1, 1, 3, 3))
    kernel[0, 0, 1] = [1, 0, -1]
    image = np.zeros((1, 1, 3, 4))
    image[0, 0, 1] = [1, 2, 3, 4]
    assert net.forward(kernel.ravel(), image).tolist() == [[-2, -2]]


@pytest.mark.parametrize("loss", [SoftmaxCrossEntropy(), BinaryCrossEntropy()])
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_saturated_logits_give_finite_derivatives_of_every_order(loss, size):
    net = Network(Linear(3, 3, bias=False))
    x = np.eye(3)
    y = np.array([0, 1, 2]) if isinstance(loss, SoftmaxCrossEntropy) else np.eye(3)
    L = Objective(net, loss, x, y)
    for sign in (1, -1):
        w = sign * size * (2 * np.eye(3) - 1).ravel()
        for value in (L(w), L.gradient(w), curvature.hessian(L, w), curvature.fisher(L, w), L.hvp(w, w)):
            assert np.isfinite(value).all()
    assert L(size * (2 * np.eye(3) - 1).ravel()) <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network(Conv2d(2, 3, 3), Flatten(), Linear(27, 2)).output_shape((1, 5, 5)), r"Conv2d\(2, 3, 3\): expected images"),
        (lambda: Network(Conv2d(1, 3, 6)).output_shape((1, 5, 5)), r"Conv2d\(1, 3, 6\): expected images at least as large"),
        (lambda: Network(MaxPool2d(4), Flatten(), Linear(3, 2)).output_shape((1, 3, 3)), r"MaxPool2d\(4\): expected images"),
        (lambda: Network(Linear(4, 3), Residual(Linear(3, 2))), r"Residual\(Linear\(3, 2\)\): expected an inner output"),
        (lambda: Residual(), "layers: expected one or more layers"),
        (lambda: Residual("Tanh"), "layers: expected one or more layers"),
        (lambda: Conv2d(1, 2, 0), "kernel: expected an integer >= 1, got 0"),
        (lambda: Conv2d(1, 2, 3, padding=-1), "padding: expected an integer >= 0, got -1"),
        (lambda: AvgPool2d(2, stride=0), "stride: expected an integer >= 1, got 0"),
        (lambda: BatchNorm(2, mean=(1.0,)), r"mean: expected shape \(2,\)"),
        (lambda: BatchNorm(2, variance=(1.0, -1.0)), "variance: expected variance"),
        (lambda: Network(Linear(4, 3), BatchNorm(2)), r"BatchNorm\(2\): expected shape"),
        (lambda: Network(Linear(4, 3), Flatten()), r"Flatten\(\): expected images"),
        (lambda: Objective(Network(Conv2d(1, 2, 1)), SquaredError(), np.ones((1, 1, 2, 2)), np.ones((1, 2))), "network: expected outputs"),
        (lambda: Objective(Network(Linear(2, 2)), BinaryCrossEntropy(), np.ones((1, 2)), np.array([[0.0, 2.0]])), "y: expected probabilities"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


class Doubled(Layer):
    """A layer that somebody began: forward alone."""

    def forward(self, p, x):
        return 2 * x


class Bent(Activation):
    """An activation without its second derivative."""

    def forward(self, p, x):
        return x + x**2

    def derivative(self, x, y):
        return 1 + 2 * x


class Cubic(Loss):
    """A loss with a value alone."""

    def targets(self, y, n_outputs):
        return y

    def value(self, z, y):
        return (z**3).sum(axis=-1)


class Shift(Layer):
    """A layer with a parameter that has no derivatives in it."""

    def parameter_shapes(self):
        return {"shift": (2,)}

    def forward(self, p, x):
        return x + p["shift"]

    def vjp(self, p, x, y, by):
        return by


@pytest.mark.parametrize(
    ("layer", "loss", "call", "message"),
    [
        (Doubled(), SquaredError(), "gradient", r"Doubled: defines no vjp; kinds of Layer that do: AvgPool2d, .*, Tanh$"),
        (Bent(), SquaredError(), "hessian", r"Bent: defines no second_derivative; kinds of Activation that do: GELU, .*, Tanh$"),
        (Tanh(), Cubic(), "gradient", r"Cubic: defines no gradient; kinds of Loss that do: BinaryCrossEntropy, S.*, SquaredError$"),
        (Shift(), SquaredError(), "gradient", r"Shift: defines no parameter_vjp; kinds of Layer that do: .*Linear.*"),
    ],
)  # fmt: skip
def test_what_a_layer_or_a_loss_does_not_define_is_named_with_those_that_do(layer, loss, call, message):
    network = Network(Linear(3, 2), layer, Linear(2, 2))
    L = Objective(network, loss, np.ones((2, 3)), np.ones((2, 2)))
    w = network.init(np.random.default_rng(0))
    with pytest.raises(NotImplementedError, match=message):
        L.gradient(w) if call == "gradient" else curvature.hessian(L, w)


phis = st.sampled_from([Identity(), Tanh(), ReLU(), Sigmoid(), Softplus(), SiLU(), GELU()])
losses = st.sampled_from([SoftmaxCrossEntropy(), SquaredError(), BinaryCrossEntropy()])


def agrees_over_all_routes(case, seed):
    L, w = case.L, case.w
    p = L.network.layout.unflatten(w)
    assert_close(L.network.forward(w, L.x), [plain.forward(L.network.layers, p, x) for x in L.x])
    assert_close(L.gradient(w), differences.complex_step_gradient(L, w), scale=1e-2)
    V = np.random.default_rng(seed).standard_normal((len(w), 3))
    H = curvature.hessian(L, w)
    assert_close(H @ V, differences.complex_step(lambda t: L.gradient(w + (V @ t)), np.zeros(3)).T, scale=1e-2)
    assert_close(H @ V, L.hvp(w, V), scale=1e-2)
    assert_close(curvature.hessian_diagonal(L, w), np.diagonal(H), scale=1e-2)
    G = curvature.gauss_newton(L, w)
    assert_close(G @ V, L.gauss_newton_product(w, V), scale=1e-2)
    assert_close(G, curvature.fisher(L, w), scale=1e-2)


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    activations=st.lists(phis, min_size=3, max_size=3),
    residual=st.booleans(),
    bias=st.booleans(),
    loss=losses,
    n=st.integers(1, 6),
    l2=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
def test_any_multilayer_perceptron_agrees_over_all_routes(widths, activations, residual, bias, loss, n, l2, seed):
    layers = [Linear(widths[0], widths[1], bias=bias)]
    for phi, (inputs, outputs) in zip(activations, pairwise(widths[1:]), strict=False):
        layers += [phi, Residual(Linear(inputs, inputs), phi)] if residual else [phi]
        layers.append(Linear(inputs, outputs))
    agrees_over_all_routes(make_case("drawn", *layers, loss=loss, n=n, l2=l2, seed=seed), seed)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    phi=phis,
    pool=st.sampled_from([None, AvgPool2d(2), MaxPool2d(2), AvgPool2d(2, stride=1)]),
    residual=st.booleans(),
    loss=losses,
    seed=st.integers(0, 2**16),
)
def test_any_convolutional_network_agrees_over_all_routes(
    channels, kernel, stride, padding, phi, pool, residual, loss, seed
):
    layers, shape = [], (channels[0], 5, 4)
    for inputs, outputs in pairwise(channels):
        if min(shape[1:]) + 2 * padding < kernel:
            break
        layers += [Conv2d(inputs, outputs, kernel, stride, padding), phi]
        shape = Network(*layers).output_shape((channels[0], 5, 4))
        if residual:
            layers.append(Residual(Conv2d(outputs, outputs, 1), phi))
    if not layers:
        return
    if pool is not None and min(shape[1:]) >= 2:
        layers.append(pool)
    features = Network(*layers, Flatten()).output_shape((channels[0], 5, 4))[0]
    case = make_case("drawn", *layers, Flatten(), Linear(features, 2), loss=loss, image=(channels[0], 5, 4), n=3, l2=0.1, seed=seed)  # fmt: skip
    agrees_over_all_routes(case, seed)
