"""Piecewise-linear networks: until the first unit flips, the outputs move on a straight line.

While z_nb changes by t within [low_nb, high_nb], no unit behind it, nor unit b itself, changes its side, and the
outputs are z_n + t V_nb with V_nb = ∂z_n/∂z_nb. The loss on that line is analytic in t, everywhere, so that the sum
over examples is that of `polynomials`; the few weights whose removal leaves the region are computed again, and what
the line said of them is taken out.
"""

from __future__ import annotations

import numpy as np

from minimal_nn.layers import BatchNorm, Linear, ReLU
from pruning.exact.suffix import Piece, Suffix


class Region:
    """The linear region around each example, along each of some output units of Linear layer i."""

    def __init__(self, suffix: Suffix, units: range) -> None:
        """Push ∂z_b = 1 through the layers behind, and see where the first unit flips."""
        piece, k, at = suffix.piece, suffix.k, slice(units.start, units.stop)
        self.suffix, self.units = suffix, units
        shape = len(units), len(suffix.z)
        self.low, self.high = np.full(shape, -np.inf), np.full(shape, np.inf)
        slope = np.ones(shape, suffix.z.dtype)
        for i in range(suffix.i + 1, k):
            self._narrow(i, piece.trace[i][:, at].T[..., None], slope[..., None])
            slope = slope * _slope(piece, i)[:, at].T
        if k == len(piece.p):
            J = np.zeros((*shape, suffix.h.shape[1]), slope.dtype)
            J[np.arange(len(units)), :, np.arange(units.start, units.stop)] = slope
        else:
            J = slope[..., None] * piece.p[k]["weight"][at, None]
        for i in range(k + 1, len(piece.p)):
            if isinstance(piece.L.network.layers[i], Linear):
                J = J @ piece.p[i]["weight"]
            else:
                self._narrow(i, piece.trace[i][None], J)
                J = J * _slope(piece, i)
        self.V = J  # (units, n, C)

    def _narrow(self, i: int, z: np.ndarray, J: np.ndarray) -> None:
        """Narrow the regions to where ReLU i sees none of z (units or 1, n, c) change sign along J (units, n, c)."""
        if not isinstance(self.suffix.piece.L.network.layers[i], ReLU):
            return
        for u, J_u in enumerate(J):
            z_u = z[u % len(z)]
            with np.errstate(divide="ignore", invalid="ignore"):
                t = z_u / -J_u
            t[J_u == 0] = np.inf
            self.high[u] = np.minimum(self.high[u], np.where(t >= 0, t, np.inf).min(axis=1))
            self.low[u] = np.maximum(self.low[u], np.where(t <= 0, t, -np.inf).max(axis=1))

    def along(self, b: int, n: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Return ℓ′ − ℓ (E,) of examples n when the outputs of each move by t (E,) along V_nb."""
        piece = self.suffix.piece
        z = piece.trace[-1][n] + t[:, None] * self.V[b - self.units.start, n]
        return piece.L.loss.value(z, piece.y[n]) - piece.losses[n]

    def outside(self, b: int, x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a, n and t = −x_na w_a (each (E,)) of the removals from w (a,) that leave the region."""
        low, high = self.low[b - self.units.start], self.high[b - self.units.start]
        r = np.abs(x).max(axis=1) * np.abs(w).max()
        rows = np.flatnonzero((-r < low) | (r > high))
        t = -x[rows] * w
        n, a = np.nonzero((t < low[rows, None]) | (t > high[rows, None]))
        return a, rows[n], t[n, a]


def _slope(piece: Piece, i: int) -> np.ndarray:
    """Return ∂y/∂x (n, c), or (1, c), of an elementwise layer: an activation or BatchNorm."""
    layer = piece.L.network.layers[i]
    if isinstance(layer, BatchNorm):
        slope = piece.p[i]["gamma"] / np.sqrt(np.asarray(layer.variance) + layer.epsilon)
        return slope.astype(piece.losses.dtype)[None]
    return layer.derivative(piece.trace[i], piece.trace[i + 1])  # type: ignore[attr-defined]
