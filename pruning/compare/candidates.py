"""Which weights a comparison is about, and what a mask of them costs beyond a better one."""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective


def live(L: Objective) -> np.ndarray:
    """Return (P,) bool, False on first-layer weights whose input is zero in every example of L.

    Their exact saliency is 0 (but for the penalty) and most criteria know it, so that they raise every correlation
    and teach nothing.
    """
    alive = np.ones(L.n_parameters, bool)
    first = L.network.parameters(alive)[0]
    if "weight" in first and L.x.ndim == 2:
        first["weight"][~L.x.any(axis=0)] = False
    return alive


def candidates(L: Objective, among: np.ndarray | None) -> np.ndarray:
    """Return `among` (P,) bool, or the live weights of the layout where it is None; ValueError where it is empty."""
    if among is None:
        among = L.network.layout.select("weight") & live(L)
    among = checks.array("among", among, (L.n_parameters,), kinds="b")
    if not among.any():
        raise ValueError("among: expected at least one candidate, got none")
    return among


def regret(L: Objective, w: np.ndarray, mask: np.ndarray, best: np.ndarray) -> float:
    """Return L(w ∘ mask) − L(w ∘ best), in the units of L: what a mask costs beyond a better one."""
    w = L.check_w(w)
    mask, best = (checks.array(n, m, w.shape, kinds="b") for n, m in (("mask", mask), ("best", best)))
    return float(L(w * mask) - L(w * best))
