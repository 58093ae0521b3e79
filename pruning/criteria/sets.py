"""Criteria that choose a set at once: `(objective, w, k, *, active=None) -> mask (P,)`, True = kept."""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.hessians import hessian_among
from minimal_nn.objective import Objective
from pruning.criteria.base import register, restricted


def combinatorial(
    objective: Objective,
    w: np.ndarray,
    k: int,
    *,
    among: np.ndarray | None = None,
    active: np.ndarray | None = None,
    swaps: int = 10_000,
) -> np.ndarray:
    """Return the mask (P,) without the set S of k weights that a search finds to have the least

        q(S) = −g_Sᵀ w_S + ½ w_Sᵀ H_SS w_S

    the second-order model of s_S, interactions included; no weight outside S moves. S grows by the weight of least
    increase, k times, then exchanges one weight in S for one outside as long as that lowers q, the best exchange
    first, at most `swaps` times: a local optimum under exchanges, not always the best set. S is taken from the
    candidates `among` (P,) bool, None for all. Weights that are not `active` count as 0, are False in the mask and do
    not count in k. Ties go to the lower index. Units of L. ValueError for k outside 0..n,
    and where the Hessian of the candidates would take more than 8 GiB.
    Source: Yu et al. 2022 (there with the empirical Fisher in place of H, at a minimum, and S from a randomized
    magnitude pruning, improved by a local search of swaps: "RMP + LS" in the README of their code).
    """
    w, present = restricted(objective, w, active)
    among = present if among is None else checks.array("among", among, w.shape, kinds="b")
    candidates = np.flatnonzero(present & among)
    k = checks.integer("k", k, 0, len(candidates))
    swaps = checks.integer("swaps", swaps, 0)
    v = w[candidates].astype(np.float64)
    Q = hessian_among(objective, w, candidates, "among") * np.outer(v, v)
    alone = 0.5 * np.diagonal(Q) - objective.gradient(w)[candidates] * v
    chosen = np.zeros(len(v), bool)
    cost = alone.astype(np.float64)  # of adding j to S: alone_j + Σ_{i ∈ S} Q_ij
    for _ in range(k):
        j = np.argmin(np.where(chosen, np.inf, cost))
        chosen[j] = True
        cost += Q[j]
    rounding = 64 * np.finfo(w.dtype).eps * (np.abs(cost).max(initial=0) + np.abs(Q).max(initial=0))
    for _ in range(swaps if 0 < k < len(v) else 0):
        inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        gain = np.diagonal(Q)[inside] - cost[inside]  # of taking i out of S, for which cost counts Q_ii once more
        change = gain[:, None] + cost[outside] - Q[np.ix_(inside, outside)]
        i, j = np.unravel_index(np.argmin(change), change.shape)
        if change[i, j] >= -rounding:
            break
        chosen[inside[i]], chosen[outside[j]] = False, True
        cost += Q[outside[j]] - Q[inside[i]]
    mask = present.copy()
    mask[candidates[chosen]] = False
    return mask


register(
    combinatorial, "sets", "1 + H + k(P − k) by swap", ("examples", "labels", "gradients", "Hessian"), returns="mask"
)
