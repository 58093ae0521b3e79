"""All incoming weights of a unit at once: the loss of an example is a function of the one number by which z_b changes.

Removing weight (a, b) of a Linear layer changes z_nb by t = −x_na w_ab. Where f_nb(t) = ℓ_n(z_nb + t) − ℓ_n is
analytic, a polynomial of low degree equals it to rounding on |t| <= r_nb = max_a|x_na| · max_a|w_ab|, and since t is
a product,

    Σ_n f_nb(−x_na w_ab) = Σ_k (−w_ab)^k Σ_n x_na^k c_nbk        f_nb(t) = Σ_k c_nbk t^k,  k = 1, 2, ...

takes one matrix product for each power instead of a network for each weight. f is interpolated in Chebyshev points
(r cos(πj/d), among them t = 0, where f is 0); whether the degree d is enough is read off the last Chebyshev
coefficients, and a higher one is tried, and at last none, where it is not;
a sample of removals is computed by f itself, and has to agree.

Source: Trefethen 2013, chapters 2 to 8 (interpolation in Chebyshev points, decay of the coefficients).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

DEGREES = 8, 10, 12, 14, 16  #: even, so that 0 is among the points; monomials of a higher degree lose digits
TAIL = 1e-13  #: what the mean of the last two coefficients may be, relative to the scale of the losses
PROBE = 64  #: examples on which a degree is tried before it is on all

#: (b, n, t (K, n)) -> ℓ′ − ℓ (K, n) when z_b of examples n changes by t
Function = Callable[[int, np.ndarray, np.ndarray], np.ndarray]


def sums(
    x: np.ndarray, weight: np.ndarray, units: range, f: Function, scale: float, omega: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return Σ_n ω_mn f_nb(−x_na w_ab) as (M, a, units), and which units (bool) have it.

    x (n, a) are the layer's inputs, weight (a, b) its weights, omega (M, n) weights of the examples. `scale` is what
    the error is measured against. The columns of units for which no degree was enough are 0.
    """
    total = np.zeros((len(omega), len(weight), len(units)), x.dtype)
    largest_x, largest_w = np.abs(x).max(axis=1), np.abs(weight).max(axis=0)
    found: list[np.ndarray | None] = []
    for b in units:
        c = _coefficients(f, b, largest_x * largest_w[b], scale)
        found.append(c if c is not None and _holds(c, f, b, x, weight[:, b], scale) else None)
    scaled_x = x / np.where(largest_x > 0, largest_x, 1)[:, None]
    scaled_w = -weight / np.where(largest_w > 0, largest_w, 1)
    for d in DEGREES:
        now = [u for u, c in enumerate(found) if c is not None and len(c) == d]
        if now:
            c = np.stack([found[u] for u in now], axis=1)  # type: ignore[misc]
            total[:, :, now] = _evaluate(scaled_x, scaled_w[:, [units[u] for u in now]], c, omega)
    return total, np.array([c is not None for c in found])


def _coefficients(f: Function, b: int, r: np.ndarray, scale: float) -> np.ndarray | None:
    """Return c (d, n) of f_nb(r τ) = Σ_k c_k τ^k, k = 1..d, on −1 <= τ <= 1; None where no degree d is enough."""
    everyone = np.arange(len(r))
    some = everyone[:: max(1, len(r) // PROBE)]
    for d in DEGREES:
        points, to_chebyshev, to_powers = _basis(d)
        for n in (some, everyone):
            values = f(b, n, points[:, None].astype(r.dtype) * r[n])
            tail = np.abs(to_chebyshev[-2:] @ values).sum(axis=0).mean()
            if tail > max(TAIL, 10 * float(np.finfo(r.dtype).eps)) * max(scale, np.abs(values).mean(axis=1).max()):
                break
        else:
            return (to_powers @ values).astype(r.dtype, copy=False)
    return None


def _holds(c: np.ndarray, f: Function, b: int, x: np.ndarray, w: np.ndarray, scale: float) -> bool:
    """Whether the polynomials give what f gives for a sample of removals: a narrow dip between the points shows there.

    The sample is of weights at ranks 1, 2, 3, 5, 9, ... by size, and of PROBE examples.
    """
    n = np.arange(len(x))[:: max(1, len(x) // PROBE)]
    ranks = np.unique(np.append(0, 2 ** np.arange(len(w).bit_length())).clip(max=len(w) - 1))
    a = np.argsort(-np.abs(w), kind="stable")[ranks]
    r = np.abs(x[n]).max(axis=1) * np.abs(w).max()
    t = -x[n][:, a].T * w[a, None]
    tau = t / np.where(r > 0, r, 1)
    polynomial = np.zeros_like(t)
    for c_k in c[::-1]:
        polynomial = (polynomial + c_k[n]) * tau
    values = f(b, n, t)
    tolerance = max(10 * TAIL, 100 * float(np.finfo(t.dtype).eps)) * max(scale, np.abs(values).mean(axis=1).max())
    return bool(np.abs(polynomial - values).mean(axis=1).max() <= tolerance)


def _evaluate(x: np.ndarray, w: np.ndarray, c: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """Return Σ_k w_ab^k Σ_n ω_mn x_na^k c_kbn as (M, a, b)."""
    total = np.zeros((len(omega), *w.shape), x.dtype)
    x_k, w_k = np.ones_like(x), np.ones_like(w)
    for c_k in c:
        x_k, w_k = x_k * x, w_k * w
        for m, weights in enumerate(omega):
            total[m] += w_k * (x_k.T @ (c_k * weights).T)
    return total


@cache
def _basis(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the Chebyshev points of degree d but 0 (d,), and the matrices from values there to both coefficients.

    The value at 0 is 0. Rows are Chebyshev coefficients 0..d, and powers 1..d.
    """
    nodes = np.cos(np.pi * np.arange(d + 1) / d)
    keep = np.arange(d + 1) != d // 2
    nodes[~keep] = 0
    to_chebyshev = np.linalg.inv(np.polynomial.chebyshev.chebvander(nodes, d))
    powers = np.zeros((d + 1, d + 1))
    for k in range(d + 1):
        powers[: k + 1, k] = np.polynomial.chebyshev.cheb2poly(np.eye(d + 1)[k])[: k + 1]
    return nodes[keep], to_chebyshev[:, keep], (powers @ to_chebyshev)[1:, keep]
