"""Estimates of mutual information from samples, to be judged against the exact values. In nats, never clipped at 0."""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from pruning.criteria.information.discrete import _values, _weights, mutual_information, quantized

#: shrinks a ball so that the neighbour on its surface is outside
_INSIDE = 1 - 1e-10


def histogram(h: np.ndarray, y: np.ndarray, bins: int = 30, corrected: bool = False) -> float:
    """Return the plug-in I of h (N,) in `bins` of equal width with discrete labels y (N,).

    Corrected, it is that of Miller and Madow: (K − 1)/(2N) is added to every entropy, K the cells that are not empty,
    so that I gains (K_h + K_y − K_hy − 1)/(2N). Biased upwards without, by about as much.
    """
    b, labels = quantized(_sample("h", h), bins), _values("y", y)
    found = mutual_information(b, labels)
    if corrected:
        cells = [len(np.unique(v, axis=0)) for v in (b, labels, np.stack([b, labels], axis=1))]
        found += (cells[0] + cells[1] - cells[2] - 1) / (2 * len(b))
    return found


def ksg(x: np.ndarray, y: np.ndarray, k: int = 3) -> float:
    """Return I(X; Y) of two continuous variables (N,) or (N, d) by their k nearest neighbours in the largest norm.

        ψ(k) + ψ(N) − (1/N) Σ_n [ψ(n_x + 1) + ψ(n_y + 1)]

    n_x counts the others nearer in x than the k-th neighbour in (x, y). For continuous pairs only: with discrete labels
    the answer depends on the unit of x; use `ross`. Source: Kraskov, Stögbauer and Grassberger 2004, equation 8.
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    x, y = _rows("x", x), _rows("y", y)
    N = len(x)
    if len(y) != N:
        raise ValueError(f"y: expected {N} rows, as many as in x, got {len(y)}")
    k = checks.integer("k", k, 1, N - 1)
    distance = cKDTree(np.hstack([x, y])).query(np.hstack([x, y]), k + 1, p=np.inf)[0][:, -1] * _INSIDE
    nearer = [cKDTree(v).query_ball_point(v, distance, p=np.inf, return_length=True) for v in (x, y)]  # itself too
    return float(digamma(k) + digamma(N) - (digamma(nearer[0]) + digamma(nearer[1])).mean())


def ross(h: np.ndarray, y: np.ndarray, k: int = 3) -> float:
    """Return I(H; Y) of a continuous h (N,) or (N, d) and discrete labels y (N,) by nearest neighbours.

        ψ(N) + ψ(k) − (1/N) Σ_n [ψ(N_y) + ψ(m_n)]

    N_y counts the examples of n's label and m_n all within the distance to the k-th neighbour of that label. A label
    with k or fewer others takes as many as it has; examples that are alone with their label are left out.
    Source: Ross 2014, equation 6.
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    h, labels = _rows("h", h), _values("y", y)
    if len(labels) != len(h):
        raise ValueError(f"y: expected {len(h)} labels, as many as in h, got {len(labels)}")
    k = checks.integer("k", k, 1)
    sizes = np.bincount(labels)
    together = sizes[labels] > 1
    h, labels = h[together], labels[together]
    if not len(h):
        raise ValueError("y: expected a label that more than one example has")
    distance, used = np.empty(len(h)), np.empty(len(h), int)
    for label in np.unique(labels):
        own = labels == label
        used[own] = min(k, own.sum() - 1)
        distance[own] = cKDTree(h[own]).query(h[own], int(used[own][0]) + 1, p=np.inf)[0][:, -1] * _INSIDE
    within = cKDTree(h).query_ball_point(h, distance, p=np.inf, return_length=True)
    each = digamma(used) - digamma(sizes[labels]) - digamma(within)
    return float(digamma(len(h)) + each.mean())


def gaussian(h: np.ndarray, y: np.ndarray, sigma: float = 0.0) -> float:
    """Return I of T = h + σε and labels y as though T, and T given each label, were Gaussian; h (N,) or (N, d).

        ½ ln det(C + σ²I) − Σ_y p(y) ½ ln det(C_y + σ²I)

    with covariances that divide by N. T is a mixture, not a Gaussian, so that this is biased however large N is.
    ValueError where a covariance is singular.
    """
    h, labels = _rows("h", h), _values("y", y)
    if len(labels) != len(h):
        raise ValueError(f"y: expected {len(h)} labels, as many as in h, got {len(labels)}")
    sigma = checks.number("sigma", sigma, 0)

    def half_log_det(v: np.ndarray) -> float:
        sign, value = np.linalg.slogdet(np.cov(v.T, bias=True).reshape(h.shape[1], -1) + sigma**2 * np.eye(h.shape[1]))
        if sign <= 0:
            raise ValueError("h: expected activations that vary within every label, or sigma > 0")
        return 0.5 * float(value)

    shares = [(np.mean(labels == label), half_log_det(h[labels == label])) for label in range(labels.max() + 1)]
    return half_log_det(h) - float(sum(share * value for share, value in shares))


def entropy_bounds(h: np.ndarray, sigma: float, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Return a lower and an upper bound of the entropy of T = h + σε, from distances of pairs of inputs; h (N, d).

        d/2 ln(2πeσ²) − Σ_n p_n ln Σ_m p_m exp(−‖h_n − h_m‖² / (a σ²)),    a = 8 (lower), a = 2 (upper)

    Less (d/2) ln(2πeσ²) they bound I(T; X). No bound on I(T; Y) follows, which is a difference of such entropies.
    Source: Kolchinsky and Tracey 2017, section 3: Bhattacharyya's distance below, Kullback and Leibler's above.
    """
    h = _rows("h", h)
    if not checks.number("sigma", sigma, 0) > 0:
        raise ValueError("sigma: expected a number > 0, got 0")
    p = _weights(weights, len(h))
    h, p = h[p > 0], p[p > 0]
    squared = ((h[:, None] - h) ** 2).sum(axis=2) / sigma**2
    noise = 0.5 * h.shape[1] * np.log(2 * np.pi * np.e * sigma**2)
    lower, upper = (noise - float(p @ np.log(np.exp(-squared / a) @ p)) for a in (8, 2))
    return lower, upper


def _sample(name: str, h: np.ndarray) -> np.ndarray:
    h = checks.array(name, h, (None,))
    if not len(h):
        raise ValueError(f"{name}: expected at least one value")
    return h


def _rows(name: str, h: np.ndarray) -> np.ndarray:
    h = checks.array(name, h)
    h = h.reshape(-1, 1) if h.ndim == 1 else h
    if h.ndim != 2 or len(h) < 2:
        raise ValueError(f"{name}: expected at least two rows, shape (N,) or (N, d), got {checks.describe(h)}")
    return h.astype(np.float64)
