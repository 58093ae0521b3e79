"""Linear and Conv2d as the same thing: rows x̃, with a 1 for the bias, times a matrix of weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minimal_nn.layers import Conv2d, Layer, Linear, Residual, sequence
from minimal_nn.objective import Objective

PRODUCTS = (Linear, Conv2d)


def product_rows(layer: Layer, x: np.ndarray) -> np.ndarray:
    """Return what the weights multiply (n·positions, q): a Conv2d sees every window of every image, Linear has x."""
    rows = layer.rows(x) if isinstance(layer, Conv2d) else x
    return np.concatenate([rows, np.ones_like(rows[:, :1])], axis=1) if layer.bias else rows  # type: ignore[attr-defined]


def product_index(layer: Layer) -> np.ndarray:
    """Return where among the layer's parameters the weight from input q to output o stands (q, o), the bias as last q.

    >>> product_index(Linear(2, 3)).tolist()
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    >>> product_index(Conv2d(1, 2, 2, bias=False)).tolist()
    [[0, 4], [1, 5], [2, 6], [3, 7]]
    """
    inputs, outputs, *kernel = layer.parameter_shapes()["weight"]
    area = int(np.prod(kernel))
    weights = np.arange(inputs * outputs * area).reshape(inputs, outputs, area).swapaxes(1, 2).reshape(-1, outputs)
    bias = weights.size + np.arange(outputs)
    return np.vstack([weights, bias]) if layer.bias else weights  # type: ignore[attr-defined]


def products(L: Objective, w: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (index, rows) of each Linear and Conv2d, those within a Residual included, for pieces of the examples.

    index (q, o) says where in w the weight from input q to output o stands, as `product_index` does within a layer,
    and rows (n·positions, q) what these weights multiply.
    """
    where = L.network.parameters(np.arange(L.n_parameters))
    one = L.network.trace(w, L.x[:1].astype(w.dtype, copy=False))
    extra = 2 * max(
        (rows.size for _, rows in _visited(L.network.layers, L.network.parameters(w), where, one)), default=0
    )
    for trace, _ in L.traces(w, extra=extra):
        yield from _visited(L.network.layers, L.network.parameters(w), where, trace)


def _visited(
    layers: sequence.Layers, own: list, where: list, trace: sequence.Trace
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for layer, p, at, x in zip(layers, own, where, trace[:-1], strict=True):
        if isinstance(layer, PRODUCTS):
            yield int(at["weight"].flat[0]) + product_index(layer), product_rows(layer, x)
        elif isinstance(layer, Residual):
            inner = sequence.split(layer.layers, p)
            yield from _visited(
                layer.layers, inner, sequence.split(layer.layers, at), sequence.trace(layer.layers, inner, x)
            )
