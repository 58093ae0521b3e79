"""An outside route: JAX's automatic differentiation, forward over reverse, gives the same Hessian and Gauss-Newton."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import BinaryCrossEntropy, SquaredError, curvature
from tests.cases import CASES, assert_close, identify

pytestmark = pytest.mark.filterwarnings("default")  # what jax warns of is jax's


@pytest.fixture(scope="module")
def jax():
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax


def run(jax, layers, p, h):
    """Run JAX's own functions for our layers; p maps "<index>.<name>" to arrays in our layout."""
    nn, jnp = jax.nn, jax.numpy
    phi = {"Tanh": jnp.tanh, "ReLU": nn.relu, "Sigmoid": nn.sigmoid, "Softplus": nn.softplus, "SiLU": nn.silu,
           "GELU": lambda a: nn.gelu(a, approximate=False), "Identity": lambda a: a,
           "Flatten": lambda a: a.reshape(len(a), -1)}  # fmt: skip
    for i, layer in enumerate(layers):
        kind = type(layer).__name__
        own = {name.partition(".")[2]: value for name, value in p.items() if name.split(".")[0] == str(i)}
        if kind in phi:
            h = phi[kind](h)
        elif kind == "Linear":
            h = h @ own["weight"] + own.get("bias", 0.0)
        elif kind == "Conv2d":
            pad = [(layer.padding, layer.padding)] * 2
            h = jax.lax.conv_general_dilated(h, own["weight"].swapaxes(0, 1), (layer.stride,) * 2, pad)
            h = h + own["bias"][:, None, None] if layer.bias else h
        elif kind in ("AvgPool2d", "MaxPool2d"):
            h = pool(jax, layer, h, kind)
        elif kind == "BatchNorm":
            along = (slice(None), *(None,) * (h.ndim - 2))
            mean, variance = (jnp.asarray(v)[along] for v in (layer.mean, layer.variance))
            normal = (h - mean) / jnp.sqrt(variance + layer.epsilon)
            h = own["gamma"][along] * normal + own["beta"][along]
        else:
            h = h + run(jax, layer.layers, own, h)
    return h


def pool(jax, layer, h, kind):
    """Pool the windows that conv_general_dilated_patches cuts out; of equal largest values the first one counts."""
    jnp, k, s = jax.numpy, layer.kernel, layer.stride or layer.kernel
    n, c, height, width = h.shape
    patches = jax.lax.conv_general_dilated_patches(h.reshape(n * c, 1, height, width), (k, k), (s, s), "VALID")
    if kind == "AvgPool2d":
        pooled = patches.mean(axis=1)
    else:
        first = jax.lax.stop_gradient(patches).argmax(axis=1, keepdims=True)
        pooled = jnp.take_along_axis(patches, first, axis=1)[:, 0]
    return pooled.reshape(n, c, *pooled.shape[1:])


def jax_functions(jax, case):
    """Return L(w) and the outputs z(w) as JAX functions."""
    L, jnp = case.L, jax.numpy
    x, y = jnp.asarray(L.x), jnp.asarray(L.y)

    def outputs(w):
        p = {name: w[L.network.layout[name]].reshape(shape) for name, shape in L.network.layout.shapes.items()}
        return run(jax, L.network.layers, p, x)

    def of_outputs(z):
        if isinstance(L.loss, SquaredError):
            losses = 0.5 * ((z - y) ** 2).sum(axis=1)
        elif isinstance(L.loss, BinaryCrossEntropy):
            losses = (jax.nn.softplus(z) - y * z).sum(axis=1)
        else:
            labels = y if y.ndim == 2 else jax.nn.one_hot(y, z.shape[1])
            losses = -(labels * jax.nn.log_softmax(z)).sum(axis=1)
        return L.loss.scale * losses.mean()

    return lambda w: of_outputs(outputs(w)) + 0.5 * L.l2 * (w @ w), outputs, of_outputs


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_value_gradient_hessian_and_gauss_newton_equal_jaxs(jax, case):
    objective, outputs, of_outputs = jax_functions(jax, case)
    w = jax.numpy.asarray(case.w)

    @jax.jit
    def everything(w):
        z, J = outputs(w), jax.jacrev(outputs)(w).reshape(-1, len(w))
        output_hessian = jax.hessian(of_outputs)(z).reshape(z.size, z.size)
        value, gradient = jax.value_and_grad(objective)(w)
        return value, gradient, jax.hessian(objective)(w), J.T @ output_hessian @ J

    value, gradient, H, G = map(np.asarray, everything(w))
    assert float(value) == pytest.approx(case.L(case.w), rel=1e-12)
    assert_close(case.L.gradient(case.w), gradient, 1e-10, scale=1e-3)
    assert_close(curvature.hessian(case.L, case.w), H, 1e-10, scale=1e-3)
    assert_close(curvature.gauss_newton(case.L, case.w), G, 1e-10, scale=1e-3)
