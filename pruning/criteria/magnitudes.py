"""Criteria that look at the weights alone, and the random baseline that looks at nothing.

A layer is here one parameter of the layout, such as "0.weight"; the biases of a layer are a layer of their own.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective
from pruning.criteria.base import criterion


@criterion("weights", cost="0")
def random(L: Objective, w: np.ndarray, active: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    """Score uniformly at random in [0, 1), drawn by `rng`: what any criterion has to beat."""
    return checks.generator("rng", rng).random(len(w)).astype(w.dtype)


@criterion("weights", cost="0")
def magnitude(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """|w_j|. Source: Han et al. 2015.

    Blind to what the rest of the network does with the weight: a ReLU unit's incoming weights can be halved and its
    outgoing ones doubled without any change of the function.
    """
    return np.abs(w)


@criterion("weights", cost="0")
def magnitude_scaled(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """|w_j| / σ_l, with σ_l the standard deviation of the active weights of the layer. Source: Han et al. 2015.

    There as a threshold q·σ_l for each layer: to remove what scores below q is to remove what lies below the threshold.
    σ_l is about the mean, with 1/n. Where it is 0, which weights are that differ by rounding alone (4ε of the largest),
    zeros score 0 and other weights, which are all alike, inf. Scaling a layer as a whole changes nothing; scaling one
    unit does.
    """
    scores = np.abs(w)
    for own in _active_by_layer(L, active):
        alike = np.ptp(w[own]) <= 4 * np.finfo(w.dtype).eps * scores[own].max()
        scores[own] = np.where(w[own] == 0, 0, np.inf) if alike else scores[own] / w[own].std()
    return scores


@criterion("weights", cost="0")
def lamp(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """w_j² / Σ_k w_k², k over j and what comes after it in its layer's order by (|w|, index). Source: Lee et al. 2021.

    The share of the layer's squared weights that j has once everything smaller is gone: the largest of a layer scores
    1, so that no layer is emptied before every other is down to its last weight. Ties are ordered by index; a layer
    of zeros scores 0. Only active weights count. Scaling a layer as a whole changes nothing: squares are of shares of
    its largest weight, in float64, and neither overflow nor lose their order.
    """
    scores = np.zeros_like(w)
    for own in _active_by_layer(L, active):
        ascending = own[np.argsort(np.abs(w[own]), kind="stable")]
        sizes = np.abs(w[ascending]).astype(np.float64)
        if sizes[-1] > 0:
            squares = (sizes / sizes[-1]) ** 2
            scores[ascending] = squares / np.cumsum(squares[::-1])[::-1]
    return scores


def _active_by_layer(L: Objective, active: np.ndarray) -> list[np.ndarray]:
    """Return the indices in w of every layer's active weights; layers without any are left out."""
    layout = L.network.layout
    found = [layout[name].start + np.flatnonzero(active[layout[name]]) for name in layout]
    return [own for own in found if len(own)]
