"""How much alike two score vectors order, choose and sign the weights."""

from __future__ import annotations

import numpy as np

from minimal_nn import checks


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation of two score vectors; ties share their mean rank.

    Raises ValueError where one of them is constant: its ranks then say nothing.
    """
    from scipy.stats import spearmanr

    return float(spearmanr(*_rankable(a, b)).statistic)


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Return Kendall's τ-b of two score vectors: concordant minus discordant pairs, corrected for ties.

    Raises ValueError where one of them is constant.
    """
    from scipy.stats import kendalltau

    return float(kendalltau(*_rankable(a, b)).statistic)


def overlap(a: np.ndarray, b: np.ndarray, k: int) -> float:
    """Return the share in [0, 1] that the k lowest of a and of b have in common; ties go to the lower index."""
    a, b = _pair(a, b)
    checks.integer("k", k, 1, len(a))
    lowest = [set(np.argsort(s, kind="stable")[:k].tolist()) for s in (a, b)]
    return len(lowest[0] & lowest[1]) / k


def sign_agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share in [0, 1] of entries j with sign a_j = sign b_j, where sign is −1, 0 or 1.

    0 agrees with 0 (and −0) alone. A criterion that cannot be negative agrees with the exact saliency on the share of
    weights whose removal hurts, whatever its values. Raises ValueError for vectors without entries.

    >>> sign_agreement(np.array([1.0, 0, -2, 3]), np.array([5.0, 0, 2, 0]))
    0.5
    """
    a, b = _pair(a, b)
    if not len(a):
        raise ValueError("a: expected at least one score, got none")
    return float((np.sign(a) == np.sign(b)).mean())


def correlation_or_nan(a: np.ndarray, b: np.ndarray, correlation: str = "spearman") -> float:
    """Return the rank correlation, NaN where one of the vectors is constant or has fewer than two entries."""
    a, b = _pair(a, b)
    if any((s == s[:1]).all() for s in (a, b)):
        return np.nan
    return {"spearman": spearman, "kendall": kendall}[correlation](a, b)


def vector(name: str, a: np.ndarray) -> np.ndarray:
    """Return scores as float64 (n,), infinite ones included; ValueError for NaN or another shape or dtype."""
    a = np.asarray(a)
    if a.ndim != 1 or a.dtype.kind not in "fiub" or np.isnan(a).any():
        raise ValueError(f"{name}: expected a vector of scores without NaN, got {checks.describe(a)}")
    return a.astype(np.float64)


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = vector("a", a), vector("b", b)
    if len(a) != len(b):
        raise ValueError(f"b: expected {len(a)} scores, as many as in a, got {len(b)}")
    return a, b


def _rankable(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = _pair(a, b)
    for name, scores in (("a", a), ("b", b)):
        if len(scores) < 2 or (scores == scores[0]).all():
            raise ValueError(f"{name}: expected at least two different scores to rank, got {len(scores)} equal ones")
    return a, b
