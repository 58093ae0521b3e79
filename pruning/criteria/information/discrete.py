"""Entropy and mutual information of discrete variables, exact for the distribution that is given. In nats.

A variable is an array of N values, or of N rows of several: equal rows are the same value. `weights` (N,) are the
probabilities of the N outcomes, all equal unless given. On an enumerated domain (every input of MONK's, of a Boolean
cube) that is the distribution itself; on a sample it is the plug-in estimate, biased upwards.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import checks


def entropy(p: np.ndarray) -> float:
    """Return H(p) = −Σ p ln p of the probabilities p (of any shape), 0 ln 0 = 0. ValueError unless they sum to 1."""
    p = checks.array("p", p)
    if not p.size:
        raise ValueError("p: expected at least one probability, got none")
    if (p < 0).any() or abs(p.sum() - 1) > 1e-9:
        raise ValueError(
            f"p: expected probabilities that sum to 1, got a sum of {p.sum():.6g} and a least of {p.min():.3g}"
        )
    positive = p[p > 0]
    return float(max(0.0, -(positive * np.log(positive)).sum()))


def of_table(table: np.ndarray) -> float:
    """Return I(A; B) = Σ p(a, b) ln (p(a, b) / (p(a) p(b))) of a joint table p(a, b), rows a, columns b.

    >>> round(of_table(np.array([[0.5, 0.0], [0.0, 0.5]])), 4)
    0.6931
    """
    table = checks.array("table", table, (None, None))
    if not table.size:
        raise ValueError(f"table: expected at least one probability, got {checks.describe(table)}")
    return max(0.0, entropy(table.sum(axis=1)) + entropy(table.sum(axis=0)) - entropy(table))


def table(a: np.ndarray, b: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the joint table p(a, b) of two discrete variables, whose values are in sorted order."""
    a, b = _values("a", a), _values("b", b)
    p = _weights(weights, len(a))
    if len(a) != len(b):
        raise ValueError(f"b: expected {len(a)} values, as many as in a, got {len(b)}")
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), p)
    return joint


def mutual_information(
    a: np.ndarray, b: np.ndarray, given: np.ndarray | None = None, weights: np.ndarray | None = None
) -> float:
    """Return I(A; B), or I(A; B | C) = Σ_c p(c) I(A; B | C = c) where C is `given`; each (N,) or (N, several).

    >>> a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    >>> xor = a ^ b
    >>> mutual_information(a, xor), round(mutual_information(a, xor, given=b), 4)
    (0.0, 0.6931)
    """
    if given is None:
        return of_table(table(a, b, weights))
    c = _values("given", given)
    p = _weights(weights, len(c))
    a, b = _values("a", a), _values("b", b)
    for name, values in (("a", a), ("b", b)):
        if len(values) != len(c):
            raise ValueError(f"{name}: expected {len(c)} values, as many as in given, got {len(values)}")
    parts = [(p[c == v].sum(), c == v) for v in range(c.max() + 1)]
    return float(sum(q * of_table(table(a[own], b[own], p[own] / q)) for q, own in parts if q > 0))


def quantized(h: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin (N,) or (N, U) of every activation, of `bins` of equal width between each unit's extremes.

    The largest value is in the last bin; a constant unit is all in bin 0.
    """
    h = checks.array("h", h)
    if h.ndim not in (1, 2) or not len(h):
        raise ValueError(f"h: expected N activations, or N rows of U units, got {checks.describe(h)}")
    bins = checks.integer("bins", bins, 1)
    low, width = h.min(axis=0), np.ptp(h, axis=0)
    share = (h - low) / np.where(width > 0, width, 1)
    return np.minimum((share * bins).astype(np.intp), bins - 1)


def _values(name: str, a: np.ndarray) -> np.ndarray:
    """Return which of its different values every outcome has (N,)."""
    a = np.asarray(a)
    if a.ndim not in (1, 2) or not len(a) or a.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected N values, or N rows of several, got {checks.describe(a)}")
    checks.array(name, a, kinds="fiub")
    which: np.ndarray = np.unique(a, axis=0, return_inverse=True)[1]
    return which.ravel()


def _weights(weights: np.ndarray | None, N: int) -> np.ndarray:
    if weights is None:
        return np.full(N, 1 / N)
    weights = checks.array("weights", weights, (N,))
    if (weights < 0).any() or abs(weights.sum() - 1) > 1e-9:
        raise ValueError(f"weights: expected probabilities that sum to 1, got a sum of {weights.sum():.6g}")
    return weights
