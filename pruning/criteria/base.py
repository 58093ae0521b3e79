"""What every criterion has in common: its signature, what happens to weights that are gone, and what is said of it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective

Criterion = Callable[..., np.ndarray]

#: what a criterion may need besides w; a test compares what each one says with what it touches
NEEDS = ("examples", "labels", "gradients", "Hessian", "history")


@dataclass(frozen=True)
class Entry:
    """A line of the registry: a criterion, its family, its cost and what it needs besides the weights.

    `cost` is in passes, forward and backward, over the examples, and names what grows faster than P: S samples, N
    examples, q inputs of a layer. `options` are the arguments without a default; `returns` is "scores" or "mask".
    """

    name: str
    function: Criterion
    family: str
    cost: str
    needs: tuple[str, ...]
    options: tuple[str, ...]
    returns: str = "scores"


#: every criterion by its name, in the order in which the families are imported
REGISTRY: dict[str, Entry] = {}


def criterion(family: str, cost: str, needs: tuple[str, ...] = ()) -> Callable[[Criterion], Criterion]:
    """Turn a formula `(L, w, active, **options) -> (P,)` into a criterion `(objective, w, *, active=None, **options)`.

    Higher scores mean keep. `active` (P,) bool is the set of weights still present, None for all of them. The weights
    outside count as 0, derivatives and inverses are restricted to what is active, and entries outside score −inf, so
    that they stay the first to go. w is checked and never modified.
    """

    def decorate(formula: Criterion) -> Criterion:
        def scores(
            objective: Objective, w: np.ndarray, *, active: np.ndarray | None = None, **options: Any
        ) -> np.ndarray:
            w, present = restricted(objective, w, active)
            return np.where(present, formula(objective, w, present, **options), w.dtype.type(-np.inf))

        published(scores, formula)
        register(scores, family, cost, needs)
        return scores

    return decorate


def published(scores: Criterion, formula: Criterion) -> Criterion:
    """Give `scores` the formula's name and docstring; its signature is its own with the formula's options by name."""
    own = inspect.signature(scores)
    named = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [p for p in inspect.signature(formula).parameters.values() if p.kind is p.KEYWORD_ONLY]
    functools.update_wrapper(scores, formula)
    scores.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return scores


def checked(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return w (P,); ValueError unless L is an Objective and w finite weights of it."""
    if not isinstance(L, Objective):
        raise ValueError(f"objective: expected a minimal_nn.Objective, got {checks.describe(L)}")
    return checks.array("w", w, (L.n_parameters,))


def restricted(L: Objective, w: np.ndarray, active: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return w (P,) with zeros outside the active weights, and these (P,) bool; ValueErrors as of every criterion."""
    w = checked(L, w)
    if active is None:
        return w, np.ones(len(w), bool)
    active = checks.array("active", active, w.shape, kinds="b")
    return np.where(active, w, w.dtype.type(0)), active


def register(function: Criterion, family: str, cost: str, needs: tuple[str, ...], returns: str = "scores") -> None:
    """Enter a criterion under its own name; its options are the keywords that have no default."""
    for need in needs:
        checks.one_of("needs", need, NEEDS)
    parameters = inspect.signature(inspect.unwrap(function)).parameters.values()
    options = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty)
    name = function.__name__
    REGISTRY[name] = Entry(name, function, family, cost, needs, options, returns)
