"""Criteria with a Fisher matrix F in the Hessian's place, F a mean over examples, without l2."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minimal_nn import checks, curvature, memory
from minimal_nn.curvature.blocks import layer_slices
from minimal_nn.objective import Objective
from pruning.criteria.base import criterion


@criterion("Fisher", cost="C", needs=("examples", "gradients"))
def fisher(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """½ F_jj w_j² with the true Fisher: labels averaged exactly over the model's own distribution.

    F is the Gauss-Newton matrix for softmax cross-entropy and squared error; on ReLU networks at l2 = 0 this is OBD.
    Theis et al. 2018 name the labels of the model and take those of the data: that is `fisher_empirical`.
    """
    return 0.5 * curvature.fisher_diagonal(L, w, kind="true") * w**2


@criterion("Fisher", cost="1, by example", needs=("examples", "labels", "gradients"))
def fisher_empirical(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """½ w_j² (1/N) Σ_n g_nj²: the empirical Fisher, with the labels of the data. Source: Theis et al. 2018.

    Half of the mean over examples of (g_nj w_j)². Not the square of the mean gradient, which vanishes at a minimum.
    """
    return 0.5 * curvature.fisher_diagonal(L, w, kind="empirical") * w**2


@criterion("Fisher", cost="S, by example", needs=("examples", "gradients"))
def fisher_sampled(
    L: Objective, w: np.ndarray, active: np.ndarray, *, samples: int = 1, rng: np.random.Generator
) -> np.ndarray:
    """½ F̂_jj w_j², with `samples` labels for each example drawn by `rng` from the model's own distribution.

    F̂ is an unbiased estimate of the true Fisher, whose error falls with 1/√samples.
    """
    return 0.5 * curvature.fisher_diagonal(L, w, kind="sampled", samples=samples, rng=rng) * w**2


@criterion("Fisher", cost="1, by example + N²P", needs=("examples", "labels", "gradients"))
def woodfisher(
    L: Objective, w: np.ndarray, active: np.ndarray, *, damping: float = 1e-5, block: int | str | None = None
) -> np.ndarray:
    """w_j² / (2 [(damping·I + F_emp)⁻¹]_jj), F_emp = (1/N) Σ_n g_n g_nᵀ. Source: Singh and Alistarh 2020.

    `obs` with the empirical Fisher in the Hessian's place, whose inverse Woodbury's identity gives from N x N numbers.
    F_emp has rank N at most, so that the damping decides: where it is far above the entries of F_emp the score is
    damping·w_j²/2, that is magnitude. `block` keeps the blocks of F_emp alone, of "layer"s or of so many consecutive
    weights of a layer; None takes all of it. Only active weights enter. The paper's blocks are consecutive weights
    too; its recursion over the examples gives the same inverse. Raises ValueError where the damping is so small that
    no digit is left, or the gradients of all examples (N, block) exceed the memory budget.
    """
    scores = np.zeros_like(w)
    blocks = list(_blocks(L, active, block))
    most = largest_block(L, w)
    if blocks and max(map(len, blocks)) > most:
        raise ValueError(
            f"block: gradients of {max(map(len, blocks))} weights for {L.n_examples} examples exceed the memory "
            f"budget; expected an integer of at most {most}, got {block!r}"
        )
    while blocks:
        taken = [blocks.pop(0)]
        while blocks and len(blocks[0]) + sum(map(len, taken)) <= most:
            taken.append(blocks.pop(0))
        for own, rows in zip(taken, _gradients_of(L, w, taken), strict=True):
            scores[own] = w[own] ** 2 / (2 * curvature.woodbury_diagonal(rows, damping))
    return scores


def largest_block(L: Objective, w: np.ndarray) -> int:
    """Return how many weights a block of `woodfisher` may have within the memory budget."""
    return memory.BUDGET // (2 * w.itemsize * L.n_examples)


def _blocks(L: Objective, active: np.ndarray, block: int | str | None) -> Iterator[np.ndarray]:
    """Yield the indices in w of the active weights of each block that has any."""
    if block is None:
        parts = [slice(0, len(active))]
    else:
        parts = list(layer_slices(L.network.layout).values())
        if block != "layer":
            size = checks.integer("block", block, 1)
            parts = [slice(s, min(s + size, p.stop)) for p in parts for s in range(p.start, p.stop, size)]
    for part in parts:
        own = part.start + np.flatnonzero(active[part])
        if len(own):
            yield own


def _gradients_of(L: Objective, w: np.ndarray, blocks: list[np.ndarray]) -> list[np.ndarray]:
    """Return the per-example gradients (N, b) of each block's weights, from one pass over the examples."""
    every = np.concatenate(blocks)
    rows = np.empty((L.n_examples, len(every)), w.dtype)
    start = 0
    for trace, y in L.traces(w, extra=2 * L.n_parameters):
        some = L.network.per_example_vjp(w, trace, L.loss.gradient(trace[-1], y))
        rows[start : start + len(some)] = some[:, every]
        start += len(some)
    return np.split(rows, np.cumsum([len(b) for b in blocks])[:-1], axis=1)
