"""Criteria that were made to choose weights before training; nothing in them depends on when they are used."""

from __future__ import annotations

import numpy as np

from minimal_nn.layers import Activation, BatchNorm, Identity, Layer, Residual
from minimal_nn.network import Network
from minimal_nn.objective import Objective
from pruning.criteria.base import criterion


@criterion("at initialisation", cost="1", needs=("examples", "labels", "gradients"))
def snip(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """|g_j w_j| / Σ_k |g_k w_k|, over all active k: connection sensitivity. Source: Lee, Ajanthan and Torr 2019.

    g_j w_j is ∂L/∂m_j at m = 1, m the mask. The ranks are those of `taylor`; the normalisation makes scores add up to
    1 and, at l2 = 0, independent of the loss's scale. Where every g_k w_k is 0 all scores are 0. The paper's ΔL_j has
    the opposite sign of our saliency, which the absolute value hides: what would hurt most to keep is kept as gladly
    as what would hurt most to lose.
    """
    sensitivity = np.abs(L.gradient(w) * w)
    total = sensitivity[active].sum()
    return sensitivity / total if total > 0 else sensitivity


@criterion("at initialisation", cost="2", needs=("examples", "labels", "gradients", "Hessian"))
def grasp(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """w_j (Hg)_j: gradient signal preservation. Source: Wang, Zhang and Grosse 2020, who print −w∘Hg and drop its top.

    To remove j changes ‖g‖² by −2 w_j (Hg)_j to first order: what scores lowest goes, and the gradient norm of what
    is left rises. g and H are of the active weights alone. Without the paper's temperature, and on the examples of L
    where the paper draws some of every class. Unlike most, not invariant under the rescaling of a ReLU layer.
    """
    g = np.where(active, L.gradient(w), w.dtype.type(0))
    return w * L.hvp(w, g)


@criterion("at initialisation", cost="1 of a single input")
def synflow(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """|w_j ∂R/∂w_j|, R = 1ᵀ |W_L| … |W_1| 1: synaptic flow, the paths' weight through j. Source: Tanaka et al. 2020.

    Without data: the input is all ones, activations are left out, and so are biases, which score 0. Of the network L
    gives only the layers and the shape of an example. Pooling stays, BatchNorm scales by |γ|/σ, Residual adds its
    input. In a chain each layer's scores add up to R and a hidden unit's incoming scores to its outgoing ones. Meant
    to be iterated, with `active`, a little at a time: in one shot it empties layers early. R grows like a product of
    layer widths: FloatingPointError where it overflows.
    """
    network = Network(*map(_linearised, L.network.layers))
    flow = np.abs(w)
    for name, own in network.layout.unflatten(flow).items():
        if name.rpartition(".")[2] in ("bias", "beta"):
            own[...] = 0
    with np.errstate(over="ignore", invalid="ignore"):
        trace = network.trace(flow, np.ones((1, *L.x.shape[1:]), w.dtype))
        scores = flow * network.vjp(flow, trace, np.ones_like(trace[-1]))
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"synflow: R overflows {w.dtype}; pass w in float64, or scale it down layer by layer")
    return scores


def _linearised(layer: Layer) -> Layer:
    if isinstance(layer, Activation):
        return Identity()
    if isinstance(layer, Residual):
        return Residual(*map(_linearised, layer.layers))
    if isinstance(layer, BatchNorm):
        return BatchNorm(layer.channels, variance=layer.variance, epsilon=layer.epsilon)
    return layer
