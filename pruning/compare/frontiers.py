"""The parts of regret: what nested orders, additivity and the criterion itself cost, where all masks are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pruning.compare.ranks import vector
from pruning.compare.tables import aligned
from pruning.exact.frontiers import Frontier


@dataclass(frozen=True, eq=False)
class Prices:
    """Losses after k = 0..n of n candidates are removed, each (n+1,), in the units of L.

    best        the least of all masks
    nested      along the best nested order: the least sum over k
    greedy      one at a time, each time the one whose removal gives the least loss
    one_shot    in the order of the exact saliencies, which are not computed anew
    criterion   in the order of the scores

    Regret splits into three prices, each (n+1,):  criterion − best = nestedness + additivity + own_error.
    """

    best: np.ndarray
    nested: np.ndarray
    greedy: np.ndarray
    one_shot: np.ndarray
    criterion: np.ndarray

    @property
    def nestedness(self) -> np.ndarray:
        """nested − best >= 0: what it costs that every mask contains the one before."""
        return self.nested - self.best

    @property
    def additivity(self) -> np.ndarray:
        """one_shot − nested: what it costs to judge each weight alone, as though losses of removals added up.

        At a single k it can be negative: the best nested order has the least sum over all k.
        """
        return self.one_shot - self.nested

    @property
    def own_error(self) -> np.ndarray:
        """criterion − one_shot: what the scores cost beyond the exact saliency; negative where they do better."""
        return self.criterion - self.one_shot

    @property
    def regret(self) -> np.ndarray:
        """criterion − best >= 0."""
        return self.criterion - self.best

    def __str__(self) -> str:
        columns = ("best", "nested", "greedy", "one_shot", "criterion", "nestedness", "additivity", "own_error")
        values = np.stack([getattr(self, name) for name in columns], axis=1)
        rows = [[str(k), *(f"{value:.4g}" for value in row)] for k, row in enumerate(values)]
        return aligned([["k", *columns], *rows])


def prices(frontier: Frontier, scores: np.ndarray) -> Prices:
    """Return what removal by `scores` (P,) costs for every k, and its parts; the k lowest candidates go.

    Every loss is looked up in the frontier's table. Among equal scores, and equal exact saliencies, the lower index
    goes first; in the greedy path likewise.

    >>> from minimal_nn import Linear, Network, Objective, SquaredError
    >>> from pruning import exact
    >>> x = np.array([[2.0, 2, -3, 1]])
    >>> L = Objective(Network(Linear(4, 1, bias=False)), SquaredError(), x, x.sum(keepdims=True))
    >>> print(prices(exact.frontier(L, np.ones(4)), np.array([1.0, 3, 2, 4])))
    k  best  nested  greedy  one_shot  criterion  nestedness  additivity  own_error
    0     0       0       0         0          0           0           0          0
    1   0.5     0.5     0.5       0.5          2           0           0        1.5
    2   0.5       2       2       4.5        0.5         1.5         2.5         -4
    3     0       0       0      12.5        0.5           0        12.5        -12
    4     2       2       2         2          2           0           0          0
    """
    scores = vector("scores", scores)
    P = frontier.masks.shape[1]
    if len(scores) != P:
        raise ValueError(f"scores: expected one for each of {P} parameters, got {len(scores)}")
    table = frontier.losses.astype(np.float64)
    candidates = np.sort(frontier.order)
    alone = table[1 << np.arange(len(candidates))] - table[0]
    return Prices(
        best=frontier.best.astype(np.float64),
        nested=frontier.nested.astype(np.float64),
        greedy=table[_prefixes(_greedy_order(table, len(candidates)))],
        one_shot=table[_prefixes(np.argsort(alone, kind="stable"))],
        criterion=table[_prefixes(np.argsort(scores[candidates], kind="stable"))],
    )


def _prefixes(order: np.ndarray) -> np.ndarray:
    """Return the subsets (n+1,) that hold the first 0..n of an order, as indices of the table."""
    return np.concatenate([[0], np.cumsum(1 << order)]).astype(np.intp)


def _greedy_order(table: np.ndarray, n: int) -> np.ndarray:
    """Return the candidates in the order in which each removal gives the least loss of all that are left."""
    order, subset = np.empty(n, np.intp), 0
    for k in range(n):
        left = np.flatnonzero(~subset >> np.arange(n) & 1)
        order[k] = left[np.argmin(table[subset | 1 << left])]
        subset |= 1 << int(order[k])
    return order
