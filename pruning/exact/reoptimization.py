"""The rise of the loss after weights are removed and the remaining ones re-optimised, from stated starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.hessians import hessian
from minimal_nn.curvature.inverses import inverse
from minimal_nn.objective import Objective
from minimal_nn.optimizers import Minimum, stationary


@dataclass(frozen=True)
class Reoptimized:
    """The best of all starts: how much the loss rose, where (P,), how stationary it is there, and all `results`.

    `gradient_norm` is max |∂L/∂w_j| over the weights that are left; `converged` tells whether it is as small as asked.
    """

    rise: float
    w: np.ndarray
    gradient_norm: float
    converged: bool
    start: str
    results: dict[str, Minimum]


def reoptimized(
    L: Objective,
    w: np.ndarray,
    indices: int | Sequence[int] | np.ndarray,
    starts: Mapping[str, np.ndarray] | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 10_000,
) -> Reoptimized:
    """Return the least L found with the weights S = `indices` (one or several) at 0, minus L(w), in the units of L.

        min over w′, w′_S = 0, of L(w′) − L(w), local: where descent from each start leads

    A negative rise is reported as it is: w was no minimum, or its removed weights held the others in a poor one. The
    starts are "removed", w with w_S = 0, and, where H is positive definite, "compensated", OBS's minimum of the
    quadratic model, w − H⁻¹E_S ([H⁻¹]_SS)⁻¹ w_S; or the `starts` (P,) given by name, whose entries in S are set to 0.
    From each, L-BFGS descends, and Newton steps follow where H is positive definite. A point counts as stationary at
    max |∂L/∂w_j| over the rest <= tolerance times the larger of max |g_j| over all j and L / max |w_j| (L if w = 0),
    both at w with w_S = 0; elsewhere (max_steps reached, a kink of ReLU, a loss without a minimum) `converged`
    is False. A stationary start is its own result, even a saddle. H is formed: for small networks.

    Source: for one weight at a quadratic minimum the rise is w_j² / (2 [H⁻¹]_jj), Hassibi and Stork 1993, equation 5.

    >>> from minimal_nn import Linear, Network, SquaredError
    >>> L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), np.array([[1.0, 0], [1, 1]]), np.ones((2, 1)))
    >>> found = reoptimized(L, np.array([0.0, 1.0]), 1)
    >>> print(found.rise, found.w, found.results["removed"].converged)
    -0.25 [1. 0.] True
    """
    w = checks.array("w", w, (L.n_parameters,))
    free = np.ones(len(w), bool)
    free[_checked_indices(indices, len(w))] = False
    tolerance, max_steps = checks.number("tolerance", tolerance, 0), checks.integer("max_steps", max_steps, 0)
    points = _starts(L, w, free) if starts is None else _checked_starts(starts, w)
    size = _gradient_size(L, w * free)
    results = {
        name: stationary(L, start, mask=free, tolerance=tolerance * size, max_steps=max_steps)
        for name, start in points.items()
    }
    best = min(results, key=lambda name: results[name].value)
    end = results[best]
    return Reoptimized(end.value - float(L(w)), end.w, end.gradient_norm, end.converged, best, results)


def _checked_indices(indices: int | Sequence[int] | np.ndarray, P: int) -> list[int]:
    if isinstance(indices, (int, np.integer)):
        return [checks.integer("indices", indices, 0, P - 1)]
    given = np.asarray(indices)
    given = checks.array("indices", given if given.size else given.astype(np.intp), (None,), kinds="iu")
    chosen = [checks.integer("indices", j, 0, P - 1) for j in given.tolist()]
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"indices: expected at least one weight and none twice, got {checks.describe(chosen)}")
    return chosen


def _checked_starts(starts: Mapping[str, np.ndarray], w: np.ndarray) -> dict[str, np.ndarray]:
    if not isinstance(starts, Mapping) or not starts:
        raise ValueError(f"starts: expected a mapping of at least one name to w (P,), got {checks.describe(starts)}")
    return {name: checks.array(f"starts[{name!r}]", start, w.shape) for name, start in starts.items()}


def _starts(L: Objective, w: np.ndarray, free: np.ndarray) -> dict[str, np.ndarray]:
    try:
        columns = inverse(hessian(L, w))[:, ~free]
    except ValueError:
        return {"removed": w}
    return {"removed": w, "compensated": w - columns @ np.linalg.solve(columns[~free], w[~free])}


def _gradient_size(L: Objective, w: np.ndarray) -> float:
    value, g = L.value_and_gradient(w)
    largest = np.abs(w).max(initial=0)
    return float(max(np.abs(g).max(), value / (largest or 1)))
