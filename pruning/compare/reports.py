"""The report: criteria beside the exact saliency over several networks, with spreads, as a table, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective
from pruning import masks
from pruning.compare.boards import Scoreboard, Scorer, scoreboard
from pruning.compare.frontiers import prices
from pruning.compare.greedy import exact_greedy
from pruning.compare.halves import HalfAgreement, half_against_half
from pruning.compare.tables import aligned, mean_and_sd, plain
from pruning.exact.frontiers import frontier

ENUMERATED = 16  #: candidates up to which all masks are computed: 65,536 losses


@dataclass(frozen=True, eq=False)
class Judged:
    """One network of a report: its scoreboard, half against half, and what the exact masks cost by sparsity.

    best, nested and greedy map a sparsity to the loss of the best mask, of the best nested order and of exact_greedy;
    empty where not computed. halves is None for a single example.
    """

    board: Scoreboard
    halves: HalfAgreement | None
    best: dict[float, float]
    nested: dict[float, float]
    greedy: dict[float, float]

    def numbers(self) -> dict[str, float]:
        """Return what is known of the network by name, the columns of its rows that are the same for all criteria."""
        halves = {} if self.halves is None else {f"half_{k}": v for k, v in self.halves.mean_and_sd().items()}
        exact = {
            f"{name}_{p:g}": loss
            for name, losses in (("best", self.best), ("nested", self.nested), ("greedy", self.greedy))
            for p, loss in losses.items()
        }
        return {"candidates": int(self.board.among.sum()), "dense_loss": self.board.loss} | halves | exact


@dataclass(frozen=True, eq=False)
class Report:
    """Criteria over networks: name of a network -> what was found on it. Everything else here is computed from that."""

    networks: dict[str, Judged]
    sparsities: tuple[float, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row for each network and criterion; NaN where a number is not defined or was not computed.

        To the numbers of boards.Row and Judged come loss_p, regret_greedy_p and regret_best_p for every sparsity p:
        the loss, and what it is beyond that of exact_greedy and of the best mask.
        """
        rows = []
        for name, judged in self.networks.items():
            for row in judged.board.rows:
                out: dict[str, Any] = {"network": name, "criterion": row.criterion} | row.numbers()
                for p in self.sparsities:
                    out[f"loss_{p:g}"] = row.loss[p]
                for p in self.sparsities:
                    out[f"regret_greedy_{p:g}"] = row.loss[p] - judged.greedy.get(p, np.nan)
                    out[f"regret_best_{p:g}"] = row.loss[p] - judged.best.get(p, np.nan)
                rows.append(out | judged.numbers())
        return rows

    def values(self, column: str) -> dict[str, np.ndarray]:
        """Return one column of the rows: criterion -> its values, one for each network."""
        rows = self.rows()
        known = dict.fromkeys(name for row in rows for name in row if name not in ("network", "criterion"))
        checks.one_of("column", column, known)
        criteria = dict.fromkeys(row["criterion"] for row in rows)
        return {c: np.array([row.get(column, np.nan) for row in rows if row["criterion"] == c]) for c in criteria}

    def to_json(self) -> dict[str, Any]:
        """Return plain objects for strict JSON: the sparsities and the rows, with None for NaN."""
        return {"sparsities": list(self.sparsities), "rows": plain(self.rows())}

    def to_csv(self) -> str:
        """Return the rows as CSV with a header, numbers to the last digit; a field is empty for NaN."""
        rows = plain(self.rows())
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def __str__(self) -> str:
        counts = sorted({int(judged.board.among.sum()) for judged in self.networks.values()})
        parts = [
            f"{len(self.networks)} networks of {' to '.join(map(str, dict.fromkeys((counts[0], counts[-1]))))} "
            "candidates; mean ± s.d. over networks\n"
            "Spearman, Kendall, slope and R² of the scores and the exact saliency, of sizes: of both without their "
            "signs; signs: share of equal ones; overlap: of the lowest 20 %",
            self._table(_RANKS),
            self._halves(),
        ]
        for title, column in _BY_SPARSITY:
            columns = {f"{column}_{p:g}": (f"-{p:.0%}", "#.4g", ".2g") for p in self.sparsities}
            if columns and any(np.isfinite(v).any() for c in columns for v in self.values(c).values()):
                parts.append(f"{title}\n{self._table(columns)}")
        return "\n\n".join(filter(None, parts))

    def _table(self, columns: dict[str, tuple[str, str, str]]) -> str:
        found = [self.values(column) for column in columns]
        lines = [["criterion", *(title for title, _, _ in columns.values())]]
        for name in found[0]:
            forms = [(values[name], form, sd) for values, (_, form, sd) in zip(found, columns.values(), strict=True)]
            lines.append([name, *(mean_and_sd(*cell) for cell in forms)])
        return aligned(lines)

    def _halves(self) -> str:
        found = [judged.halves.mean_and_sd() for judged in self.networks.values() if judged.halves is not None]
        if not found:
            return ""
        signed, absolute = (mean_and_sd(np.array([m[k] for m in found]), ".3f", ".3f") for k in ("signed", "absolute"))
        return f"half against half, the exact saliency with itself: Spearman {signed}, of sizes {absolute}"


#: columns of the first table: title, format of the mean and of the standard deviation
_RANKS = {
    "spearman": ("Spearman", ".3f", ".3f"),
    "absolute": ("of sizes", ".3f", ".3f"),
    "kendall": ("Kendall", ".3f", ".3f"),
    "overlap": ("overlap", ".3f", ".3f"),
    "sign_agreement": ("signs", ".3f", ".3f"),
    "slope": ("slope", ".3g", ".2g"),
    "r2": ("R²", ".3g", ".2g"),
}
_BY_SPARSITY = (
    ("loss after removal", "loss"),
    ("regret: loss beyond exact greedy, one at a time", "regret_greedy"),
    ("regret: loss beyond the best mask", "regret_best"),
)


def report(
    networks: Mapping[str, tuple[Objective, np.ndarray]],
    scorers: Mapping[str, Scorer],
    *,
    rng: np.random.Generator,
    among: np.ndarray | None = None,
    sparsities: Sequence[float] = (0.2, 0.5, 0.8),
    splits: int = 20,
    greedy: bool = False,
    progress: Callable[[str], None] = lambda name: None,
) -> Report:
    """Judge every scorer on every network (L, w), such as one for each seed.

    Scorers and `among` are as for scoreboard. The exact saliency on one half of the examples against that on the other
    is computed over `splits` random splits. Of networks with at most 16 candidates all masks are computed: the best,
    the best nested order and the greedy path come from these. Of larger ones the path of exact_greedy is, if `greedy`
    asks for it: as many exact saliencies as the highest sparsity removes weights. `progress` is called with
    "network: row". ValueError where there is no network, or a pair is not (Objective, w).
    """
    if not networks:
        raise ValueError("networks: expected at least one, got none")
    checks.generator("rng", rng)
    sparsities = tuple(checks.number("sparsities", p, 0, 1) for p in sparsities)
    judged = {}
    for name, pair in networks.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], Objective):
            raise ValueError(f"networks[{name!r}]: expected a pair (Objective, w), got {checks.describe(pair)}")
        L, w = pair
        say = _prefixed(name, progress)
        board = scoreboard(L, w, scorers, among=among, sparsities=sparsities, progress=say)
        halves = half_against_half(L, w, splits, rng=rng, among=board.among) if L.n_examples > 1 else None
        judged[name] = Judged(board, halves, **_exact_masks(L, w, board.among, sparsities, greedy))
    return Report(judged, sparsities)


def _prefixed(name: str, progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda row: progress(f"{name}: {row}")


def _exact_masks(
    L: Objective, w: np.ndarray, among: np.ndarray, sparsities: Sequence[float], greedy: bool
) -> dict[str, dict[float, float]]:
    """Return the losses of the best mask, the best nested order and the greedy path, by sparsity."""
    n = int(among.sum())
    counts = {p: masks.count(p, n) for p in sparsities}
    paths: dict[str, np.ndarray] = {}
    if n <= ENUMERATED:
        known = prices(frontier(L, w, among), np.zeros(len(w)))
        paths = {"best": known.best, "nested": known.nested, "greedy": known.greedy}
    elif greedy:
        paths = {"greedy": exact_greedy(L, w, max(counts.values(), default=0), among).losses}
    return {
        name: {p: float(paths[name][k]) for p, k in counts.items()} if name in paths else {}
        for name in ("best", "nested", "greedy")
    }
