"""Criteria that judge a weight by its own layer's output alone: ‖X W − X W′‖², X the layer's inputs, without labels.

X has a column of ones for the bias. A Conv2d sees every window of every image as a row of X. Parameters of other
layers (BatchNorm) have no score and get inf: they are kept.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import curvature
from minimal_nn.curvature.products import products
from minimal_nn.objective import Objective
from pruning.criteria.base import criterion


@criterion("layer-wise", cost="½", needs=("examples",))
def wanda(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """|W_ij| ‖X_i‖₂, the norm over all N examples. Source: Sun et al. 2023.

    The square is the squared error in the layer's output that this deletion alone makes, summed over the examples.
    The paper compares within an output unit: pass its groups to masks.smallest. ‖X_i‖ is a sum, not a
    mean: with twice the examples scores are √2 times as large.
    """
    squares, judged = np.zeros_like(w), np.zeros(len(w), bool)
    for index, x in products(L, w):
        squares[index] += np.einsum("nq,nq->q", x, x)[:, None]
        judged[index] = True
    return np.where(judged, np.abs(w) * np.sqrt(squares), w.dtype.type(np.inf))


@criterion("layer-wise", cost="½ + q³ for each layer", needs=("examples",))
def obs_layerwise(L: Objective, w: np.ndarray, active: np.ndarray, *, damping: float = 0.0) -> np.ndarray:
    """W_ij² / (2 [(XᵀX/N + damping·I)⁻¹]_ii): OBS for the squared error of one layer. Source: Dong et al. 2017.

    What removal of W_ij costs in (1/2N) ‖X W − X W′‖² when the other weights of output j move to make up for it;
    Frantar and Alistarh 2022 (ExactOBS) have 2XᵀX, that is 4N times this score. X is restricted to the inputs that
    output j still has. Raises ValueError where XᵀX/N + damping·I is singular, as with an input that is always zero.
    """
    grams: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for index, x in products(L, w):
        first = int(index[0, 0])
        gram = x.T @ x / L.n_examples
        grams[first] = index, gram + grams[first][1] if first in grams else gram
    scores = np.full_like(w, np.inf)
    for index, gram in grams.values():
        patterns, which = np.unique(active[index], axis=1, return_inverse=True)
        for pattern, inputs in enumerate(patterns.T):
            rows = np.flatnonzero(inputs)
            if not len(rows):
                continue
            own = index[np.ix_(rows, np.flatnonzero(which.ravel() == pattern))]
            inverse = curvature.inverse(gram[np.ix_(rows, rows)], damping)
            scores[own] = w[own] ** 2 / (2 * np.diagonal(inverse)[:, None])
    return scores
