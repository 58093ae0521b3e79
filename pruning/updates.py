"""What becomes of the remaining weights when some are removed: `(objective, w, mask, **options) -> w′ (P,)`.

mask (P,) bool, True = kept; w′ is 0 where it is False. `zero` moves nothing else, `obs` and `obs_gradient` go to the
minimum of a quadratic model of the loss, `least_squares` fits each layer's outputs again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks, curvature
from minimal_nn.curvature.hessians import hessian_among
from minimal_nn.curvature.products import products
from minimal_nn.objective import Objective


def zero(objective: Objective, w: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return w ∘ mask: nothing makes up for what is removed."""
    w, mask, _ = _checked(objective, w, mask, None)
    return w * mask


def obs(
    objective: Objective, w: np.ndarray, mask: np.ndarray, *, active: np.ndarray | None = None, damping: float = 0.0
) -> np.ndarray:
    """Return w − M⁻¹E_S ([M⁻¹]_SS)⁻¹ w_S with M = H + damping·I: all of S = ¬mask removed at once.

    The minimum of ½ δᵀMδ over δ with δ_S = −w_S. For one weight it is w − w_j/[M⁻¹]_jj · M⁻¹e_j (Hassibi and Stork
    1993, equation 5). For several it is not the sum of the single updates, which let the other removed weights move.
    H is restricted to the `active` (P,) weights, None for all: those that went before stay at 0. Raises ValueError
    where M is not positive definite, or would take more than 8 GiB: pass fewer active weights.
    """
    return _compensated(objective, w, mask, active, damping, gradient=False)


def obs_gradient(
    objective: Objective, w: np.ndarray, mask: np.ndarray, *, active: np.ndarray | None = None, damping: float = 0.0
) -> np.ndarray:
    """Return the minimum of L + gᵀδ + ½ δᵀMδ over δ with δ_S = −w_S, M = H + damping·I: `obs` away from a minimum.

    δ_R = −M_RR⁻¹ (g_R − M_RS w_S) over the rest R: removal and one Newton step of what is left, in one. Where the loss
    is quadratic and damping = 0 it is the minimum over the rest, from any w. ValueError as for `obs`.
    """
    return _compensated(objective, w, mask, active, damping, gradient=True)


def _compensated(
    L: Objective, w: np.ndarray, mask: np.ndarray, active: np.ndarray | None, damping: float, gradient: bool
) -> np.ndarray:
    w, mask, active = _checked(L, w, mask, active)
    w = w * active
    gone, rest = np.flatnonzero(active & ~mask), np.flatnonzero(active & mask)
    H = hessian_among(L, w, np.flatnonzero(active), "active")
    kept = mask[active]
    pull = -H[np.ix_(kept, ~kept)] @ w[gone]
    if gradient:
        pull += L.gradient(w)[rest]
    moved = w * mask
    moved[rest] -= curvature.solve(H[np.ix_(kept, kept)], pull, damping)
    return moved


def least_squares(
    objective: Objective, w: np.ndarray, mask: np.ndarray, *, damping: float = 0.0, inputs: str = "dense"
) -> np.ndarray:
    """Return w′ whose every Linear and Conv2d, with its mask, comes nearest to its outputs under w: layer by layer

        min over W′, W′ = W′ ∘ M, of (1/N) ‖X W − X′ W′‖² + damping ‖W − W′‖²

    X are the layer's inputs under w, with a 1 for the bias, a row for every example and position. X′ = X with inputs
    "dense"; with "pruned" X′ are the inputs under w′, whose layers are fitted from first to last, so that each makes
    up for the errors of those before it. Where the fit is not unique, the nearest to W is taken. Other parameters
    (BatchNorm) are only masked. ValueError for other `inputs`.
    Source: He, Zhang and Sun 2017 for channels; Hubara et al. 2021 (AdaPrune) for masks.
    """
    w, mask, _ = _checked(objective, w, mask, None)
    damping = checks.number("damping", damping, 0)
    sequential = checks.one_of("inputs", inputs, ("dense", "pruned")) == "pruned"
    fitted = w * mask
    for index in [index for index, _ in _first_of_each_layer(objective, w)]:
        R, targets = _triangle(objective, w, fitted if sequential else w, index)
        if damping:
            R = np.vstack([R, np.sqrt(damping) * np.eye(len(index))])
            targets = np.vstack([targets, np.sqrt(damping) * w[index]])
        patterns, which = np.unique(mask[index], axis=1, return_inverse=True)
        for p, kept in enumerate(patterns.T):
            columns = np.flatnonzero(which.ravel() == p)
            own = index[np.ix_(kept, columns)]
            missing = targets[:, columns] - R[:, kept] @ w[own]
            fitted[own] = w[own] + np.linalg.lstsq(R[:, kept], missing, rcond=None)[0]
    return fitted


def _first_of_each_layer(L: Objective, w: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(products(L.subset(slice(0, 1)), w))


def _triangle(L: Objective, w: np.ndarray, at: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return R (r, q) and Y (r, o) with ‖R W′ − Y‖² = (1/N) ‖X′ W′ − X W‖² + a constant, by QR piece by piece.

    X are the rows of the layer of `index` (q, o) under w, X′ those under `at`.
    """
    q, o = index.shape
    T: np.ndarray = np.zeros((0, q + o), w.dtype)
    for (own, x), (_, moved) in zip(products(L, w), products(L, at), strict=True):
        if own[0, 0] == index[0, 0]:
            both = np.hstack([moved, x @ w[index]]) / np.sqrt(L.n_examples)
            T = np.asarray(np.linalg.qr(np.vstack([T, both]), mode="r"))
    return T[:, :q], T[:, q:]


@dataclass(frozen=True)
class Surgery:
    """k removals, one after the other: which (k,), what each cost (k,), the weights (P,) and inverse (P, P) they leave.

    `inverse` is 0 in the rows and columns of what is gone. Costs are in the units of ½ wᵀHw.
    """

    order: np.ndarray
    costs: np.ndarray
    w: np.ndarray
    inverse: np.ndarray


def surgery(H: np.ndarray, w: np.ndarray, k: int, *, among: np.ndarray | None = None, damping: float = 0.0) -> Surgery:
    """Remove k weights one by one, each time that of least w_j² / (2 [M⁻¹]_jj), and move the rest, M = H + damping·I.

        w ← w − w_j/[M⁻¹]_jj · M⁻¹e_j,        M⁻¹ ← M⁻¹ − M⁻¹e_j e_jᵀM⁻¹ / [M⁻¹]_jj

    H (P, P) stays what it was at the start and its inverse is downdated, P² operations a removal. With H the Hessian
    of a loss it is optimal brain surgeon; with H = XᵀX/N of a layer's inputs and w one of its rows, OBC. `among` (P,)
    bool are the candidates; all weights may move. Ties go to the lower index. The weights after k removals are those
    of a joint removal, obs, of the same set: only the choice is greedy. Rounding grows with the condition of M.
    Raises ValueError where M is not positive definite and for k outside 0..candidates.
    Source: Hassibi and Stork 1993; Frantar and Alistarh 2022, lemma 1.

    >>> H = np.array([[1.0, 0, 0], [0, 2, -3], [0, -3, 5]])
    >>> first = surgery(H, np.array([3.0, 3, 2]), 1)
    >>> print(first.order, first.costs.round(12), first.w.round(12))
    [1] [0.9] [3.  0.  0.2]
    """
    w = checks.array("w", w, (None,)).copy()
    checks.array("H", H, (len(w), len(w)))
    left = np.ones(len(w), bool) if among is None else checks.array("among", among, w.shape, kinds="b").copy()
    k = checks.integer("k", k, 0, int(left.sum()))
    Minv = curvature.inverse(H, damping)
    order, costs = np.empty(k, dtype=np.intp), np.empty(k)
    for t in range(k):
        candidates = np.flatnonzero(left)
        cost = w[candidates] ** 2 / (2 * np.diagonal(Minv)[candidates])
        j = candidates[np.argmin(cost)]
        order[t], costs[t] = j, cost.min()
        column = Minv[j] / np.sqrt(Minv[j, j])
        w -= w[j] / column[j] * column
        Minv -= np.outer(column, column)
        w[j], left[j] = 0, False
        Minv[j] = Minv[:, j] = 0
        w[order[:t]] = 0
    return Surgery(order, costs, w, Minv)


def _checked(
    L: Objective, w: np.ndarray, mask: np.ndarray, active: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    w = checks.array("w", w, (L.n_parameters,))
    mask = checks.array("mask", mask, w.shape, kinds="b")
    active = np.ones(len(w), bool) if active is None else checks.array("active", active, w.shape, kinds="b")
    return w, mask, active
