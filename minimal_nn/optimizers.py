"""Optimisers: first-order rules for the training loop, and minimisers that go all the way to a stationary point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.hessians import hessian
from minimal_nn.objective import Objective


@dataclass(frozen=True)
class Optimizer:
    """A first-order rule as two pure functions: `start(w) -> state` and `step(w, g, state) -> (w, state)`."""

    name: str
    start: Callable[[np.ndarray], Any]
    step: Callable[[np.ndarray, np.ndarray, Any], tuple[np.ndarray, Any]]


def sgd(learning_rate: float) -> Optimizer:
    """Gradient descent: w ← w − η g."""
    rate = checks.number("learning_rate", learning_rate, 0)

    def step(w: np.ndarray, g: np.ndarray, state: None) -> tuple[np.ndarray, None]:
        move = rate * g
        return np.subtract(w, move, out=move), state

    return Optimizer("sgd", start=lambda w: None, step=step)


def momentum(learning_rate: float, decay: float = 0.9) -> Optimizer:
    """Heavy ball: u ← μ u + g, w ← w − η u. Source: Polyak 1964, in the form used by torch.optim.SGD."""
    rate, mu = checks.number("learning_rate", learning_rate, 0), checks.number("decay", decay, 0, 1)

    def step(w: np.ndarray, g: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = mu * u + g
        return w - rate * u, u

    return Optimizer("momentum", np.zeros_like, step)


def adam(learning_rate: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam: m ← β₁m + (1−β₁)g, u ← β₂u + (1−β₂)g², w ← w − η m̂ / (√û + ε), m̂ = m/(1−β₁ᵗ), û = u/(1−β₂ᵗ).

    Source: Kingma and Ba 2015, algorithm 1.
    """
    rate = checks.number("learning_rate", learning_rate, 0)
    below_one = float(np.nextafter(1, 0))
    b1, b2 = checks.number("beta1", beta1, 0, below_one), checks.number("beta2", beta2, 0, below_one)
    epsilon = checks.number("epsilon", epsilon, 0)

    def step(w: np.ndarray, g: np.ndarray, state: tuple) -> tuple[np.ndarray, tuple]:
        t, m, u = state
        t, m, u = t + 1, b1 * m + (1 - b1) * g, b2 * u + (1 - b2) * g**2
        return w - rate * (m / (1 - b1**t)) / (np.sqrt(u / (1 - b2**t)) + epsilon), (t, m, u)

    return Optimizer("adam", lambda w: (0, np.zeros_like(w), np.zeros_like(w)), step)


@dataclass(frozen=True)
class Minimum:
    """Where a minimiser stopped: w (P,), L(w), max |∂L/∂w_j| over the free weights, steps, and whether it converged."""

    w: np.ndarray
    value: float
    gradient_norm: float
    steps: int
    converged: bool


def lbfgs(
    L: Objective, w: np.ndarray, *, mask: np.ndarray | None = None, tolerance: float = 1e-7, max_steps: int = 10_000
) -> Minimum:
    """Minimise L by L-BFGS (scipy, 20 stored pairs) until max |g_j| <= tolerance.

    A line search cannot see decreases below rounding, so that |g| stops falling near 1e-8; `newton` gets the last
    digits. `mask` (P,) bool keeps the weights outside it at zero.
    """
    tolerance, max_steps = _limits(tolerance, max_steps)
    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
    return _scipy_minimize(L, w, mask, tolerance, method="L-BFGS-B", options=options)


def newton_cg(
    L: Objective, w: np.ndarray, *, mask: np.ndarray | None = None, tolerance: float = 1e-7, max_steps: int = 200
) -> Minimum:
    """Minimise L by Newton steps whose systems are solved by conjugate gradients on exact products H v (scipy).

    Far fewer passes than `lbfgs` on badly conditioned objectives; the same limit of about 1e-8 for |g|.
    `mask` (P,) bool keeps the weights outside it at zero.
    """
    tolerance, max_steps = _limits(tolerance, max_steps)
    options = {"maxiter": max_steps, "xtol": 0.0}  # scipy's own test is on the step, ours on the gradient
    return _scipy_minimize(L, w, mask, tolerance, with_products=True, method="Newton-CG", options=options)


def newton(
    L: Objective, w: np.ndarray, *, mask: np.ndarray | None = None, tolerance: float = 1e-13, max_steps: int = 50
) -> Minimum:
    """Polish a point near a minimum to the last digits: full Newton steps with the exact Hessian and no line search.

    Stops at max |g_j| <= tolerance or when a step no longer lowers it, and returns the best point. Raises
    ValueError where the Hessian is not positive definite: start nearer to the minimum, for instance from `lbfgs`.
    """
    from scipy.linalg import cho_factor, cho_solve

    tolerance, max_steps = _limits(tolerance, max_steps)
    w, free = _start(L, w, mask)
    g, steps = L.gradient(w)[free], 0
    while np.abs(g).max(initial=0) > tolerance and steps < max_steps:
        try:
            factor = cho_factor(hessian(L, w)[np.ix_(free, free)])
        except np.linalg.LinAlgError:
            remedy = "start nearer to the minimum or use l2 > 0"
            raise ValueError(f"w: the Hessian is not positive definite here; {remedy}") from None
        trial = w.copy()
        trial[free] -= cho_solve(factor, g)
        g_trial = L.gradient(trial)[free]
        if not np.abs(g_trial).max() < np.abs(g).max():
            break
        w, g, steps = trial, g_trial, steps + 1
    return _minimum(L, w, free, steps, tolerance)


def stationary(
    L: Objective, w: np.ndarray, *, mask: np.ndarray | None = None, tolerance: float = 1e-10, max_steps: int = 10_000
) -> Minimum:
    """Descend to a stationary point: `lbfgs` as far as its line search sees, then `newton` for the last digits.

    Where H is not positive definite, or Newton's steps lead uphill, it is the point of L-BFGS that is returned; only
    `converged` tells whether max |g_j| <= tolerance was reached there. `mask` (P,) bool keeps the weights outside it
    at zero.
    """
    tolerance, max_steps = _limits(tolerance, max_steps)
    w, free = _start(L, w, mask)
    if not len(free):
        return _minimum(L, w, free, 0, tolerance)
    rough = lbfgs(L, w, mask=mask, tolerance=tolerance, max_steps=max_steps)
    try:
        fine = newton(L, rough.w, mask=mask, tolerance=1e-3 * tolerance, max_steps=max_steps)
    except ValueError:
        return rough
    higher = fine.value - rough.value > 1e-12 * abs(rough.value)  # beyond rounding
    if higher or fine.gradient_norm > rough.gradient_norm:
        return rough
    return replace(fine, steps=rough.steps + fine.steps, converged=fine.gradient_norm <= tolerance)


def _scipy_minimize(
    L: Objective, w: np.ndarray, mask: np.ndarray | None, tolerance: float, with_products: bool = False, **how: Any
) -> Minimum:
    """Run scipy.optimize.minimize over the free weights with our gradient (and our H v); scipy computes in float64."""
    from scipy.optimize import minimize

    w, free = _start(L, w, mask)
    if not how["options"]["maxiter"]:  # scipy's L-BFGS-B takes a step all the same
        return _minimum(L, w, free, 0, tolerance)

    def whole(part: np.ndarray) -> np.ndarray:
        full = np.zeros_like(w)
        full[free] = part
        return full

    def value_and_gradient(part: np.ndarray) -> tuple[float, np.ndarray]:
        value, g = L.value_and_gradient(whole(part))
        return float(value), g[free].astype(np.float64, copy=False)

    def stop_where_converged(part: np.ndarray) -> None:
        if np.abs(value_and_gradient(part)[1]).max() <= tolerance:
            raise StopIteration

    if with_products:
        how["hessp"] = lambda part, v: L.hvp(whole(part), whole(v))[free]
        how["callback"] = stop_where_converged
    found = minimize(value_and_gradient, w[free], jac=True, **how)
    return _minimum(L, whole(found.x), free, found.nit, tolerance)


def _limits(tolerance: float, max_steps: int) -> tuple[float, int]:
    return checks.number("tolerance", tolerance, 0), checks.integer("max_steps", max_steps, 0)


def _start(L: Objective, w: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the masked start and the indices of the free weights."""
    w = checks.array("w", w, (L.n_parameters,))
    keep = np.ones(len(w), bool) if mask is None else checks.array("mask", mask, w.shape, kinds="b")
    return w * keep, np.flatnonzero(keep)


def _minimum(L: Objective, w: np.ndarray, free: np.ndarray, steps: int, tolerance: float) -> Minimum:
    value, g = L.value_and_gradient(w)
    gradient_norm = float(np.abs(g[free]).max(initial=0))
    return Minimum(w, float(value), gradient_norm, int(steps), gradient_norm <= tolerance)
