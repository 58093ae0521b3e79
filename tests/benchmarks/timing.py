"""Two routes in turn: ours, theirs, ours, theirs; medians, and the median of the ratios of neighbours."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

ENOUGH = 0.5  #: seconds that one measurement takes at least: among repeated calls the cold first one counts little
REST = 0.1  #: seconds between measurements, in which the other library's idle threads stop spinning


class Missing(Exception):
    """A route that cannot be measured here, with the reason."""


@dataclass(frozen=True)
class Route:
    """One way to a result: `run()` is timed, `read(result)` gives it as an array in our order of parameters."""

    name: str
    run: Callable[[], Any]
    read: Callable[[Any], np.ndarray] = np.asarray
    parts: float = 1.0  #: how many runs the whole takes, where `run` does a sample of it


@dataclass(frozen=True)
class Comparison:
    """Seconds of each measurement of both routes, in the order they were taken."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """theirs/ours of neighbouring measurements: above 1 where ours is faster."""
        return [b / a for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return float(np.median(self.ratios))


def compare(ours: Route, theirs: Route, repeats: int) -> Comparison:
    """Measure two routes in turn, `repeats` times each, after both have been called once to compile and warm up.

    A further call of each, not counted, tells how many calls one measurement needs to last long enough; it is spared
    where the first one lasted.
    """
    first = [seconds(route.run) for route in (ours, theirs)]
    pairs = zip(first, (ours, theirs), strict=True)
    calls = [1 if t > 2 * ENOUGH else 1 + int(ENOUGH / seconds(route.run)) for t, route in pairs]
    times: tuple[list[float], list[float]] = [], []
    for _ in range(repeats):
        for route, count, taken in zip((ours, theirs), calls, times, strict=True):
            time.sleep(REST)
            taken.append(route.parts * seconds(route.run, count))
    return Comparison(*times)


def seconds(run: Callable[[], Any], calls: int = 1) -> float:
    """Return the seconds that one of `calls` calls takes."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Return the median over `repeats` measurements, after a warm-up."""
    run()
    calls = 1 + int(ENOUGH / seconds(run))
    return float(np.median([seconds(run, calls) for _ in range(repeats)]))


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Return max|a − b| / max|b|; infinite where the shapes differ."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return float("inf")
    return float(np.abs(a - b).max() / (np.abs(b).max() or 1.0))
