"""The exact saliency, computed anew after every single removal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective
from pruning.compare.candidates import candidates
from pruning.exact.structured import saliency


@dataclass(frozen=True, eq=False)
class Greedy:
    """The removed weights in their order (k,), as indices of w, and the losses (k+1,) after 0..k removals."""

    order: np.ndarray
    losses: np.ndarray

    def mask(self, k: int, P: int) -> np.ndarray:
        """Return the mask (P,) bool without the first k of the order."""
        mask = np.ones(P, bool)
        mask[self.order[: checks.integer("k", k, 0, len(self.order))]] = False
        return mask


def exact_greedy(L: Objective, w: np.ndarray, k: int, among: np.ndarray | None = None) -> Greedy:
    """Remove k candidates one at a time, always the one of least exact saliency in the network as it then is.

        q = argmin_j L((1 − e_j) ∘ w) − L(w),    w ← (1 − e_q) ∘ w

    over the candidates `among` (P,) bool that are left (None: the layout's weights that are live at the start); ties
    go to the lower index. No step is worse than any other choice of that step; a sequence can be. It costs k times
    the exact saliency. With several removals between two evaluations it is another method, often a much worse one:
    their losses do not add up.
    """
    w = L.check_w(w).copy()
    left = candidates(L, w, among).copy()
    k = checks.integer("k", k, 0, int(left.sum()))
    order, losses = np.empty(k, np.intp), [L(w)]
    for step in range(k):
        order[step] = np.argmin(np.where(left, saliency(L, w), np.inf))
        w[order[step]], left[order[step]] = 0, False
        losses.append(L(w))
    return Greedy(order, np.array(losses))
