"""Explanations with a number in them that has to be fitted: the damping of an inverse.

w_j² / (2 [(M + λI)⁻¹]_jj) depends on λ smoothly, and on nothing else that is unknown but a factor: the λ at which the
ratio of theirs to it varies least is found on a grid and refined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minimal_nn.curvature.products import products
from pruning.oracle.matching import Explanation, Foreign, factor_of, relative_error
from pruning.oracle.quantities import MOST_FOR_MATRICES, Quantities

_GRID = np.geomspace(1e-10, 1e4, 57)


def explanations(known: Quantities, foreign: Foreign, entries: Any) -> list[Explanation]:
    """Return the inverses, damped by a fitted amount, that the scores are; for scores of single weights alone."""
    if not hasattr(entries, "given") or len(known.w) > MOST_FOR_MATRICES:
        return []
    centred = known.rows - known.rows.mean(axis=0)
    matrices = {
        "obs": known.hessian,
        "obs of the Gauss-Newton matrix": known.gauss_newton,
        "woodfisher": known.empirical,
        "woodfisher of the gradients' covariance": centred.T @ centred / known.L.n_examples,
    }
    found = []
    for name, M in matrices.items():
        values, vectors = np.linalg.eigh(M)
        squares, weights = (vectors**2)[entries.given], known.w[entries.given]
        damping = _best(foreign.values, _score(values, squares, weights), -values[0])
        if damping is not None:
            score = _score(values, squares, weights)(damping)
            found += _explained(foreign, name, name.split()[0], f"(damping={damping:.6g})", score)
    layerwise = _layerwise(known, foreign, entries)
    return sorted(found + layerwise, key=lambda one: one.surprise)


def _explained(foreign: Foreign, name: str, of: str, said: str, score: np.ndarray) -> list[Explanation]:
    factor = factor_of(foreign.values, score)
    error = relative_error(foreign.values, factor * score)
    if not factor or error > max(1e-6, foreign.tolerance):
        return []
    times = "" if abs(factor - 1) < 1e-5 else f", times {factor:.6g}"
    return [Explanation(f"{name}{said}, fitted{times}", name, of, factor, error, 2.5, factor * score)]


def _score(values: np.ndarray, squares: np.ndarray, w: np.ndarray) -> Callable[[float], np.ndarray]:
    def score(damping: float) -> np.ndarray:
        return w**2 / (2 * (squares / (values + damping)).sum(axis=1))

    return score


def _best(theirs: np.ndarray, score: Callable[[float], np.ndarray], least: float) -> float | None:
    """Return the damping above `least` at which theirs / score varies least; None where that is at an end."""
    from scipy.optimize import minimize_scalar

    positive = theirs > 1e-6 * np.abs(theirs).max(initial=0)
    if positive.sum() < 4 or (theirs < -1e-9 * np.abs(theirs).max()).any():
        return None

    def spread(log_damping: float) -> float:
        ratio = score(float(np.exp(log_damping)))[positive] / theirs[positive]
        return float(np.log(ratio).std()) if (ratio > 0).all() else np.inf

    grid = np.log(_GRID[1.001 * max(least, 0) < _GRID])
    if len(grid) < 3:
        return None
    at = int(np.argmin([spread(d) for d in grid]))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    refined = minimize_scalar(spread, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    return float(np.exp(refined.x))


def _layerwise(known: Quantities, foreign: Foreign, entries: Any) -> list[Explanation]:
    """Return OBS of every layer's own inputs, each layer with a damping of its own and all with one factor."""
    grams: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for index, x in products(known.L, known.w):
        first = int(index[0, 0])
        gram = x.T @ x / known.L.n_examples
        grams[first] = index, gram + (grams[first][1] if first in grams else 0)
    position = np.cumsum(entries.given) - 1
    scores, said = np.full(len(foreign.values), np.nan), []
    for index, gram in grams.values():
        if not entries.given[index].all():
            return []
        values, vectors = np.linalg.eigh(gram)
        own, squares = position[index].ravel(), np.repeat(vectors**2, index.shape[1], axis=0)
        score = _score(values, squares, known.w[index].ravel())
        damping = _best(foreign.values[own], score, -values[0])
        if damping is None:
            return []
        scores[own] = score(damping)
        said.append(f"{damping:.6g}")
    if not np.isfinite(scores).all():
        return []
    return _explained(foreign, "obs_layerwise", "obs_layerwise", f"(damping={', '.join(said)} by layer)", scores)
