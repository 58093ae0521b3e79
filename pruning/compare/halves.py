"""Half against half: what a correlation with the exact saliency is to be read beside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn.objective import Objective
from pruning.compare.candidates import candidates, live
from pruning.compare.ranks import correlation_or_nan
from pruning.exact.halves import split_half


@dataclass(frozen=True, eq=False)
class HalfAgreement:
    """Rank correlations of the exact saliency on one half of the examples with that on the other, for M splits.

    signed (M,) of s, absolute (M,) of |s|, over `entries` live candidates; NaN where a half ranks nothing.
    """

    signed: np.ndarray
    absolute: np.ndarray
    entries: int

    def mean_and_sd(self) -> dict[str, float]:
        """Return the mean and the standard deviation over splits (1/(M − 1); NaN for one split), by name."""
        out = {}
        for name, values in (("signed", self.signed), ("absolute", self.absolute)):
            out[name] = float(values.mean())
            out[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        return out

    def __str__(self) -> str:
        m = self.mean_and_sd()
        return (
            f"half against half, {len(self.signed)} splits, {self.entries} entries: "
            f"signed {m['signed']:.3f} ± {m['signed_sd']:.3f}, absolute {m['absolute']:.3f} ± {m['absolute_sd']:.3f}"
        )


def half_against_half(
    L: Objective, w: np.ndarray, splits: int = 20, *, rng: np.random.Generator, among: np.ndarray | None = None
) -> HalfAgreement:
    """Return Spearman's rank correlation of the exact saliencies on two random halves of the examples, `splits` times.

    Over the candidates `among` (P,) bool, the layout's weights unless given, but for those that multiply nothing but
    zeros: they are equal on all halves and would raise it. Print it beside every correlation with the exact saliency.
    It is a reference and not a ceiling: a score with less noise than the exact saliency on a sample can lie above it.
    NaN where all saliencies of a half are equal. Cost and memory as of exact.split_half; ValueError for one example.
    """
    w = L.check_w(w)
    here = candidates(L, w, among) & live(L, w)
    halves = split_half(L, w, splits, rng=rng)
    pairs = [(one[here], other[here]) for one, other in zip(halves.first, halves.second, strict=True)]
    return HalfAgreement(
        signed=np.array([correlation_or_nan(a, b) for a, b in pairs]),
        absolute=np.array([correlation_or_nan(np.abs(a), np.abs(b)) for a, b in pairs]),
        entries=int(here.sum()),
    )
