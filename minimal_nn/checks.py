"""Checks of what a caller passes: one clear error that names the argument, what came and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def describe(value: Any) -> str:
    """Describe a value for an error message: shape and dtype of an array, otherwise the value itself.

    >>> describe(np.zeros((2, 3)))
    'float64 of shape (2, 3)'
    >>> describe("two")
    "'two'"
    """
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def array(name: str, value: Any, shape: Sequence[int | None] | None = None, *, kinds: str = "f") -> np.ndarray:
    """Return `value` as an array of the expected shape and kind whose entries are all finite.

    `shape` holds the expected lengths, None where any length will do; `kinds` lists the accepted dtype kinds of
    NumPy ("f" float, "c" complex, "i" and "u" integer, "b" bool). Raises ValueError.
    """
    try:
        a = np.asarray(value)
    except ValueError:
        raise ValueError(f"{name}: expected one rectangular array, got {describe(value)}") from None
    if a.dtype.kind not in kinds:
        words = {"f": "float", "c": "complex", "i": "integer", "u": "unsigned integer", "b": "bool"}
        expected = " or ".join(words[k] for k in kinds)
        raise ValueError(f"{name}: expected dtype {expected}, got {describe(a)}")
    if shape is not None and (
        a.ndim != len(shape) or any(e not in (None, n) for e, n in zip(shape, a.shape, strict=True))
    ):
        expected = (
            "(" + ", ".join("any" if e is None else str(e) for e in shape) + ("," if len(shape) == 1 else "") + ")"
        )
        raise ValueError(f"{name}: expected shape {expected}, got {describe(a)}")
    if a.dtype.kind in "fc" and not np.isfinite(a).all():
        where = np.unravel_index(int(np.argmin(np.isfinite(a))), a.shape)
        raise ValueError(f"{name}: expected finite numbers, got {a[where]} at index {tuple(map(int, where))}")
    return a


def number(name: str, value: Any, low: float = -np.inf, high: float = np.inf) -> float:
    """Return `value` as a float with low <= value <= high. Raises ValueError."""
    ok = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not ok or not np.isfinite(value) or not low <= value <= high:
        bounds = "" if (low, high) == (-np.inf, np.inf) else f" in [{low:g}, {high:g}]"
        raise ValueError(f"{name}: expected a finite number{bounds}, got {describe(value)}")
    return float(value)


def integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as an int with low <= value <= high (None: unbounded). Raises ValueError."""
    ok = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not ok or (low is not None and value < low) or (high is not None and value > high):
        bounds = (f" >= {low}" if low is not None else "") + (f" <= {high}" if high is not None else "")
        raise ValueError(f"{name}: expected an integer{bounds}, got {describe(value)}")
    return int(value)


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    """Return `value` if it is one of the known names. Raises ValueError that lists them."""
    known = tuple(known)
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {describe(value)}")
    return str(value)


def generator(name: str, value: Any) -> np.random.Generator:
    """Return `value` if it is a numpy.random.Generator. Raises ValueError that shows how to make one."""
    if not isinstance(value, np.random.Generator):
        raise ValueError(
            f"{name}: expected a numpy.random.Generator such as numpy.random.default_rng(0), got {describe(value)}"
        )
    return value


def undefined(owner: Any, base: type, method: str) -> NotImplementedError:
    """Return the error for a subclass of ours, Layer or Loss, without a method that somebody asked for."""

    def leaves(kind: type) -> list[type]:
        below: list[type] = kind.__subclasses__()
        below = [sub for sub in below if sub.__module__.startswith("minimal_nn.")]
        return [leaf for sub in below for leaf in leaves(sub)] if below else [kind]

    known = ", ".join(sorted(leaf.__name__ for leaf in leaves(base) if not leaf.__name__.startswith("_")))
    return NotImplementedError(
        f"{type(owner).__name__}: defines no {method}; kinds of {base.__name__} that do: {known}"
    )
