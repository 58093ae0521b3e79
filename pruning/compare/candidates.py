"""Which weights a comparison is about, and what a mask of them costs beyond a better one."""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.products import products
from minimal_nn.objective import Objective


def live(L: Objective, w: np.ndarray | None = None) -> np.ndarray:
    """Return (P,) bool, False on weights of Linear and Conv2d whose input is zero in every example (and position) of L.

    Inputs are those of the network with weights w (P,): pixels that are always black, channels without an image, and
    units that are off in every example. Without w it is only the inputs that no w can change, those of the first
    layer with parameters, behind whatever pools or flattens and within a Residual likewise. The exact saliency of
    what is not live is 0 (but for the penalty) and most criteria know it, so that it raises every correlation and
    teaches nothing.
    """
    at = np.zeros(L.n_parameters, L.x.dtype) if w is None else L.check_w(w)
    multiplies, heard = np.zeros((2, L.n_parameters), bool)
    for index, rows in products(L, at):
        if w is None and index[0, 0] > 0:  # behind other parameters
            continue
        multiplies[index] = True
        heard[index[rows.any(axis=0)]] = True
    return heard | ~multiplies


def candidates(L: Objective, w: np.ndarray, among: np.ndarray | None) -> np.ndarray:
    """Return `among` (P,) bool, or the live weights of the layout where it is None; ValueError where it is empty."""
    if among is None:
        among = L.network.layout.select("weight") & live(L, w)
    among = checks.array("among", among, (L.n_parameters,), kinds="b")
    if not among.any():
        raise ValueError("among: expected at least one candidate, got none")
    return among


def regret(L: Objective, w: np.ndarray, mask: np.ndarray, best: np.ndarray) -> float:
    """Return L(w ∘ mask) − L(w ∘ best), in the units of L: what a mask costs beyond a better one."""
    w = L.check_w(w)
    mask, best = (checks.array(n, m, w.shape, kinds="b") for n, m in (("mask", mask), ("best", best)))
    return float(L(w * mask) - L(w * best))
