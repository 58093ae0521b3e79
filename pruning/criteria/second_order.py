"""Criteria from the Hessian H of the objective (l2 included), exact in its diagonal or its inverse.

A negative H_jj, found away from a minimum, gives a negative score: removal is predicted to lower the loss. It is never
clipped. A singular or indefinite H has no inverse to score with, and is an error that names the damping it takes.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import curvature
from minimal_nn.curvature.hessians import hessian_among
from minimal_nn.objective import Objective
from pruning.criteria.base import criterion

_NEEDS = ("examples", "labels", "Hessian")


@criterion("second order", cost="1 + diagonal of H", needs=("examples", "labels", "gradients", "Hessian"))
def taylor_second(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """−g_j w_j + ½ H_jj w_j²: the exact saliency to second order, and exact where L is quadratic along each weight."""
    return -L.gradient(w) * w + 0.5 * curvature.hessian_diagonal(L, w) * w**2


@criterion("second order", cost="diagonal of H", needs=_NEEDS)
def obd(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """½ H_jj w_j²: optimal brain damage, with the exact diagonal. Source: LeCun, Denker and Solla 1990.

    Assumes a minimum (g = 0) and a diagonal H. LeCun et al. compute H_jj by a recursion that drops off-diagonal
    terms, `obd_recursive`; the diagonal here is exact. H_jj, and with it the score, can be negative away from a
    minimum. Often printed as w²/(2 H⁻¹_jj), which is right only when read as (H_jj)⁻¹: with [H⁻¹]_jj it is `obs`.
    """
    return 0.5 * curvature.hessian_diagonal(L, w) * w**2


@criterion("second order", cost="2", needs=_NEEDS)
def obd_recursive(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """½ h_j w_j², h from LeCun's recursion instead of the diagonal of H. Source: LeCun, Denker and Solla 1990.

    h drops the second derivatives by two different units of a layer (see curvature.obd_recursive_diagonal). Exact in
    the last linear layer, for SquaredError in the last two. ValueError for Residual, which the recursion does not pass.
    """
    return 0.5 * curvature.obd_recursive_diagonal(L, w) * w**2


@criterion("second order", cost="H + P³", needs=_NEEDS)
def obs(L: Objective, w: np.ndarray, active: np.ndarray, *, damping: float = 0.0) -> np.ndarray:
    """w_j² / (2 [(H + damping·I)⁻¹]_jj): optimal brain surgeon. Source: Hassibi and Stork 1993, equation 5.

    The rise of the quadratic model when weight j goes and all others move to make up for it, by updates.obs. H is
    restricted to the active weights before it is inverted: with the full inverse, weights that are gone would come
    back to help. Assumes a minimum; `obs_gradient` does not. Raises ValueError where H + damping·I is not positive
    definite: the model then has no minimum to move to. Pass a damping, or l2 > 0 at a minimum. Also where H would
    take more than 8 GiB: pass fewer active weights.
    """
    present = np.flatnonzero(active)
    scores = np.zeros_like(w)
    if len(present):
        scores[present] = w[present] ** 2 / (2 * np.diagonal(_inverse(L, w, present, damping)))
    return scores


@criterion("second order", cost="1 + H + P³", needs=("examples", "labels", "gradients", "Hessian"))
def obs_gradient(L: Objective, w: np.ndarray, active: np.ndarray, *, damping: float = 0.0) -> np.ndarray:
    """(w_j − [M⁻¹g]_j)² / (2 [M⁻¹]_jj) − ½ gᵀM⁻¹g with M = H + damping·I: `obs` away from a minimum.

    The change of the model L + gᵀδ + ½ δᵀMδ at its minimum over δ with δ_j = −w_j. At g = 0 it is `obs`. The last
    term, the same for every j, is what a Newton step would gain without any removal: it changes no order, and a score
    below 0 says that the loss falls although j goes. Exact, at any w, where the loss is quadratic and damping = 0.
    g and H are restricted to the active weights. ValueError as for `obs`.
    Source: Hassibi and Stork 1993 drop the linear term; kept here, by the same Lagrange multiplier.
    """
    present = np.flatnonzero(active)
    scores = np.zeros_like(w)
    if len(present):
        inverse, g = _inverse(L, w, present, damping), L.gradient(w)[present]
        step = inverse @ g
        scores[present] = (w[present] - step) ** 2 / (2 * np.diagonal(inverse)) - 0.5 * (g @ step)
    return scores


def _inverse(L: Objective, w: np.ndarray, present: np.ndarray, damping: float) -> np.ndarray:
    """Return (H + damping·I)⁻¹ over the weights that are present."""
    return curvature.inverse(hessian_among(L, w, present, "active"), damping)
