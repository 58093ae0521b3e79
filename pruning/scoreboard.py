"""The criteria of a scoreboard, by name, with what they need to run; the scoreboard itself is compare.scoreboard."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from minimal_nn import curvature
from minimal_nn.objective import Objective
from pruning.compare.boards import Row, Scoreboard, Scores, scoreboard
from pruning.criteria.base import REGISTRY

__all__ = [
    "STANDARD",
    "Row",
    "Scoreboard",
    "chosen_criteria",
    "scoreboard",
    "standard_criteria",
    "sufficient_damping",
    "unavailable",
]

#: the criteria of a scoreboard unless others are asked for
STANDARD = (
    "random",
    "magnitude",
    "taylor_signed",
    "taylor",
    "taylor_second",
    "obd",
    "obs",
    "fisher",
    "fisher_empirical",
)
WITH_INVERSE_HESSIAN = ("obs", "obs_gradient")
WITH_INVERSE_SQUARES = ("woodfisher", "obs_layerwise")  #: inverses of matrices without negative eigenvalues
LEAST_DAMPING = 1e-4


def standard_criteria(rng: np.random.Generator, damping: float = 0.0) -> dict[str, Scores]:
    """Return the nine STANDARD criteria under their names; `rng` is for random, `damping` for obs."""
    return chosen_criteria(STANDARD, rng, damping)


def chosen_criteria(
    names: Sequence[str], rng: np.random.Generator, damping: float = 0.0, block: int | None = None
) -> dict[str, Scores]:
    """Return criteria of the registry as scorers (L, w) -> (P,), under their names and in their order.

    `rng` is for random, a child of it for fisher_sampled; `damping` for obs and obs_gradient; woodfisher and
    obs_layerwise, whose matrices have no negative eigenvalue, get 1e-4; `block` for woodfisher. Raises ValueError for
    a name that is not in the registry, or that needs what nothing here can give.
    """
    scorers: dict[str, Scores] = {}
    for name in names:
        reason = unavailable(name)
        if reason:
            raise ValueError(f"names: {name!r} {reason}")
        options: dict[str, Any] = {}
        if name in WITH_INVERSE_HESSIAN:
            options["damping"] = damping
        elif name in WITH_INVERSE_SQUARES:
            options["damping"] = LEAST_DAMPING
        if name == "woodfisher":
            options["block"] = block
        elif "rng" in REGISTRY[name].options:
            options["rng"] = rng if name == "random" else rng.spawn(1)[0]
        scorers[name] = partial(REGISTRY[name].function, **options)
    return scorers


def unavailable(name: str) -> str:
    """Return why a criterion cannot be scored from (L, w) alone, "" where it can."""
    if name not in REGISTRY:
        return f"is not one of {', '.join(REGISTRY)}"
    entry = REGISTRY[name]
    missing = [option for option in entry.options if option != "rng"]
    if missing:
        return f"needs {', '.join(missing)}"
    return "" if entry.returns == "scores" else f"returns a {entry.returns}, not scores"


def sufficient_damping(L: Objective, w: np.ndarray, least: float = LEAST_DAMPING) -> float:
    """Return `least`, or twice the size of the most negative eigenvalue of H: H + damping·I is positive definite."""
    lowest = float(np.linalg.eigvalsh(curvature.hessian(L, w))[0])
    return max(least, -2 * lowest)
