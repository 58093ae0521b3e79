"""The scoreboard: every criterion put beside the exact saliency of one network."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective
from pruning import masks
from pruning.compare.calibrations import Calibration, calibration
from pruning.compare.candidates import candidates
from pruning.compare.ranks import correlation_or_nan, sign_agreement
from pruning.compare.tables import aligned, or_dash, plain
from pruning.exact.halves import split_half
from pruning.exact.structured import saliency

OVERLAP = 0.2  #: the share of the candidates whose overlap is measured, the lowest
RESERVED = ("exact", "half_against_half")  #: names of rows that are no criterion's

Scores = Callable[[Objective, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SetMethod:
    """A method that chooses a set at once: mask(L, w, k, among) -> (P,) bool, False on exactly k of the candidates."""

    mask: Callable[[Objective, np.ndarray, int, np.ndarray], np.ndarray]


Scorer = Scores | SetMethod


@dataclass(frozen=True, eq=False)
class Row:
    """One criterion c beside the exact saliency s of one network, over its candidates.

    spearman, kendall   rank correlations of c with s
    absolute            Spearman's rank correlation of |c| with |s|
    sign_agreement      share of equal signs of c and s
    overlap             share that what goes first, 20 % of the candidates, has in common with what goes first by s
    loss                sparsity -> the loss after removal by c
    calibration         of c as a prediction of s
    seconds             what the scores took to compute; of a set method, the masks

    A correlation is NaN, and the calibration None, where it is not defined: for scores that are all equal, infinite
    ones (the calibration alone), and set methods, which have no scores.
    """

    criterion: str
    spearman: float
    kendall: float
    absolute: float
    sign_agreement: float
    overlap: float
    loss: dict[float, float]
    calibration: Calibration | None
    seconds: float

    def numbers(self) -> dict[str, float]:
        """Return everything but losses and deciles by name, NaN where it is not defined."""
        own = ("spearman", "kendall", "absolute", "sign_agreement", "overlap", "seconds")
        lines = ("slope", "intercept", "slope_through_origin", "r2", "r2_line")
        line = self.calibration
        return {name: getattr(self, name) for name in own} | {
            name: np.nan if line is None else getattr(line, name) for name in lines
        }


@dataclass(frozen=True, eq=False)
class Scoreboard:
    """The rows, and what they were made from: exact saliency (P,), all scores, candidates, the loss as it is."""

    rows: tuple[Row, ...]
    saliency: np.ndarray
    scores: dict[str, np.ndarray]
    among: np.ndarray
    loss: float

    def __str__(self) -> str:
        sparsities = list(self.rows[0].loss)
        head = ["criterion", "Spearman", "Kendall", "overlap", *(f"loss -{p:.0%}" for p in sparsities), "seconds"]
        lines = [head]
        for r in self.rows:
            measures = [or_dash(value, ".3f") for value in (r.spearman, r.kendall, r.overlap)]
            lines.append([r.criterion, *measures, *(f"{r.loss[p]:#.4g}" for p in sparsities), f"{r.seconds:.3f}"])
        return aligned(lines)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows as plain objects; what is not defined is None, sparsities are strings such as "0.2"."""
        return [
            plain({"criterion": r.criterion, **r.numbers(), "loss": {f"{p:g}": loss for p, loss in r.loss.items()}})
            for r in self.rows
        ]


def scoreboard(
    L: Objective,
    w: np.ndarray,
    scorers: Mapping[str, Scorer],
    *,
    among: np.ndarray | None = None,
    sparsities: Sequence[float] = (0.2, 0.5, 0.8),
    rng: np.random.Generator | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> Scoreboard:
    """Compute the exact saliency and every scorer, and compare them over the candidates `among`.

    A scorer is a function (L, w) -> scores (P,), higher = keep, or a SetMethod. `among` (P,) bool is the layout's
    weights whose input is not always zero, `live(L, w)`, unless given. The first row is the exact saliency itself.
    With `rng` the last row, half_against_half, is the exact saliency on one random half of the examples against the
    other: how far the truth is a property of the sample. `progress` is called with each row's name before it is
    computed.
    """
    w = L.check_w(w).copy()
    w.flags.writeable = False  # a scorer that changed it would corrupt every later row
    for name in RESERVED:
        if name in scorers:
            raise ValueError(f"scorers: the name {name} belongs to the exact saliency")
    among = candidates(L, w, among).copy()
    among.flags.writeable = False
    n = int(among.sum())
    judge = _Judge(L, w, among, {p: masks.count(p, n) for p in sparsities}, max(1, masks.count(OVERLAP, n)))
    progress("exact")
    start = time.perf_counter()
    truth = saliency(L, w)
    rows, scores = [judge.row("exact", truth, truth, start)], {"exact": truth}
    for name, scorer in scorers.items():
        progress(name)
        start = time.perf_counter()
        if isinstance(scorer, SetMethod):
            rows.append(judge.row_of_sets(name, scorer, truth, start))
        else:
            scores[name] = _checked(name, scorer(L, w), w)
            rows.append(judge.row(name, scores[name], truth, start))
    if rng is not None and L.n_examples > 1:
        progress("half_against_half")
        start = time.perf_counter()
        halves = split_half(L, w, 1, rng=rng)
        rows.append(judge.row("half_against_half", halves.first[0], halves.second[0], start))
    return Scoreboard(tuple(rows), truth, scores, among, float(L(w)))


@dataclass(frozen=True, eq=False)
class _Judge:
    """What all rows of one network share."""

    L: Objective
    w: np.ndarray
    among: np.ndarray
    counts: dict[float, int]  # sparsity -> how many candidates it removes
    few: int  # how many candidates the overlap is of

    def row(self, name: str, scores: np.ndarray, truth: np.ndarray, start: float) -> Row:
        """Judge scores that were begun at the time `start`."""
        seconds = time.perf_counter() - start
        a, b = scores[self.among], truth[self.among]
        try:
            line = calibration(a, b)
        except ValueError:
            line = None
        return Row(
            criterion=name,
            spearman=correlation_or_nan(a, b),
            kendall=correlation_or_nan(a, b, "kendall"),
            absolute=correlation_or_nan(np.abs(a), np.abs(b)),
            sign_agreement=sign_agreement(a, b),
            overlap=self._overlap(self._lowest(scores, self.few), truth),
            loss={p: self._loss(self._lowest(scores, k)) for p, k in self.counts.items()},
            calibration=line,
            seconds=seconds,
        )

    def row_of_sets(self, name: str, method: SetMethod, truth: np.ndarray, start: float) -> Row:
        """Judge a set method."""
        chosen = {k: self._chosen(name, method, k) for k in {*self.counts.values(), self.few}}
        seconds = time.perf_counter() - start
        loss = {p: self._loss(chosen[k]) for p, k in self.counts.items()}
        return Row(name, np.nan, np.nan, np.nan, np.nan, self._overlap(chosen[self.few], truth), loss, None, seconds)

    def _lowest(self, scores: np.ndarray, k: int) -> np.ndarray:
        return masks.smallest(scores, k / self.among.sum(), among=self.among)

    def _overlap(self, mask: np.ndarray, truth: np.ndarray) -> float:
        return float((~mask & ~self._lowest(truth, self.few)).sum() / self.few)

    def _loss(self, mask: np.ndarray) -> float:
        return float(self.L(self.w * mask))

    def _chosen(self, name: str, method: SetMethod, k: int) -> np.ndarray:
        """Return the mask that the method gives, if it is one of k candidates."""
        mask = checks.array(f"scorers[{name!r}]", method.mask(self.L, self.w, k, self.among), self.w.shape, kinds="b")
        gone, others = int((~mask).sum()), int((~mask & ~self.among).sum())
        if gone != k or others:
            raise ValueError(
                f"scorers[{name!r}]: expected a mask without {k} of the candidates, got one without {gone} weights, "
                f"{others} of which are no candidates"
            )
        return mask


def _checked(name: str, scores: Any, w: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.shape != w.shape or scores.dtype.kind != "f" or np.isnan(scores).any():
        raise ValueError(f"scorers[{name!r}]: expected float scores of shape {w.shape} without NaN, got {scores!r:.60}")
    return scores
