"""Calibration: whether a score that claims to be a loss change is one, not only in its order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from pruning.compare.tables import aligned, or_dash


@dataclass(frozen=True, eq=False)
class Calibration:
    """The line of actual on predicted, how much of actual is explained, and means by decile of the prediction.

    slope, intercept        of the least-squares line a ≈ intercept + slope · p
    slope_through_origin    of the least-squares line a ≈ slope · p
    r2                      1 − Σ (a − p)² / Σ (a − ā)²: of the prediction as it stands; negative where ā does better
    r2_line                 the same of the line: the squared correlation of p and a
    deciles                 (10, 2) mean predicted and mean actual, lowest predictions first; NaN where there are none
    counts                  (10,) how many predictions each decile has
    """

    slope: float
    intercept: float
    slope_through_origin: float
    r2: float
    r2_line: float
    deciles: np.ndarray
    counts: np.ndarray

    def __str__(self) -> str:
        lines = [["decile", "count", "predicted", "actual"]]
        for d, (count, means) in enumerate(zip(self.counts, self.deciles, strict=True), start=1):
            lines.append([str(d), str(count), *(or_dash(mean, ".3e") for mean in means)])
        return (
            f"actual = {self.intercept:.3g} + {self.slope:.3g} · predicted, R² {self.r2_line:.3f}; "
            f"through the origin {self.slope_through_origin:.3g} · predicted; as it stands R² {self.r2:.3g}\n"
        ) + aligned(lines)


def calibration(predicted: np.ndarray, actual: np.ndarray) -> Calibration:
    """Return how predictions p (n,) of loss changes compare with the actual ones a (n,), in the units of both.

        slope = Σ (p − p̄)(a − ā) / Σ (p − p̄)²,    intercept = ā − slope · p̄,    through the origin Σ p a / Σ p²

    Perfect is slope 1, intercept 0 and r2 1. A score that is right up to a factor has the rank correlation 1, r2_line 1
    and another slope. Entry j is in decile ⌊10 #{i: p_i < p_j} / n⌋ (counted from 0), so that equal predictions share
    one: without ties the counts differ by one at most, with ties or fewer than ten values some deciles are empty.
    Raises ValueError where all predictions or all actual values are equal (or differ by less than can be squared).

    >>> print(calibration(np.arange(10.0), 2 * np.arange(10.0) + 1).slope)
    2.0
    """
    p, a = (
        checks.array(name, v, (None,), kinds="fiu").astype(np.float64)
        for name, v in (("predicted", predicted), ("actual", actual))
    )
    if len(p) != len(a):
        raise ValueError(f"actual: expected {len(p)} values, as many as predicted, got {len(a)}")
    pp, aa = _squares("predicted", p), _squares("actual", a)
    slope = float((p - p.mean()) @ (a - a.mean()) / pp)
    below = np.searchsorted(np.sort(p), p, side="left")
    decile = 10 * below // len(p)
    counts = np.bincount(decile, minlength=10)
    sums = np.stack([np.bincount(decile, weights=values, minlength=10) for values in (p, a)], axis=1)
    return Calibration(
        slope=slope,
        intercept=float(a.mean() - slope * p.mean()),
        slope_through_origin=float(p @ a / (p @ p)),
        r2=float(1 - ((a - p) ** 2).sum() / aa),
        r2_line=float(slope**2 * pp / aa),
        deciles=np.divide(sums, counts[:, None], out=np.full((10, 2), np.nan), where=counts[:, None] > 0),
        counts=counts,
    )


def _squares(name: str, values: np.ndarray) -> float:
    """Return Σ (v − v̄)²; ValueError where it is 0."""
    total = 0.0 if (values == values[:1]).all() else float(((values - values.mean()) ** 2).sum())
    if not total:
        raise ValueError(f"{name}: expected values that differ, got {len(values)} equal ones")
    return total
