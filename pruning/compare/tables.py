"""Tables as text, and numbers as strict JSON has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return the lines with columns of equal width, the first to the left and the others to the right.

    >>> print(aligned([["k", "loss"], ["10", "0.5"]]))
    k   loss
    10   0.5
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join([l[0].ljust(widths[0]), *map(str.rjust, l[1:], widths[1:])]) for l in lines)


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Return the lines with columns of equal width, all to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def or_dash(value: float, form: str) -> str:
    """Return the formatted number, a dash for NaN."""
    return "–" if np.isnan(value) else format(value, form)


def mean_and_sd(values: np.ndarray, form: str, form_of_sd: str) -> str:
    """Return "mean ± s.d." of the values that are not NaN, with 1/(n − 1); the mean alone of one, a dash of none.

    >>> mean_and_sd(np.array([1.0, 3.0, np.nan]), ".2f", ".2f")
    '2.00 ± 1.41'
    """
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return or_dash(values[0], form) if len(values) else "–"
    return f"{values.mean():{form}} ± {values.std(ddof=1):{form_of_sd}}"


def plain(value: Any) -> Any:
    """Return a value as strict JSON takes it: a number that is not finite is None, whatever holds it."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
