"""The terms of a Hessian that arise while Jacobians are carried through a network, and how each adds itself.

Jacobians are arrays (channel, parameter, positions..., example). A term adds itself to the upper triangle of the
matrix, couplings of an earlier parameter with a later one, or its diagonal to a vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn.curvature.block_sums import add_own


@dataclass
class Old:
    """The Jacobian (c, K, ..., n) of a layer's output in the parameters w[at] of all products but the last."""

    J: np.ndarray
    at: np.ndarray  # (K,)


@dataclass
class Own:
    """The Jacobian of a layer's output in the parameters of the last product: channel o depends on w[index[:, o]].

    It is slope[o] J[o], of shape (q, ..., n); a J of one channel stands for the same one in all.
    """

    J: np.ndarray  # (o, q, ..., n) or (1, q, ..., n)
    slope: np.ndarray  # (o, ..., n)
    index: np.ndarray  # (q, o)

    def jacobian(self) -> np.ndarray:
        """Return it with the slopes multiplied in (o, q, ..., n)."""
        return self.J * self.slope[:, None]


@dataclass
class ActivationTerm:
    """Σ ∂x/∂wᵀ diag(weight) ∂x/∂w for x with the Jacobians `old` and `own`, and weight (c, ..., n) = φ″(x) ∘ ȳ / N."""

    weight: np.ndarray
    old: Old | None
    own: Own | None

    def add_to(self, H: np.ndarray) -> None:
        """Add to the upper triangle of H."""
        for c, weight in enumerate(self.weight.reshape(len(self.weight), -1)):
            if self.old is not None:
                old = _flat(self.old.J[c])
                H[np.ix_(self.old.at, self.old.at)] += (old * weight) @ old.T
            if self.own is not None:
                own = _flat(self.own.J[c if len(self.own.J) > 1 else 0]) * self.own.slope[c].ravel()
                index, weighted = self.own.index[:, c], own * weight
                H[np.ix_(index, index)] += weighted @ own.T
                if self.old is not None:
                    H[np.ix_(self.old.at, index)] += old @ weighted.T

    def add_to_diagonal(self, h: np.ndarray) -> None:
        """Add the diagonal to h."""
        for c, weight in enumerate(self.weight.reshape(len(self.weight), -1)):
            if self.old is not None:
                h[self.old.at] += _flat(self.old.J[c]) ** 2 @ weight
            if self.own is not None:
                own = _flat(self.own.J[c if len(self.own.J) > 1 else 0])
                h[self.own.index[:, c]] += own**2 @ (self.own.slope[c].ravel() ** 2 * weight)


@dataclass
class ProductTerm:
    """Σ ∂x_q/∂w_k ȳ_o between the parameters k before a product and its weights, from input q to output o.

    rows (c, r, K, m) are the Jacobians of the product's inputs, q = (c, r), over m positions and examples, bars
    (o, m) the adjoints of its outputs over N. `at` (K,), or (K, c) where each c has parameters of its own, and
    `index` (q, o) say where they stand in w.
    """

    rows: np.ndarray
    bars: np.ndarray
    at: np.ndarray
    index: np.ndarray

    def add_to(self, H: np.ndarray) -> None:
        """Add to the upper triangle of H."""
        c, r, K, m = self.rows.shape
        cross = (self.rows.reshape(-1, m) @ self.bars.T).reshape(c, r, K, -1).swapaxes(1, 2)  # (c, K, r, o)
        if self.at.ndim == 1:
            H[np.ix_(self.at, self.index[: c * r].ravel())] += cross.swapaxes(0, 1).reshape(K, -1)
            return
        for channel, block in enumerate(cross):
            weights = self.index[channel * r : (channel + 1) * r].ravel()
            H[np.ix_(self.at[:, channel], weights)] += block.reshape(K, -1)

    def add_to_diagonal(self, h: np.ndarray) -> None:
        """Add nothing: no parameter meets itself here."""


@dataclass
class LossTerm:
    """Σ_n J_nᵀ K_n J_n for the output Hessians K (n, C, C) = ∂²ℓ/∂z² / N and J = (old, own)."""

    curvature: np.ndarray
    old: Old | None
    own: Own | None  # of a Linear layer; None where the last product is another

    def add_to(self, H: np.ndarray) -> None:
        """Add to the upper triangle of H."""
        n, C, _ = self.curvature.shape
        if self.own is not None:
            x, s = self.own.J[0], self.own.slope
            first, stop = self.own.index.min(), self.own.index.max() + 1
            block = H[first:stop, first:stop].reshape(len(x), C, len(x), C)
            add_own(block, x, np.ascontiguousarray(np.moveaxis(self.curvature, 0, -1)) * s * s[:, None])
        if self.old is not None:
            J = self._old_jacobian()
            pushed = self.curvature @ J
            K = J.shape[2]
            H[np.ix_(self.old.at, self.old.at)] += pushed.reshape(-1, K).T @ J.reshape(-1, K)
            if self.own is not None:
                cross = x @ (pushed * s.T[:, :, None]).reshape(n, -1)  # (q, C K)
                H[self.old.at, first:stop] += cross.reshape(-1, C, K).transpose(2, 0, 1).reshape(K, -1)

    def add_to_diagonal(self, h: np.ndarray) -> None:
        """Add the diagonal to h."""
        if self.own is not None:
            x, s = self.own.J[0], self.own.slope
            h[self.own.index] += x**2 @ (np.einsum("ncc->nc", self.curvature) * s.T**2)
        if self.old is not None:
            J = self._old_jacobian()
            h[self.old.at] += np.einsum("nck,nck->k", self.curvature @ J, J)

    def _old_jacobian(self) -> np.ndarray:
        """Return ∂z/∂w[at] (n, C, K)."""
        assert self.old is not None
        n, C, _ = self.curvature.shape
        J = np.moveaxis(self.old.J, (-1, 1), (0, -1))
        return J.reshape(n, C, -1)


def _flat(J: np.ndarray) -> np.ndarray:
    """Return J (K, ..., n) as a matrix (K, positions · n)."""
    return J.reshape(len(J), -1)
