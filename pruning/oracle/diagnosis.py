"""The diagnosis: do scores match what they claim, and if not, what are they, and what does it cost to follow them?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minimal_nn import checks
from pruning import compare, exact, masks
from pruning.oracle import fits, matching, units
from pruning.oracle.cases import Case
from pruning.oracle.matching import Explanation, Foreign
from pruning.oracle.quantities import Quantities, Quantity

SPARSITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
#: scores in float64 that agree to this were computed in single precision somewhere: a match, and said
_SINGLE = 2e-5
#: explanations more surprising than this leave room for sums of two terms and for fitted dampings
_WEAK = 3.2
#: explanations that are more surprising than the best by more than this are not listed beside it
_AS_LIKELY = 2.0


@dataclass(frozen=True)
class Disagreement:
    """One of the weights that disagree most: the foreign tensor, the index in it, their score and ours."""

    tensor: str
    index: tuple[int, ...]
    theirs: float
    ours: float


@dataclass(frozen=True)
class Cost:
    """What following the scores costs: L(w ∘ mask) by their mask and by ours, at one sparsity."""

    sparsity: float
    theirs: float
    ours: float

    @property
    def regret(self) -> float:
        """Their loss minus ours: negative where the wrong score prunes better."""
        return self.theirs - self.ours


@dataclass(frozen=True)
class Diagnosis:
    """What foreign scores are.

    `matches` tells whether they are what they claim: max |theirs − ours| <= tolerance · max |ours|. `error` is that
    relative error. `best` is the least surprising explanation, None where nothing known fits; `others` are all that
    fit as well, which this case cannot tell apart. `partly` says what each tensor is where no explanation fits all of
    them. `worst` are the weights that disagree most, `costs` the exact losses of the masks, `spearman` the rank
    correlation with what was claimed, over the `entries` scores that were given. `suggestion` says what would tell
    explanations apart.
    """

    claims: str
    matches: bool
    error: float
    tolerance: float
    best: Explanation | None
    others: tuple[Explanation, ...]
    partly: dict[str, str]
    spearman: float
    worst: tuple[Disagreement, ...]
    costs: tuple[Cost, ...]
    suggestion: str
    entries: int

    def __str__(self) -> str:
        said = "is" if self.matches else "is NOT"
        lines = [f"This {said} {self.claims}: relative error {self.error:.2g}, tolerance {self.tolerance:.2g}."]
        if self.matches and self.error > self.tolerance:
            lines.append("It agrees to single precision only.")
        if not self.matches:
            few = f" {self.entries} numbers are few to tell by." if self.entries < 10 else ""
            lines.append(f"It is {self.best}." if self.best else f"No known quantity explains it.{few}")
            if self.best and np.isfinite(self.best.residual):
                lines[-1] = lines[-1][:-1] + f" (relative residual {self.best.residual:.2g})."
        if self.partly:
            lines += ["By tensor:", *(f"  {name}: {said}" for name, said in self.partly.items())]
        if self.others:
            lines += ["This case cannot tell it from:", *(f"  - {one}" for one in self.others[:8])]
            if len(self.others) > 8:
                lines.append(f"  and {len(self.others) - 8} more")
        if self.suggestion:
            lines.append(self.suggestion)
        lines.append(f"Rank correlation with {self.claims}: {self.spearman:.4f}.")
        if not self.matches:
            if self.worst:
                lines.append("Largest disagreements (theirs, ours):")
                lines += [f"  {d.tensor}{list(d.index)}: {d.theirs:.6g}, {d.ours:.6g}" for d in self.worst]
            lines.append("Exact loss after pruning by theirs, by ours, and the regret:")
            lines += [f"  {c.sparsity:.0%}: {c.theirs:.5g}, {c.ours:.5g}, {c.regret:+.3g}" for c in self.costs]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain objects of strict JSON: a number that is not finite is None."""
        explained = [None if one is None else _plain(one) for one in (self.best, *self.others)]
        return {
            "claims": self.claims,
            "matches": self.matches,
            "error": _number(self.error),
            "tolerance": _number(self.tolerance),
            "best": explained[0],
            "others": explained[1:],
            "partly": self.partly,
            "spearman": _number(self.spearman),
            "worst": [
                {"tensor": d.tensor, "index": list(d.index), "theirs": _number(d.theirs), "ours": _number(d.ours)}
                for d in self.worst
            ],
            "costs": [
                {"sparsity": c.sparsity, "theirs": c.theirs, "ours": c.ours, "regret": c.regret} for c in self.costs
            ],
            "suggestion": self.suggestion,
            "entries": self.entries,
        }


def diagnose(
    case: Case,
    scores: Mapping[str, Any],
    claims: str,
    *,
    tolerance: float | None = None,
    batch_size: int | None = None,
    **options: Any,
) -> Diagnosis:
    """Return what the scores are that claim to be the criterion `claims`, with its `options` (damping, block, ...).

    `scores` map names of the model's tensors to arrays of their shapes, for some or all of them; or, for scores of
    units, names of tensors or of modules to one number for each output unit or filter. `tolerance` is relative to the
    largest score; by default it follows the dtype of the scores and the condition of what is claimed. `batch_size`,
    where it is known, is what gradients may have been averaged over. Scores that are equal only up to a factor do not
    match: the factor is the explanation. ValueError for scores that are not finite, or no scores of this model's.
    """
    compared = _compare(case, scores, claims, tolerance, batch_size, options)
    return _diagnosis(case, compared, claims)


def matches(
    case: Case, scores: Mapping[str, Any], claims: str, *, tolerance: float | None = None, **options: Any
) -> bool:
    """Return whether the scores are what they claim, by the rule of `diagnose`, without looking for explanations."""
    return _compare(case, scores, claims, tolerance, None, options).matches


@dataclass(frozen=True)
class _Compared:
    """Foreign scores beside what they claim: `ours` (n,) at the entries that were given."""

    known: Quantities
    claimed: Quantity
    foreign: Foreign
    entries: Any
    ours: np.ndarray
    error: float
    allowed: float
    strict: bool

    @property
    def matches(self) -> bool:
        return bool(self.error <= (self.allowed if self.strict else max(self.allowed, _SINGLE)))


def _compare(
    case: Case,
    scores: Mapping[str, Any],
    claims: str,
    tolerance: float | None,
    batch_size: int | None,
    options: dict[str, Any],
) -> _Compared:
    given, entries = units.read(case, scores) or _read_weights(case, scores)
    known = _known(case, options, batch_size)
    claimed = known.claimed(claims)
    base = (
        matching.tolerance_for(matching.precision_of(given.values, given.dtype))
        if tolerance is None
        else checks.number("tolerance", tolerance, 0)
    )
    foreign = Foreign(
        values=given.values,
        tensors=given.tensors,
        outputs=entries.outputs,
        inputs=entries.inputs,
        scrambled=entries.scrambled,
        tolerance=base,
        N=case.L.n_examples,
        C=case.L.n_outputs,
    )
    ours = entries.values(claimed)[0][1]
    allowed = matching.allowed(foreign, claimed.condition) if tolerance is None else base
    error = matching.relative_error(given.values, ours)
    return _Compared(known, claimed, foreign, entries, ours, error, allowed, strict=tolerance is not None)


_KNOWN: WeakKeyDictionary[Case, dict[Any, Quantities]] = WeakKeyDictionary()


def _known(case: Case, options: dict[str, Any], batch_size: int | None) -> Quantities:
    """Return the quantities of a case, kept as long as the case is."""
    key = repr(sorted(options.items())), batch_size
    kept = _KNOWN.setdefault(case, {})
    if key not in kept:
        kept[key] = Quantities(case.L, case.w, options, batch_size)
    return kept[key]


def _read_weights(case: Case, scores: Mapping[str, Any]) -> tuple[units.Given, Weights]:
    values, given = case.to_ours(scores, "scores")
    dtype = np.result_type(*(units.dtype_of(name, value) for name, value in scores.items()))
    weights = Weights(case, given)
    return units.Given(values[given], weights.tensors, dtype), weights


class Weights:
    """Scores of single weights: quantities are taken as they are, at the entries that were given."""

    def __init__(self, case: Case, given: np.ndarray) -> None:
        self.case, self.given = case, given
        ids, scrambled = np.full(len(given), -1), np.arange(len(given))
        for i, tensor in enumerate(case.tensors):
            where = case.index_of(tensor.name)
            ids[where] = i
            if where.ndim > 1 and given[where].all():
                other = where.swapaxes(0, 1)
                scrambled[where.ravel()] = other.ravel()
        self.tensors = ids[given]
        self.outputs, self.inputs = (v[given] for v in _outputs_and_inputs(case))
        position = np.cumsum(given) - 1
        self.scrambled = position[scrambled[given]]

    def values(self, quantity: Quantity) -> list[tuple[Quantity, np.ndarray]]:
        """Return the quantity at the entries that were given."""
        return [(quantity, quantity.vector[self.given])]

    def place(self, j: int) -> tuple[str, tuple[int, ...]]:
        """Return the foreign tensor and index of entry j."""
        at = int(np.flatnonzero(self.given)[j])
        for tensor in self.case.tensors:
            where = np.argwhere(self.case.index_of(tensor.name) == at)
            if len(where):
                return tensor.name, tuple(map(int, where[0]))
        raise AssertionError("every entry is in a tensor")

    def masks(self, values: np.ndarray, sparsity: float) -> np.ndarray:
        """Return the mask over w that removes this share of the lowest of the entries that were given."""
        scores = np.zeros(len(self.given))
        scores[self.given] = values
        return masks.smallest(scores, sparsity, among=self.given)

    def names(self) -> dict[int, str]:
        """Return the foreign tensors by their number."""
        return {i: tensor.name for i, tensor in enumerate(self.case.tensors)}


def _explained(compared: _Compared, candidates: list[tuple[Quantity, np.ndarray]]) -> list[Explanation]:
    """Return explanations: exact ones, then sums and fitted dampings, in single precision, and mere resemblances."""
    claimed, foreign, entries = compared.claimed, compared.foreign, compared.entries
    if np.ptp(foreign.values) == 0 and len(foreign.values) > 1:
        text = f"{foreign.values[0]:.6g} for every entry: it ranks nothing"
        return [Explanation(text, "a constant", "", None, 0.0, 0.0, foreign.values)]
    found = matching.explanations(foreign, candidates, claimed.name)
    if not found or found[0].surprise > _WEAK:
        terms = [entries.values(quantity)[0] for quantity in compared.known.terms(claimed)]
        fitted = matching.sums(foreign, terms, claimed.name) or fits.explanations(compared.known, foreign, entries)
        found = sorted([*fitted, *found], key=lambda one: one.surprise)
    if not found and foreign.tolerance < _SINGLE:
        single = replace(foreign, tolerance=_SINGLE)
        rough = matching.explanations(single, candidates, claimed.name)
        found = [replace(one, text=f"{one.text}, to single precision") for one in rough]
    if found or compared.matches:
        return found
    related = matching.monotone(foreign, candidates) + matching.close(foreign, candidates, claimed.name)
    return sorted(related, key=lambda one: one.surprise)


def _outputs_and_inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for the output unit, and one for the input, of every entry of w; each bias is its own input."""
    outputs, inputs = np.empty(len(case.w), int), np.empty(len(case.w), int)
    start = 0
    for name, shape in case.L.network.layout.shapes.items():
        own = case.L.network.layout[name]
        first, *rest = np.indices(shape).reshape(len(shape), -1)
        outputs[own] = start + (rest[0] if rest else first)
        inputs[own] = start + first
        start += max(shape)
    return outputs, inputs


def _diagnosis(case: Case, compared: _Compared, claims: str) -> Diagnosis:
    """Search for explanations, and weigh what following the scores costs."""
    claimed, foreign, entries, ours = compared.claimed, compared.foreign, compared.entries, compared.ours
    candidates = [pair for quantity in _with(claimed, compared.known) for pair in entries.values(quantity)]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = _explained(compared, candidates)
    if compared.matches:
        itself = Explanation(claimed.name, claimed.name, claims, 1.0, compared.error, 0.0, ours)
        found = [itself, *(one for one in found if one.quantity != claimed.name)]
    best = found[0] if found else None
    others = tuple(one for one in found[1:] if best is not None and one.surprise <= best.surprise + _AS_LIKELY)
    order = np.argsort(-np.abs(foreign.values - ours), kind="stable")[:5]
    places = [] if compared.matches else [(*entries.place(int(j)), int(j)) for j in order]
    return Diagnosis(
        claims=claimed.name,
        matches=compared.matches,
        error=compared.error,
        tolerance=compared.allowed,
        best=best,
        others=others,
        partly={} if found else _by_tensor(foreign, candidates, claimed, entries),
        spearman=_spearman(foreign.values, ours),
        worst=tuple(Disagreement(name, at, float(foreign.values[j]), float(ours[j])) for name, at, j in places),
        costs=_costs(case, entries, foreign.values, ours),
        suggestion=_suggestion(case, best, others),
        entries=len(ours),
    )


def _with(claimed: Quantity, known: Quantities) -> Iterator[Quantity]:
    """Yield the claimed quantity, then all others; those of another name that are equal to it stay."""
    yield claimed
    for quantity in known.all():
        if quantity.name != claimed.name:
            yield quantity


def _by_tensor(
    foreign: Foreign, candidates: list[tuple[Quantity, np.ndarray]], claimed: Quantity, entries: Any
) -> dict[str, str]:
    said, names = {}, entries.names()
    for t in np.unique(foreign.tensors):
        own = foreign.tensors == t
        position = np.cumsum(own) - 1
        scrambled = position[foreign.scrambled[own]]
        part = replace(
            foreign,
            values=foreign.values[own],
            tensors=foreign.tensors[own],
            outputs=foreign.outputs[own],
            inputs=foreign.inputs[own],
            scrambled=scrambled,
        )
        found = matching.explanations(part, [(q, c[own]) for q, c in candidates], claimed.name)
        said[names[int(t)]] = str(found[0]) if found else "no known quantity"
    return said if any(text != "no known quantity" for text in said.values()) else {}


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    try:
        return compare.spearman(a, b)
    except ValueError:
        return float("nan")


def _costs(case: Case, entries: Any, theirs: np.ndarray, ours: np.ndarray) -> tuple[Cost, ...]:
    kept = np.array([entries.masks(values, p) for p in SPARSITIES for values in (theirs, ours)])
    losses = exact.losses(case.L, case.w, kept).reshape(-1, 2)
    return tuple(Cost(p, float(a), float(b)) for p, (a, b) in zip(SPARSITIES, losses, strict=True))


def _suggestion(case: Case, best: Explanation | None, others: tuple[Explanation, ...]) -> str:
    """Say which vector tells explanations apart, and what in the case makes them coincide."""
    if not others or best is None:
        return ""
    from pruning.oracle.vector_files import separating

    rivals = dict.fromkeys(one.criterion for one in others if _is_criterion(one) and one.criterion != best.criterion)
    found = {rival: separating(best.criterion, rival) for rival in rivals} if _is_criterion(best) else {}
    reasons = [f"{name} (against {rival})" for rival, name in found.items() if name][:3]
    said = f"Vectors that tell them apart: {', '.join(reasons)}." if reasons else ""
    if {"obd", "fisher"} <= {best.criterion, *rivals}:
        said += " On ReLU networks at l2 = 0 obd and the true Fisher are one; a smooth activation separates them."
    if case.L.n_examples == 1:
        said += " With one example means, sums and squares of means are one; take more."
    return said.strip()


def _is_criterion(one: Explanation) -> bool:
    """Tell whether an explanation is a criterion itself, up to a factor, and not a slip or a function of one."""
    return (
        bool(one.criterion) and one.text.startswith(one.criterion) and one.quantity.partition("(")[0] == one.criterion
    )


def _plain(one: Explanation) -> dict[str, Any]:
    return {
        "text": one.text,
        "quantity": one.quantity,
        "criterion": one.criterion,
        "factor": None if one.factor is None else _number(one.factor),
        "residual": _number(one.residual),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
