"""The frontier: the losses of all 2ⁿ masks over n candidate weights, and what they say of nested orders and additivity.

Regret splits there. best[k] is what k removals cost at the least; nested[k] what they cost when every mask must
contain the one before; and how far the losses are from a sum over single weights the energies of interaction tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks, memory
from minimal_nn.curvature.closed_form import is_chain
from minimal_nn.objective import Objective
from pruning.exact.execution import threads
from pruning.exact.subsets import (
    AT_ONCE,
    bytes_of_a_mask,
    candidates_of,
    chain_losses,
    losses,
    rounding,
    seen_by_outputs,
)

#: candidates of which all subsets are listed: 2²² losses are 32 MB
_MOST = 22


@dataclass(frozen=True)
class Frontier:
    """All losses over n candidates. A subset is a number below 2ⁿ whose bit i says that candidate i is removed.

    losses         (2ⁿ,)      L(w ∘ mask) of every subset, losses[0] = L(w)
    best           (n+1,)     the least loss for k = 0..n removed
    masks          (n+1, P)   bool, False on the removed: what attains it, the first in lexicographic order if tied
    nested         (n+1,)     the losses along the best nested order, that is after its first k removals
    order          (n,)       that order, as indices of w, the first to go first
    interactions   (n+1,)     energy of the losses by the order r = 0..n of interaction
    """

    losses: np.ndarray
    best: np.ndarray
    masks: np.ndarray
    nested: np.ndarray
    order: np.ndarray
    interactions: np.ndarray


def frontier(L: Objective, w: np.ndarray, among: np.ndarray | None = None) -> Frontier:
    """Return the losses of all 2ⁿ masks over the n candidates in `among` (P,) bool (None: all), and their frontier.

    Losses are in the units of L, the penalty included, and equal L(w ∘ mask) to 1e-12 of the largest. An order of the
    candidates removes ∅ = S_0 ⊂ S_1 ⊂ … ⊂ S_n; the best nested order is the one of least

        Σ_k L(S_k),    found by dynamic programming over the subsets: V(S) = L(S) + min_{i ∈ S} V(S − i), V(∅) = L(∅)

    It minimises the sum, so that nested[k] >= best[k] with equality at k = 0 and n, and not for every k the least that
    some order has. The Walsh coefficients of the losses, and the energy at order r, in squared units of L, are

        c_T = 2⁻ⁿ Σ_S (−1)^|S ∩ T| L(S),    interactions[r] = Σ_{|T| = r} c_T²

    They sum to the mean of L(S)² over all subsets: interactions[0] is the squared mean and the rest the variance over
    uniform masks, interactions[1] the part of it that the best sum over single weights explains. Where there is no
    interaction rounding leaves about ε² of the mean square. Weights outside `among` stay as they are. For 22 of them
    it takes about 200 MB. Raises ValueError with the count for more than 22 candidates.
    Source: dynamic programming over subsets, Held and Karp 1962; Walsh coefficients, O'Donnell 2014, chapter 1.
    """
    w = checks.array("w", w, (L.n_parameters,))
    candidates = candidates_of(L, among)
    n = len(candidates)
    if n > _MOST:
        raise ValueError(f"among: expected at most {_MOST} candidates, whose subsets are all listed, got {n}")
    table = _all_losses(L, w, candidates)
    sizes = _sums(np.ones(n, dtype=np.uint8))
    levels = [np.flatnonzero(sizes == k) for k in range(n + 1)]
    best, order = _best(table, levels, n), _best_order(table, levels, n)
    nested = np.cumsum([0, *(1 << i for i in order)])
    return Frontier(
        losses=table,
        best=table[best],
        masks=_masks(w, candidates, best),
        nested=table[nested],
        order=candidates[order],
        interactions=_energies(table, levels),
    )


def _masks(w: np.ndarray, candidates: np.ndarray, subsets: np.ndarray) -> np.ndarray:
    """Return the masks (M, P) of subsets (M,)."""
    masks = np.ones((len(subsets), len(w)), dtype=bool)
    masks[:, candidates] = (subsets[:, None] >> np.arange(len(candidates)) & 1) == 0
    return masks


def _all_losses(L: Objective, w: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return L(w ∘ mask) (2ⁿ,) of every subset; in a chain, of those that the outputs can tell apart."""
    table = np.empty(2 ** len(candidates), dtype=w.dtype)
    subsets = np.arange(len(table))
    each = bytes_of_a_mask(L, w)
    if not is_chain(L.network):
        for m in memory.pieces(len(table), each):
            table[m] = losses(L, w, _masks(w, candidates, subsets[m]))
        return table
    for m in memory.pieces(len(table), each):
        seen = seen_by_outputs(L, w, _masks(w, candidates, subsets[m]))[:, candidates]
        subsets[m] = ~seen @ (1 << np.arange(len(candidates)))
    different = np.flatnonzero(subsets == np.arange(len(table)))
    with threads() as executor:
        pieces = [different[m] for m in memory.pieces(len(different), each, memory.BUDGET / AT_ONCE)]
        found = executor.map(lambda piece: chain_losses(L, w, _masks(w, candidates, piece)), pieces)
        for piece, values in zip(pieces, found, strict=True):
            table[piece] = values
    table = table[subsets]
    if L.l2:
        always = np.delete(w, candidates)
        table += 0.5 * w.dtype.type(L.l2) * (always @ always + _sums(w[candidates] ** 2)[::-1])
    return table


def _sums(values: np.ndarray) -> np.ndarray:
    """Return the sum of the values (n,) over every subset (2ⁿ,)."""
    sums = np.zeros(1, dtype=values.dtype)
    for value in values:
        sums = np.concatenate([sums, sums + value])
    return sums


def _best(table: np.ndarray, levels: list[np.ndarray], n: int) -> np.ndarray:
    """Return the subset (n+1,) of least loss for every size; of a tie the lexicographically first, by its indices."""
    tie, subsets = rounding(table), []
    for level in levels:
        tied = level[table[level] <= table[level].min() + tie]
        mirrored = sum((tied >> i & 1) << (n - 1 - i) for i in range(n))
        subsets.append(tied[np.argmax(mirrored)])
    return np.array(subsets)


def _best_order(table: np.ndarray, levels: list[np.ndarray], n: int) -> list[int]:
    """Return the candidates in the order that minimises the sum of the losses along it."""
    V = np.full(len(table), np.inf)
    V[0] = table[0]
    for level in levels[1:]:
        least = np.full(len(level), np.inf)
        for i in range(n):
            np.minimum(least, V[level & ~(1 << i)], out=least)  # V of the level itself is still inf
        V[level] = least + table[level]
    order, subset = [], len(table) - 1
    while subset:
        order.append(min((i for i in range(n) if subset >> i & 1), key=lambda i: V[subset ^ 1 << i]))
        subset ^= 1 << order[-1]
    return order[::-1]


def _energies(table: np.ndarray, levels: list[np.ndarray]) -> np.ndarray:
    """Return Σ_{|T| = r} c_T² (n+1,) by the fast Walsh-Hadamard transform."""
    c = table.astype(np.float64)
    for i in range(len(levels) - 1):
        without, removed = c.reshape(-1, 2, 2**i).swapaxes(0, 1)
        difference = without - removed
        without += removed
        removed[...] = difference
    c /= len(c)
    return np.array([c[level] @ c[level] for level in levels]).astype(table.dtype)
