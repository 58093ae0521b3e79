"""Mutual information of a unit with noise, T = h(X) + σε, ε standard normal: exact by quadrature. In nats.

h is a function of X. Without noise a unit whose activations are all different says everything that X does, so that
I(h; Y) = H(Y) whatever it computes; with noise the question has an answer, which depends on σ. T is a mixture of
Gaussians, one for each input, and its entropy an integral over a line, or a plane for two units. The trapezoid rule
converges faster than any power of its step there: at σ/4 it has converged.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import checks, memory
from pruning.criteria.information.discrete import _values, _weights

#: standard deviations between two nodes, and from the outermost means to the ends
_STEP, _TAIL = 0.25, 9.0
#: nodes that a line or a plane may have, which bounds σ by the range of h
_MOST_NODES = 20_000_000
#: σ as a share of max |h|, below which the rounding of h is no longer small beside the noise
_LEAST_SHARE = 1e-12


def entropy(h: np.ndarray, sigma: float, weights: np.ndarray | None = None) -> float:
    """Return the differential entropy of T = h + σε in nats, for h (N,), or (N, 2) with independent noise on both.

        h(T) = −∫ p(t) ln p(t) dt,    p(t) = Σ_n weight_n N(t; h_n, σ²)

    It may be negative. Accuracy 1e-10 for one unit, and for two from σ = 0.03 of their range on. ValueError where the
    grid would be larger than 20 million nodes.
    """
    h, sigma, p = _checked(h, sigma, weights)
    if h.shape[1] == 1:
        return _on_a_line(h[:, 0], sigma, p)
    return _on_a_plane(h, sigma, p)


def mutual_information(h: np.ndarray, y: np.ndarray, sigma: float, weights: np.ndarray | None = None) -> float:
    """Return I(T; Y) = h(T) − Σ_y p(y) h(T | Y = y) of T = h + σε with discrete labels y (N,); h (N,) or (N, 2)."""
    h, sigma, p = _checked(h, sigma, weights)
    labels = _values("y", y)
    if len(labels) != len(h):
        raise ValueError(f"y: expected {len(h)} labels, as many as in h, got {len(labels)}")
    within = 0.0
    for label in range(labels.max() + 1):
        own = labels == label
        q = p[own].sum()
        if q > 0:
            within += q * entropy(h[own], sigma, p[own] / q)
    return max(0.0, entropy(h, sigma, p) - within)


def about_input(h: np.ndarray, sigma: float, weights: np.ndarray | None = None) -> float:
    """Return I(T; X) = h(T) − (d/2) ln(2πeσ²), what T = h(X) + σε says of the input itself; h (N,) or (N, 2)."""
    h, sigma, p = _checked(h, sigma, weights)
    return max(0.0, entropy(h, sigma, p) - h.shape[1] * 0.5 * np.log(2 * np.pi * np.e * sigma**2))


def between(h: np.ndarray, sigma: float, weights: np.ndarray | None = None) -> float:
    """Return I(T_1; T_2) of two noisy units, h (N, 2), with independent noise: what one says of the other."""
    h, sigma, p = _checked(h, sigma, weights)
    if h.shape[1] != 2:
        raise ValueError(f"h: expected two units, shape (N, 2), got {checks.describe(h)}")
    return max(0.0, entropy(h[:, 0], sigma, p) + entropy(h[:, 1], sigma, p) - entropy(h, sigma, p))


def _checked(h: np.ndarray, sigma: float, weights: np.ndarray | None) -> tuple[np.ndarray, float, np.ndarray]:
    h = checks.array("h", h)
    h = h.reshape(-1, 1) if h.ndim == 1 else h
    if h.ndim != 2 or not len(h) or h.shape[1] not in (1, 2):
        raise ValueError(f"h: expected shape (N,) or (N, 2), got {checks.describe(h)}")
    if not checks.number("sigma", sigma, 0) > 0:
        raise ValueError("sigma: expected a number > 0, got 0: without noise the information is H(Y) or infinite")
    h = h.astype(np.float64)
    low, high = h.min(axis=0), h.max(axis=0)
    least = max((high - low).max() / (_STEP * _MOST_NODES), _LEAST_SHARE * np.abs(h).max())
    if sigma < least:
        raise ValueError(
            f"sigma: {sigma:g} is too small for activations between {low.min():.3g} and {high.max():.3g}; "
            f"expected at least {least:.3g}"
        )
    return h - (low + (high - low) / 2), float(sigma), _weights(weights, len(h))


def _nodes(h: np.ndarray, sigma: float) -> np.ndarray:
    low, high = h.min() - _TAIL * sigma, h.max() + _TAIL * sigma
    return np.linspace(low, high, int(np.ceil((high - low) / (_STEP * sigma))) + 1)


def _kernel(t: np.ndarray, h: np.ndarray, sigma: float) -> np.ndarray:
    return np.exp(-0.5 * ((t[:, None] - h) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)


def _on_a_line(h: np.ndarray, sigma: float, p: np.ndarray) -> float:
    h, which = np.unique(h, return_inverse=True)
    p = np.bincount(which.ravel(), p)
    t, total = _nodes(h, sigma), 0.0
    for piece in memory.pieces(len(t), 4 * h.nbytes):
        total += _minus_p_log_p(_kernel(t[piece], h, sigma) @ p).sum()
    return float(total * (t[1] - t[0]))


def _on_a_plane(h: np.ndarray, sigma: float, p: np.ndarray) -> float:
    s, t = _nodes(h[:, 0], sigma), _nodes(h[:, 1], sigma)
    if len(s) * len(t) > _MOST_NODES:
        raise ValueError(
            f"sigma: {sigma:g} would take {len(s)} x {len(t)} nodes; expected at most {_MOST_NODES} in all"
        )
    along, total = _kernel(t, h[:, 1], sigma).T * p[:, None], 0.0
    for piece in memory.pieces(len(s), 8 * (3 * len(h) + 3 * len(t))):
        total += _minus_p_log_p(_kernel(s[piece], h[:, 0], sigma) @ along).sum()
    return float(total * (s[1] - s[0]) * (t[1] - t[0]))


def _minus_p_log_p(density: np.ndarray) -> np.ndarray:
    return -density * np.log(np.where(density > 0, density, 1))
