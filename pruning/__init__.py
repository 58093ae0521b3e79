"""Neural-network pruning beside the truth: exact saliency, criteria, masks, and how far apart they are.

Beyond the letters of minimal_nn:

    s_j         saliency of weight j, L((1 − e_j) ∘ w) − L(w): positive where removal hurts
    scores      one number for each weight (P,), higher = keep
    mask        (P,) bool, True = kept
    p           sparsity, the fraction of candidates removed; density is 1 − p

Subpackages are imported when they are first asked for, so that pytest can load `pruning.pytest_plugin` at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning import compare, criteria, exact, masks, oracle, updates

__all__ = ["compare", "criteria", "exact", "masks", "oracle", "updates"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'pruning' has no attribute {name!r}")
    return import_module(f"pruning.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
