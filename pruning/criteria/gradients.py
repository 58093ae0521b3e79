"""Criteria from the gradient: the first-order term of s_j = −g_j w_j + ½ H_jj w_j² − …

g includes the l2 penalty of the objective, the per-example gradients g_n never do. At a minimum g = 0, and what the
first two score there is rounding noise times w. With g of the data alone they would be λ w_j² at a minimum with l2 = λ,
that is the square of `magnitude`.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import checks, curvature
from minimal_nn.objective import Objective
from pruning.criteria.base import criterion


@criterion("gradients", cost="1", needs=("examples", "labels", "gradients"))
def taylor_signed(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """−g_j w_j: the first-order term of s_j with its sign, negative where removal promises to lower the loss.

    The relevance of Mozer and Smolensky 1989 is its ancestor: the signed derivative in the gate of a unit.
    """
    return -L.gradient(w) * w


@criterion("gradients", cost="1", needs=("examples", "labels", "gradients"))
def taylor(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """|g_j w_j|, with the gradient of the mean loss. Source: Molchanov et al. 2017 (there for feature maps).

    Not to be confused with the mean over examples of |g_nj w_j| or of its square, which are other criteria.
    """
    return np.abs(L.gradient(w) * w)


@criterion("gradients", cost="1, by example", needs=("examples", "labels", "gradients"))
def taylor_squared(L: Objective, w: np.ndarray, active: np.ndarray) -> np.ndarray:
    """(1/N) Σ_n (g_nj w_j)², twice `fisher_empirical`. Source: Molchanov et al. 2019, equation 8, for single weights.

    A mean over examples of squares. Implementations that square the gradient of a batch compute another score, which
    depends on how the examples are cut into batches and vanishes at a minimum for the whole data in one batch.
    """
    return curvature.fisher_diagonal(L, w, kind="empirical") * w**2


@criterion("history", cost="one step of training each", needs=("examples", "labels", "gradients", "history"))
def movement(
    L: Objective,
    w: np.ndarray,
    active: np.ndarray,
    *,
    trajectory: np.ndarray,
    gradients: np.ndarray | None = None,
) -> np.ndarray:
    """−Σ_t w_tj g_tj over the steps t of a training: positive where weights moved away from 0.

    `trajectory` (T, P) are the weights before each step and `gradients` (T, P) the gradients the steps took; without
    them, the gradients of L at the trajectory. The paper's score has the learning rate as a factor, which changes no
    order where it is constant. Accumulated: the present w enters through its trajectory alone. ValueError for other
    shapes. Source: Sanh, Wolf and Rush 2020.
    """
    steps = checks.array("trajectory", trajectory, (None, len(w)))
    if gradients is not None:
        gradients = checks.array("gradients", gradients, steps.shape)
    scores = np.zeros_like(w)
    for t, at in enumerate(steps):
        scores -= at * (L.gradient(at) if gradients is None else gradients[t])
    return scores
