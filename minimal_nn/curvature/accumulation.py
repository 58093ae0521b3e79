"""The Hessian of a sequence of convolutions, linear layers, activations and pooling, by accumulating Jacobians.

Backpropagating ∂δ/∂z for every pair of positions of an image, as `closed_form` does for units, would cost the square
of their number. Here the Jacobian of each layer's output in all parameters so far is carried from the input to the
outputs, and second derivatives are collected where they arise. With ȳ the adjoint of a layer's output, for one example,

    H = Jᵀ (∂²ℓ/∂z²) J                                            the loss
      + Σ_activations  ∂x/∂wᵀ diag(φ″(x) ∘ ȳ) ∂x/∂w               an elementwise map of x
      + Σ_products     ∂/∂w ∂/∂W of ȳᵀ (x W), and its transpose   a layer's own weight times its input

The Jacobian in a layer's own weights is sparse, output channel o depending on its own weights alone, and is kept as
such until the next product has been applied to it, channel by channel. Nothing is approximated.

Jacobians are arrays (channel, parameter, positions..., example): a product with a layer's weights is then one matrix
product for all parameters, positions and examples.

Source: the chain rule for second derivatives; Dangel, Harmeling and Hennig 2020 for its terms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from minimal_nn.curvature.block_sums import mirror
from minimal_nn.curvature.products import PRODUCTS, product_index
from minimal_nn.curvature.terms import ActivationTerm, LossTerm, Old, Own, ProductTerm
from minimal_nn.layers import Activation, AvgPool2d, Conv2d, Flatten, Layer, MaxPool2d
from minimal_nn.layers.windows import windows
from minimal_nn.network import Network, Trace
from minimal_nn.objective import Objective

SUPPORTED = (*PRODUCTS, Activation, AvgPool2d, MaxPool2d, Flatten)


def is_supported(network: Network) -> bool:
    """Whether all layers are of the kinds this module knows."""
    return all(isinstance(layer, SUPPORTED) for layer in network.layers)


def hessian(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return H (P, P), the penalty included, symmetric to the bit."""
    H = _matrix(L, w, second_derivatives=True)
    H.flat[:: len(H) + 1] += L.l2
    return H


def gauss_newton(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return G (P, P): the first term alone."""
    return _matrix(L, w, second_derivatives=False)


def hessian_diagonal(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return diag H (P,), the penalty included. No matrix of size (P, P) is formed."""
    diagonal = np.zeros(L.n_parameters, dtype=w.dtype)
    for trace, y in L.traces(w, extra=_numbers_per_example(L)):
        for term in _terms(L, w, trace, y, second_derivatives=True):
            term.add_to_diagonal(diagonal)
    return diagonal + w.dtype.type(L.l2)


def _matrix(L: Objective, w: np.ndarray, *, second_derivatives: bool) -> np.ndarray:
    matrix = np.zeros((L.n_parameters, L.n_parameters), dtype=w.dtype)
    for trace, y in L.traces(w, extra=_numbers_per_example(L)):
        for term in _terms(L, w, trace, y, second_derivatives=second_derivatives):
            term.add_to(matrix)
    mirror(matrix)
    return matrix


def _terms(
    L: Objective, w: np.ndarray, trace: Trace, y: np.ndarray, *, second_derivatives: bool
) -> Iterator[ActivationTerm | ProductTerm | LossTerm]:
    """Carry the Jacobian from the input to the outputs of one trace and yield the terms of H that arise on the way.

    A term is to be used before the next one is asked for: Jacobians are overwritten.
    """
    network, N = L.network, L.n_examples
    adjoints = network.adjoints(w, trace, L.loss.gradient(trace[-1], y) / N) if second_derivatives else None
    shape = trace[0].shape[1:]  # of what the Jacobians are of; Flatten is left to the next product
    old: Old | None = None
    own: Own | None = None
    for i, (layer, p) in enumerate(zip(network.layers, network.parameters(w), strict=True)):
        x, y = trace[i], trace[i + 1]
        if isinstance(layer, PRODUCTS):
            start = network.layout[f"{i}.weight"].start
            index, parts = start + product_index(layer), []
            for J, at in _jacobians(old, own):
                parts.append((_rows(layer, J), at))
                if adjoints is not None:
                    bars = _last(adjoints[i], y.shape[1:])
                    yield ProductTerm(parts[-1][0], bars.reshape(layer.outputs, -1), at, index)
            inputs, shape = _last(x, shape), y.shape[1:]
            old = _product(_weight(layer, p["weight"], len(inputs)), parts, shape) if parts else None
            own = Own(_with_bias(layer, _rows(layer, inputs[:, None]), shape), _ones(y), index)
        elif isinstance(layer, Activation):
            if adjoints is not None and own is not None:
                yield ActivationTerm(_last(layer.second_derivative(x, y) * adjoints[i], shape), old, own)
            slope = _last(layer.derivative(x, y), shape)
            if old is not None:
                old.J *= slope[:, None]
            if own is not None:
                own.slope = own.slope * slope
        elif not isinstance(layer, Flatten):  # pooling: a linear map of each channel
            shape = y.shape[1:]
            old = None if old is None else Old(_pool(layer, old.J, x, y), old.at)
            own = None if own is None else Own(_pool(layer, own.jacobian(), x, y), _ones(y), own.index)
    if own is not None and own.J.ndim > 3:
        old, own = _dense(old, own), None
    yield LossTerm(L.loss.hessian(trace[-1]) / N, old, own)


def _jacobians(old: Old | None, own: Own | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the Jacobians there are, (c, K, ..., n) with where they stand in w: (K,), or (K, c) for the own one."""
    pairs = [] if old is None else [(old.J, old.at)]
    return pairs if own is None else [*pairs, (own.jacobian(), own.index)]


def _rows(layer: Layer, J: np.ndarray) -> np.ndarray:
    """Return what each weight of a channel multiplies, (c, r, K, m) over m positions and examples: Flatten, windows."""
    c, K = J.shape[:2]
    if not isinstance(layer, Conv2d):
        return np.moveaxis(J.reshape(c, K, -1, J.shape[-1]), 2, 1).copy()
    pad = (layer.padding, layer.padding)
    padded = np.pad(J, [(0, 0), (0, 0), pad, pad, (0, 0)]) if layer.padding else J
    seen = windows(np.moveaxis(padded, -1, 0), layer.kernel, layer.stride)  # (n, c, K, Ho, Wo, k, k)
    return np.moveaxis(seen, (-2, -1, 0), (1, 2, -1)).reshape(c, layer.kernel**2, K, -1)


def _weight(layer: Layer, weight: np.ndarray, channels: int) -> np.ndarray:
    """Return the weights (o, c, r) that multiply the rows (c, r, ...)."""
    by_output = np.moveaxis(weight, 1, 0)
    return by_output.reshape(len(by_output), channels, -1)


def _product(W: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]], shape: tuple[int, ...]) -> Old:
    """Apply weights (o, c, r) to the rows (c, r, K, m) of Jacobians, channel by channel where these are sparse."""
    m = parts[0][0].shape[-1]
    J = np.empty((len(W), sum(at.size for _, at in parts) * m), W.dtype)
    start = 0
    for rows, at in parts:
        K = rows.shape[2]
        pairs = [(W.reshape(len(W), -1), rows)] if at.ndim == 1 else [(W[:, c], rows[c]) for c in range(len(rows))]
        for weight, right in pairs:
            stop = start + K * m
            np.matmul(weight, right.reshape(-1, K * m), out=J[:, start:stop])
            start = stop
    at = np.concatenate([at.T.ravel() for _, at in parts])
    return Old(J.reshape(*shape[:1], len(at), *shape[1:], -1), at)


def _with_bias(layer: Layer, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a product's inputs as its own Jacobian (1, q, ..., n), with a 1 for the bias, from rows (c, r, 1, m)."""
    rows = rows.reshape(-1, rows.shape[-1])
    rows = np.concatenate([rows, np.ones_like(rows[:1])]) if layer.bias else rows  # type: ignore[attr-defined]
    return rows.reshape(1, len(rows), *shape[1:], -1)


def _pool(layer: Layer, J: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Push a Jacobian (c, K, ..., n) through a layer without parameters by its own jvp."""
    moved = layer.jvp({}, x, y, {}, np.moveaxis(J, (-1, 0), (1, 2)))  # (K, n, c, ...)
    return np.ascontiguousarray(np.moveaxis(moved, (1, 2), (-1, 0)))


def _dense(old: Old | None, own: Own) -> Old:
    """Return both as one Jacobian, with the zeros between channels filled in."""
    (q, o), start = own.index.shape, 0 if old is None else len(old.at)
    J = np.zeros((o, start + q * o, *own.J.shape[2:]), own.J.dtype)
    for channel, block in enumerate(own.jacobian()):
        J[channel, start + q * channel : start + q * (channel + 1)] = block
    if old is None:
        return Old(J, own.index.T.ravel())
    J[:, :start] = old.J
    return Old(J, np.concatenate([old.at, own.index.T.ravel()]))


def _last(a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values of examples (n, ...) with these last, and the rest as in `shape`."""
    return np.ascontiguousarray(np.moveaxis(a.reshape(len(a), *shape), 0, -1))


def _ones(y: np.ndarray) -> np.ndarray:
    """Return ones (c, ..., n) for a layer's output y (n, c, ...)."""
    return np.ones((*y.shape[1:], len(y)), y.dtype)


def _numbers_per_example(L: Objective) -> int:
    """Return a bound on how many numbers the Jacobians of one example hold at once."""
    shape, most, before, own = L.x.shape[1:], 0, 0, 0
    for layer in L.network.layers:
        inner, shape = shape, layer.output_shape(shape)
        size = sum(math.prod(s) for s in layer.parameter_shapes().values())
        if size:
            jacobian = (before + own) * math.prod(shape)
            window = layer.kernel**2 * math.prod(shape[1:]) if isinstance(layer, Conv2d) else math.prod(inner[1:])
            most = max(most, jacobian + 2 * (before + own // max(1, inner[0])) * inner[0] * window)
            before, own = before + own, size
        most = max(most, (3 * before + 2 * own) * math.prod(shape))
    return most
