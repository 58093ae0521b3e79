"""The best mask of one output row under the layer-wise squared error, proven best: what Wanda and SparseGPT approach.

With G = XᵀX/N + λI and the set S of removed weights, the error is a quadratic form in the change δ = w′ − w,
δ_S = −w_S. Every set is a leaf of a binary tree that keeps or removes one input after the other: S is what a node has
removed, K what it has kept, U what it has not decided, m how many of U have still to go. Up to `ENUMERATED` inputs the
whole tree is walked; beyond, nodes whose lower bound is no better than the best mask known are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb
from typing import Protocol

import numpy as np

from minimal_nn import checks, memory

#: up to so many inputs every mask is compared, and no bound is relied upon
ENUMERATED = 20

#: removed (B, d) bool, left (B,) how many have still to go, error (B,), and what a tree adds, of B nodes of one level
Nodes = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class RowOptimum:
    """The best mask (d,), True = kept; the weights (d,) with it; their error; how much was examined to prove it.

    `examined` counts masks where all were compared, nodes of the tree otherwise.
    """

    mask: np.ndarray
    weights: np.ndarray
    error: float
    examined: int


def row_optimum(
    X: np.ndarray, w: np.ndarray, k: int, update: bool = False, damping: float = 0.0, limit: int = 10_000_000
) -> RowOptimum:
    """Return the best w′ (d,) with k of its d entries removed: min (1/N) ‖X w − X w′‖² + λ ‖w − w′‖².

    X (N, d) are the inputs of a layer, w (d,) the weights of one of its outputs, λ the damping (0 unless given; XᵀX of
    Hassibi and Stork or 2XᵀX of Frantar and Alistarh has N or 2N times its size). The error has the units of the
    squared output and no ½. With G = XᵀX/N + λI it is

        w_Sᵀ G_SS w_S                         without update: w′ = w ∘ mask
        w_Sᵀ (G_SS − G_SR G_RR⁺ G_RS) w_S     with update: the rest R is fitted again

    the second being w_Sᵀ ([G⁻¹]_SS)⁻¹ w_S where G⁻¹ exists. Where G is singular (N < d, dead or equal inputs) the fit
    is not unique: the one with the least Σ_j G_jj δ_j² is returned. Among equally good masks any one is.

    Up to 20 inputs all C(d, k) masks are compared; beyond, branch and bound. The error is computed afresh from the mask
    found. That no other mask is better holds to rounding: about 1e-9 of Σ_j w_j² G_jj without update. With it, up to 20
    inputs, an input is a combination of others where it differs from it by less than max(N, d)·ε of its length; beyond
    20 it is ε times the condition of the non-singular part of G, inputs scaled to unit length, and where G is singular
    a weight takes part in a combination from a share of 1e-4 on.

    Raises ValueError where more than `limit` masks or nodes would have to be examined.
    Source: Furnival and Wilson 1974 (leaps and bounds); Hassibi and Stork 1993 and Frantar and Alistarh 2022 (OBC), who
    go greedily where this does not.

    >>> X = np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    >>> w = np.array([1.0, -1.0, 0.6])
    >>> row_optimum(X, w, 1).weights
    array([ 1., -1.,  0.])
    >>> row_optimum(X, w, 1, update=True).weights
    array([ 1.2, -0.8,  0. ])
    """
    X, w = _checked(X, w)
    d = len(w)
    k = checks.integer("k", k, 0, d)
    if not isinstance(update, (bool, np.bool_)):
        raise ValueError(f"update: expected True or False, got {checks.describe(update)}")
    T = _triangle(X, checks.number("damping", damping, 0))
    limit = checks.integer("limit", limit, 1)
    lengths = np.linalg.norm(T, axis=0)
    lengths[lengths == 0] = 1
    T, v = T / lengths, w * lengths  # inputs of unit length: no error changes, and one tolerance fits all
    refitted = _Regressed if d <= ENUMERATED else _Refitted
    tree: Tree = refitted(T, v, k, max(X.shape)) if update else _Masked(T, v, k)

    def errors(removed: np.ndarray) -> np.ndarray:
        found = np.empty(len(removed))
        for piece in memory.pieces(len(removed), 4 * 8 * d):
            changes = [_refit(T, v, r) - v for r in removed[piece]] if update else -v * removed[piece]
            found[piece] = ((np.asarray(changes) @ T.T) ** 2).sum(axis=1)
        return found

    if d <= ENUMERATED:
        if comb(d, k) > limit:
            raise ValueError(f"limit: expected at least C({d}, {k}) = {comb(d, k)} masks to compare, got {limit}")
        removed, examined = _search(tree, None, np.inf, limit)[0], comb(d, k)
    else:
        start = _greedy(errors, d, k, tree.slack)
        removed, examined = _search(tree, start, errors(start[None])[0], limit)
    weights = (_refit(T, v, removed) / lengths).astype(w.dtype) if update else w * ~removed
    return RowOptimum(~removed, weights, float(errors(removed[None])[0]), examined)


def _checked(X: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    X = checks.array("X", X, (None, None), kinds="fiub")
    if not X.size:
        raise ValueError(f"X: expected at least one example and one input, got {checks.describe(X)}")
    return X, checks.array("w", w, (X.shape[1],))


def _triangle(X: np.ndarray, damping: float) -> np.ndarray:
    """Return T (r, d), r <= d, with TᵀT = XᵀX/N + damping·I, from X itself: XᵀX would lose half of the digits."""
    N, d = X.shape
    T = np.sqrt(damping) * np.eye(d) if damping else np.zeros((0, d))
    for n in memory.pieces(N, 4 * 8 * d):
        T = np.linalg.qr(np.concatenate([T, X[n] / np.sqrt(N)]), mode="r")
    return T


def _refit(T: np.ndarray, v: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Return the weights (d,) that least squares fits to T v with the removed ones at 0: the least change from v."""
    change = np.linalg.lstsq(T[:, ~removed], T[:, removed] @ v[removed], rcond=None)[0]
    fitted = np.zeros_like(v)
    fitted[~removed] = v[~removed] + change
    return fitted


def _greedy(errors: Callable[[np.ndarray], np.ndarray], d: int, k: int, slack: float) -> np.ndarray:
    """Return a good removed set (d,) bool: k times the one that costs least, then exchanges that gain over slack."""
    one = np.eye(d, dtype=bool)
    removed = np.zeros(d, bool)
    for _ in range(k):
        trials = removed | one[~removed]
        removed = trials[np.argmin(errors(trials))]
    while 0 < k < d:
        trials = (removed ^ one[removed][:, None] ^ one[~removed]).reshape(-1, d)
        after = errors(trials)
        if not after.min() < (1 - 1e-12) * errors(removed[None])[0] - slack:
            break
        removed = trials[np.argmin(after)]
    return removed


class Tree(Protocol):
    """What the search needs of a tree; level t decides the input order[t]. `removed` is in the order of the tree."""

    order: np.ndarray
    root: Nodes
    slack: float

    def bound(self, t: int, nodes: Nodes) -> np.ndarray:
        """Return (B,) numbers that no completion of the nodes can go below."""

    def keep(self, t: int, nodes: Nodes) -> Nodes:
        """Return the children that keep input t."""

    def remove(self, t: int, nodes: Nodes) -> Nodes:
        """Return the children without input t."""


def _search(tree: Tree, best: np.ndarray | None, error: float, limit: int) -> tuple[np.ndarray, int]:
    """Return the best removed set (d,) and how many nodes were looked at; without a `best` to start from, at all.

    Depth first in pieces of nodes of one level: at most a few pieces of every level wait at a time.
    """
    d, prune, examined = len(tree.order), best is not None, 0
    stack = [(0, tree.root)]
    while stack:
        t, nodes = stack.pop()
        removed, left, errors = nodes[:3]
        complete = left == 0
        i = np.argmin(np.where(complete, errors, np.inf))
        if complete[i] and (best is None or errors[i] < error):
            error, best = errors[i], np.zeros(d, bool)
            best[tree.order] = removed[i]
        nodes, examined = _take(nodes, ~complete), examined + len(left)
        if prune and examined > limit:
            raise ValueError(
                f"limit: {limit} nodes did not suffice, {examined} were examined; raise it, or the damping"
            )
        if prune and len(nodes[0]):
            nodes = _take(nodes, tree.bound(t, nodes) < (1 - 1e-12) * error - tree.slack)
        if not len(nodes[0]):
            continue
        kept, without = tree.keep(t, _take(nodes, nodes[1] < d - t)), tree.remove(t, nodes)
        children = tuple(np.concatenate(pair) for pair in zip(kept, without, strict=True))
        each = sum(a[:1].nbytes for a in children)
        for piece in memory.pieces(len(children[0]), 4 * each, memory.BUDGET / (4 * d)):
            stack.append((t + 1, _take(children, piece)))
    assert best is not None  # the tree has leaves
    return best, examined


def _take(nodes: Nodes, index: np.ndarray | slice) -> Nodes:
    return tuple(a[index] for a in nodes)


def _root(d: int, k: int, *own: np.ndarray) -> Nodes:
    return (np.zeros((1, d), bool), np.array([k]), np.zeros(1), *(a[None] for a in own))


def _marked(removed: np.ndarray, t: int) -> np.ndarray:
    removed = removed.copy()
    removed[:, t] = True
    return removed


class _Refitted:
    """With update. A node adds its refitted weights v (B, u) and the inverse (B, u, u) of G over K ∪ U, both on U.

    Bound: r(S), the error of S alone, is a minimum over δ with δ_S fixed; to remove more fixes more of δ, so that
    r(S ∪ T) >= r(S) (Furnival and Wilson 1974), and r(S ∪ T) >= r(S ∪ {j}) for every j in T. Of m different j in U one
    costs at least the m-th least: r(S ∪ T) >= r(S) + the m-th least of v_j² / [G⁻¹]_jj over U.

    Removal (Hassibi and Stork 1993): v ← v − c v_j and G⁻¹ ← C G⁻¹ Cᵀ with c = G⁻¹e_j / [G⁻¹]_jj, C = I − c e_jᵀ. Where
    G is singular, (G + εI)⁻¹ = M + Π/ε + O(ε) with M = G⁺ and the projector Π onto the null space, for ε → 0: while
    Π_jj > 0, c = Πe_j / Π_jj and the removal is free; otherwise c = Me_j / M_jj and Π stays as it is.
    """

    def __init__(self, T: np.ndarray, v: np.ndarray, k: int, size: int) -> None:
        _, sigma, V = np.linalg.svd(T)
        sigma = np.append(sigma, np.zeros(len(v) - len(sigma)))
        seen = sigma > size * np.finfo(np.float64).eps * sigma.max()
        M = (V[seen].T / sigma[seen] ** 2) @ V[seen]
        null = V[~seen].T @ V[~seen]
        self.order = np.argsort(-_single_costs(v[None], M[None], null[None])[0], kind="stable")
        own = np.ix_(self.order, self.order)
        self.root = _root(len(v), k, v[self.order], M[own], null[own])
        self.slack = 1e-24 * (v**2).sum()  # a sum of squares of numbers that rounding moves by far less than 1e-12

    def bound(self, t: int, nodes: Nodes) -> np.ndarray:
        _, left, error, v, M, null = nodes
        costs = np.sort(_single_costs(v, M, null), axis=1)
        return error + np.append(costs, np.zeros((len(costs), 1)), axis=1)[np.arange(len(costs)), left - 1]

    def keep(self, t: int, nodes: Nodes) -> Nodes:
        removed, left, error, v, M, null = nodes
        return removed, left, error, v[:, 1:], M[:, 1:, 1:], null[:, 1:, 1:]

    def remove(self, t: int, nodes: Nodes) -> Nodes:
        removed, left, error, v, M, null = nodes
        error = error + _single_costs(v[:, :1], M[:, :1, :1], null[:, :1, :1])[:, 0]
        free = _is_free(null[:, 0, 0])[:, None]
        row, null_row = M[:, 0, 1:], np.where(free, null[:, 0, 1:], 0)
        c = np.where(free, null_row / _pivot(null[:, :1, 0], free), row / _pivot(M[:, :1, 0], ~free))
        cross = c[:, :, None] * (row - 0.5 * M[:, :1, 0] * c)[:, None]
        M = M[:, 1:, 1:] - cross - cross.swapaxes(1, 2)
        null = null[:, 1:, 1:] - c[:, :, None] * null_row[:, None]
        return _marked(removed, t), left - 1, error, v[:, 1:] - c * v[:, :1], M, null


def _single_costs(v: np.ndarray, M: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return v_j² / [G⁻¹]_jj (B, u), what the removal of one more input costs; 0 where the others can replace it.

    With inputs of unit length [G⁻¹]_jj >= 1 / G_jj = 1: less is rounding.
    """
    pivots = np.maximum(np.diagonal(M, axis1=1, axis2=2), 1)
    return np.where(_is_free(np.diagonal(null, axis1=1, axis2=2)), 0, v**2 / pivots)


def _is_free(null: np.ndarray) -> np.ndarray:
    return null > 1e-8


def _pivot(diagonal: np.ndarray, used: np.ndarray) -> np.ndarray:
    return np.where(used, diagonal, 1)


class _Regressed:
    """With update, every mask. A node adds the residuals (B, r, u + 1): of the columns U of T, and of Tv in the last.

    The error is what the kept columns leave of Tv. To keep a column is to project the others off it (modified
    Gram-Schmidt, Björck 1967): no inverse, so that a singular G or nearly equal inputs cost no digits. A column of
    which less than rounding is left lies in the span of the kept ones and changes nothing.
    """

    slack = 0.0

    def __init__(self, T: np.ndarray, v: np.ndarray, k: int, size: int) -> None:
        self.order = np.arange(len(v))
        self.least = size * np.finfo(np.float64).eps
        self.root = _root(len(v), k, np.column_stack([T, T @ v]))

    def bound(self, t: int, nodes: Nodes) -> np.ndarray:
        return np.zeros(len(nodes[0]))

    def keep(self, t: int, nodes: Nodes) -> Nodes:
        removed, left, error, residuals = nodes
        return removed, left, error, self._project(residuals)

    def remove(self, t: int, nodes: Nodes) -> Nodes:
        removed, left, error, residuals = nodes
        left, error, residuals = left - 1, error.copy(), residuals[:, :, 1:]
        last = left == 0
        remaining = residuals[last]
        while remaining.shape[2] > 1:
            remaining = self._project(remaining)
        error[last] = (remaining**2).sum(axis=(1, 2))
        return _marked(removed, t), left, error, residuals

    def _project(self, residuals: np.ndarray) -> np.ndarray:
        """Return the residuals without their first column, all of it taken out of the others."""
        own, others = residuals[:, :, 0], residuals[:, :, 1:]
        length = np.linalg.norm(own, axis=1, keepdims=True)
        q = np.where(length > self.least, own / np.where(length > 0, length, 1), 0)
        return others - q[:, :, None] * (q[:, None] @ others)


class _Masked:
    """Without update. A node adds P_US 1 (B, u), on U.

    With z = 1 where an input is removed and 0 elsewhere the error is zᵀBz, B_ij = w_i G_ij w_j. Bound: as z_j² = z_j,
    zᵀBz = zᵀPz + Σ_j D_j z_j with P = B − diag(D) for any D. Where P is positive definite, the first part is at least
    its minimum over real z_U with z_S = 1 and z_K = 0, and the second at least its S part plus the m least D_j of U:

        error(S ∪ T) >= error(S) − (P_US 1)ᵀ P_UU⁻¹ (P_US 1) + the sum of the m least D_j over U

    D_j = κ B_jj − 1e-6 max B, with κ the least eigenvalue of G_ij / √(G_ii G_jj) over live inputs: exact for
    uncorrelated inputs; the small part keeps P definite. With D = 0 and z_K free it would be the bound with update.
    """

    def __init__(self, T: np.ndarray, v: np.ndarray, k: int) -> None:
        d = len(v)
        self.order = np.argsort(-(v**2), kind="stable")
        v, T = v[self.order], T[:, self.order]
        G = T.T @ T
        self.B = v[:, None] * G * v
        b = np.diagonal(self.B)
        D = max(np.linalg.eigvalsh(G + np.diag(np.diagonal(G) == 0))[0], 0) * b - 1e-6 * (b.max() or 1)
        self.P = self.B - np.diag(D)
        reversed_factor = np.linalg.inv(np.linalg.cholesky(self.P[::-1, ::-1]))
        self.factor = np.ascontiguousarray(reversed_factor[::-1, ::-1])  # P_UU⁻¹ = F_UUᵀ F_UU
        self.least = [np.append(0, np.cumsum(np.sort(D[t:]))) for t in range(d)]
        self.root = _root(d, k, np.zeros(d))
        self.slack = 1e-13 * b.sum()

    def bound(self, t: int, nodes: Nodes) -> np.ndarray:
        _, left, error, u = nodes
        return error - ((u @ self.factor[t:, t:].T) ** 2).sum(axis=1) + self.least[t][left]

    def keep(self, t: int, nodes: Nodes) -> Nodes:
        removed, left, error, u = nodes
        return removed, left, error, u[:, 1:]

    def remove(self, t: int, nodes: Nodes) -> Nodes:
        removed, left, error, u = nodes
        return (
            _marked(removed, t),
            left - 1,
            error + 2 * u[:, 0] + self.B[t, t],
            u[:, 1:] + self.P[t, t + 1 :],
        )
