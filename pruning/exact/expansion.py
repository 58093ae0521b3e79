"""The Taylor expansion of the exact saliency along each weight: how much of it the first and second order explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.hessians import hessian_diagonal
from minimal_nn.objective import Objective
from pruning.exact.structured import saliency


@dataclass(frozen=True)
class TaylorTerms:
    """The exact saliency s (P,), its terms of first and second order (P,) and the remainder (P,) of all higher ones."""

    saliency: np.ndarray
    first: np.ndarray
    second: np.ndarray
    remainder: np.ndarray

    def explained(self, order: int, among: np.ndarray | None = None) -> float:
        """Return how much of s its expansion t up to order 1 or 2 explains over the entries `among` (P,), all if None.

            1 − Σ_j (s_j − t_j)² / Σ_j (s_j − s̄)²

        The coefficient of determination of t as it stands: 1 where t = s, 0 where t is no better than the mean s̄ for
        every weight, negative where it is worse. 1 − Var(s − t)/Var(s) would forgive t a constant error, a correlation
        a wrong scale too; and shares of single terms do not add up, since terms correlate. It weighs squared errors, so
        that the weights with the largest |s| decide. Raises ValueError where s is constant over the entries.
        """
        order = checks.integer("order", order, 1, 2)
        shape = self.saliency.shape
        here = np.ones(shape, bool) if among is None else checks.array("among", among, shape, kinds="b")
        s = self.saliency[here].astype(np.float64)
        if not len(s) or (s == s[0]).all():
            raise ValueError(f"among: expected entries of at least two different saliencies, got {len(s)} equal ones")
        missed = self.remainder if order == 2 else self.second + self.remainder
        return float(1 - (missed[here].astype(np.float64) ** 2).sum() / ((s - s.mean()) ** 2).sum())


def taylor_terms(L: Objective, w: np.ndarray) -> TaylorTerms:
    """Return the terms of s_j = L((1 − e_j) ∘ w) − L(w) in the change −w_j of one weight, each (P,), in the units of L.

        s_j = −g_j w_j + ½ H_jj w_j² + r_j,        r_j = −(1/6) ∂³L/∂w_j³ w_j³ + O(w_j⁴)

    g, H and s all contain the penalty, which ends with the second order. The remainder is the difference, so that it
    has the rounding of s: about ε |L(w)|. Beyond a kink of ReLU or a change of the maximum in a pooling it is no
    higher-order term, but whatever the parabola does not see. For many weights removed together the terms off the
    diagonal, H_jk w_j w_k, come in. Source: LeCun, Denker and Solla 1990, equation 1.

    >>> from minimal_nn import Linear, Network, SquaredError
    >>> x = np.array([[1.0, 0], [1, 1], [2, 1], [0, 1]])
    >>> L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), x, x @ [[1.0], [2]])
    >>> terms = taylor_terms(L, np.array([2.0, 1]))
    >>> print(terms.saliency, terms.second, terms.remainder)
    [1.5   0.375] [3.    0.375] [0. 0.]
    """
    w = checks.array("w", w, (L.n_parameters,))
    first, second, s = -L.gradient(w) * w, 0.5 * hessian_diagonal(L, w) * w**2, saliency(L, w)
    return TaylorTerms(s, first, second, s - first - second)
