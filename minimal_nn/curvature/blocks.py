"""Block diagonals by layer: the curvature of each layer's own parameters, without the (P, P) matrix between layers.

The block of layer l is the matrix over the slice of w that its parameters occupy, biases included; a Residual block of
layers counts as one. Blocks come as a mapping from the layer's index to (P_l, P_l); scipy.linalg.block_diag of its
values is the block-diagonal matrix, since the mapping is in the order of w. In piecewise-linear networks, away from
kinks, the Hessian's blocks (less l2·I) and those of Gauss-Newton are equal.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import memory
from minimal_nn.curvature import closed_form
from minimal_nn.curvature.block_sums import add_own
from minimal_nn.curvature.fishers import _weighted_scores
from minimal_nn.layout import Layout
from minimal_nn.objective import Objective

Blocks = dict[int, np.ndarray]


def layer_slices(layout: Layout) -> dict[int, slice]:
    """Return the slice of w that holds all parameters of each layer that has any: index of the layer -> slice.

    >>> layer_slices(Layout({"0.weight": (2, 3), "0.bias": (3,), "2.weight": (3, 1)}))
    {0: slice(0, 9, None), 2: slice(9, 12, None)}
    """
    slices: dict[int, slice] = {}
    for name in layout:
        index, own = int(name.partition(".")[0]), layout[name]
        slices[index] = slice(slices[index].start if index in slices else own.start, own.stop)
    return slices


def hessian_blocks(L: Objective, w: np.ndarray) -> Blocks:
    """Return the diagonal blocks of H = ∇²L(w), the l2 penalty included: index of the layer -> (P_l, P_l), exact.

    Chains take the closed form, (1/N) Σ_n x_a x_c S_bd with the layer's own S alone (Bishop 1992), other networks the
    products of H with the layer's unit vectors.
    """
    w = L.check_w(w)
    return _by_closed_form(L, w) if closed_form.is_chain(L.network) else hessian_blocks_by_products(L, w)


def hessian_blocks_by_products(L: Objective, w: np.ndarray) -> Blocks:
    """Return the diagonal blocks of H from products with each layer's unit vectors: the slower, independent route."""
    w = L.check_w(w)
    blocks = {}
    for i, own in layer_slices(L.network.layout).items():
        size = own.stop - own.start
        block = np.empty((size, size), w.dtype)
        for k in memory.pieces(size, 6 * w.nbytes):
            units = np.zeros((len(w), k.stop - k.start), w.dtype)
            units[own][k] = np.eye(k.stop - k.start)
            block[:, k] = L.hvp(w, units)[own]
        blocks[i] = (block + block.T) / 2
    return blocks


def gauss_newton_blocks(L: Objective, w: np.ndarray) -> Blocks:
    """Return the diagonal blocks of G, without l2: index of the layer -> (P_l, P_l)."""
    w = L.check_w(w)
    slices = layer_slices(L.network.layout)
    blocks = _zeros(slices, w)
    for trace, _ in L.traces(w, extra=3 * L.n_outputs * L.n_parameters):
        J, H = L.output_jacobian(w, trace), L.loss.hessian(trace[-1])
        for i, own in slices.items():
            size = own.stop - own.start
            part = np.ascontiguousarray(J[..., own])
            blocks[i] += part.reshape(-1, size).T @ (H @ part).reshape(-1, size)
    return {i: (block + block.T) / (2 * L.n_examples) for i, block in blocks.items()}


def fisher_blocks(
    L: Objective, w: np.ndarray, kind: str = "true", samples: int = 1, rng: np.random.Generator | None = None
) -> Blocks:
    """Return the diagonal blocks of curvature.fisher(L, w, kind, samples, rng): index of the layer -> (P_l, P_l)."""
    w = L.check_w(w)
    slices = layer_slices(L.network.layout)
    blocks = _zeros(slices, w)
    for rows in _weighted_scores(L, w, kind, samples, rng):
        for i, own in slices.items():
            blocks[i] += rows[:, own].T @ rows[:, own]
    return {i: block / L.n_examples for i, block in blocks.items()}


def _by_closed_form(L: Objective, w: np.ndarray) -> Blocks:
    slices = layer_slices(L.network.layout)
    at = {own.start: i for i, own in slices.items()}
    blocks = _zeros(slices, w)
    for trace, y in L.traces(w, extra=closed_form.numbers_per_example(L.network)):
        stages = closed_form.stages_of(L.network, w, trace)
        for stage, _, S, _ in closed_form.backward(stages, *closed_form.loss_derivatives(L, trace[-1], y)):
            shape = len(stage.x), len(S)
            add_own(blocks[at[stage.parameters.start]].reshape(shape * 2), stage.x, S)
    for block in blocks.values():
        block.flat[:: len(block) + 1] += L.l2
    return blocks


def _zeros(slices: dict[int, slice], w: np.ndarray) -> Blocks:
    return {i: np.zeros((own.stop - own.start,) * 2, w.dtype) for i, own in slices.items()}
