"""By which rule was a mask made? The scores are ours, so that only counting, scope, ties and order can differ."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimal_nn import checks
from pruning import criteria, exact
from pruning.oracle.cases import Case

SCOPES = ("global", "layer", "unit")


@dataclass(frozen=True)
class MaskDiagnosis:
    """What a mask is: whether it is the right one, how many entries differ, and every rule that gives exactly it.

    `removed` and `expected` count the removed entries of theirs and of ours; `rules` are in words, the least surprising
    first; `remarks` are facts that no rule explains, such as removed weights that were no candidates. `losses` are the
    exact L(w ∘ mask) of theirs and of ours.
    """

    claims: str
    matches: bool
    removed: int
    expected: int
    different: int
    rules: tuple[str, ...]
    remarks: tuple[str, ...]
    losses: tuple[float, float]

    def __str__(self) -> str:
        lines = [
            f"This {'is' if self.matches else 'is NOT'} the mask of {self.claims}: {self.removed} removed, "
            f"{self.expected} expected, {self.different} entries differ."
        ]
        if not self.matches:
            lines.append(f"It is {self.rules[0]}." if self.rules else "No known rule gives exactly this mask.")
        if len(self.rules) > 1:
            lines += ["This case cannot tell it from:", *(f"  - {rule}" for rule in self.rules[1:8])]
        lines += self.remarks
        if not self.matches:
            lines.append(f"Exact loss by theirs {self.losses[0]:.5g}, by ours {self.losses[1]:.5g}.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain objects."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


def diagnose_mask(
    case: Case,
    mask: Mapping[str, Any],
    claims: str,
    sparsity: float,
    *,
    scope: str = "global",
    among: str = "weight",
    cap: float = 1.0,
    **options: Any,
) -> MaskDiagnosis:
    """Return by which rule the mask was made that claims to remove the lowest `sparsity` by the criterion `claims`.

    `mask` maps names of the model's tensors to arrays of their shapes, True or 1 = kept; tensors that are not named are
    kept. The right mask removes k = floor(sparsity · n + 0.5) of the candidates, the parameters of our layout that
    match `among`; ties go to the lower index; `scope` "layer" or "unit" does so within every tensor or every output
    unit; and no tensor loses more than the share `cap` of its entries, rounded down (the next lowest elsewhere go
    instead). `options` are the criterion's. ValueError for entries other than 0 and 1, unknown names or another scope.
    """
    theirs = case.mask_of(mask)
    scope = checks.one_of("scope", scope, SCOPES)
    sparsity, cap = checks.number("sparsity", sparsity, 0, 1), checks.number("cap", cap, 0, 1)
    rule = _Rules(case, case.L.network.layout.select(among))
    scores = rule.scores(claims, options)
    ours = rule.mask(scores, sparsity, scope, cap=cap)
    rules: list[str] = []
    for variants in (rule.variants(claims, scores, sparsity, scope, cap, theirs), rule.pairs(scores, sparsity)):
        rules = rules or [said for said, made in variants if np.array_equal(made, theirs)]
    matches = bool(np.array_equal(theirs, ours))
    if matches:
        rules = [f"the mask of {claims}", *rules]
    losses = exact.losses(case.L, case.w, np.array([theirs, ours]))
    return MaskDiagnosis(
        claims=f"{claims} at sparsity {sparsity:g}, scope {scope}",
        matches=matches,
        removed=int((~theirs).sum()),
        expected=int((~ours).sum()),
        different=int((theirs != ours).sum()),
        rules=tuple(dict.fromkeys(rules)),
        remarks=tuple(_remarks(case, rule, scores, theirs, ours)),
        losses=(float(losses[0]), float(losses[1])),
    )


class _Rules:
    """The ways to make a mask of scores over w."""

    def __init__(self, case: Case, candidates: np.ndarray) -> None:
        self.case, self.candidates = case, candidates
        P = len(case.w)
        self.groups = {"global": np.zeros(P, int), "layer": np.zeros(P, int), "unit": np.zeros(P, int)}
        for i, tensor in enumerate(case.tensors):
            where = case.index_of(tensor.name)
            self.groups["layer"][where] = i
            units = np.arange(len(where)).reshape(-1, *(1,) * (where.ndim - 1))
            self.groups["unit"][where] = i * P + np.broadcast_to(units, where.shape)

    def scores(self, name: str, options: dict[str, Any]) -> np.ndarray:
        if name == "exact":
            return exact.saliency(self.case.L, self.case.w)
        known = [n for n, entry in criteria.REGISTRY.items() if entry.returns == "scores" and not entry.options]
        checks.one_of("claims", name, ("exact", *known))
        return criteria.REGISTRY[name].function(self.case.L, self.case.w, **options)

    def mask(
        self,
        scores: np.ndarray,
        sparsity: float,
        scope: str,
        *,
        count: str = "round",
        ties: str = "lower",
        among: np.ndarray | None = None,
        cap: float = 1.0,
    ) -> np.ndarray:
        """Return the mask that removes the lowest within every group of the scope."""
        among = self.candidates if among is None else among
        keep, groups = np.ones(len(scores), bool), self.groups[scope]
        if cap < 1:
            return self._capped(scores, sparsity, among, cap, count)
        for group in np.unique(groups[among]):
            own = np.flatnonzero(among & (groups == group))
            if ties == "higher":
                own = own[::-1]
            order = own[np.argsort(scores[own], kind="stable")]
            k = min(max(_COUNTS[count](sparsity * len(own)), 0), len(own))
            if ties == "all" and 0 < k < len(own):
                keep[own[scores[own] <= scores[order[k - 1]]]] = False
            elif ties == "none" and k < len(own):
                keep[own[scores[own] < scores[order[k]]]] = False
            else:
                keep[order[:k]] = False
        return keep

    def _capped(self, scores: np.ndarray, sparsity: float, among: np.ndarray, cap: float, count: str) -> np.ndarray:
        own = np.flatnonzero(among)
        layer, keep = self.groups["layer"], np.ones(len(scores), bool)
        room = {t: math.floor(cap * (among & (layer == t)).sum() + 1e-9) for t in np.unique(layer[own])}
        left = _COUNTS[count](sparsity * len(own))
        for j in own[np.argsort(scores[own], kind="stable")]:
            if left and room[layer[j]]:
                keep[j] = False
                room[layer[j]] -= 1
                left -= 1
        return keep

    def variants(
        self,
        claims: str,
        scores: np.ndarray,
        sparsity: float,
        scope: str,
        cap: float,
        theirs: np.ndarray,
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield rules in words and their masks, one slip at a time."""
        n = int(self.candidates.sum())
        whole = np.ones(len(scores), bool)
        others = [s for s in SCOPES if s != scope]
        if cap < 1:
            yield "the right one without its cap", self.mask(scores, sparsity, scope)
        for count, said in _COUNT_WORDS.items():
            yield f"one that counts {said}", self.mask(scores, sparsity, scope, count=count, cap=cap)
        for ties, said in _TIE_WORDS.items():
            yield f"one {said}", self.mask(scores, sparsity, scope, ties=ties)
        for other in others:
            yield f"one of scope {other}, not {scope}", self.mask(scores, sparsity, other)
        yield "one that removes the highest scores", self.mask(-scores, sparsity, scope)
        yield "one whose True means removed", ~self.mask(scores, sparsity, scope) | ~self.candidates
        yield "one whose True means removed, other parameters included", ~self.mask(scores, sparsity, scope)
        yield "one whose candidates are all parameters, biases too", self.mask(scores, sparsity, scope, among=whole)
        yield f"one of density {sparsity:g}, not of sparsity {sparsity:g}", self.mask(scores, 1 - sparsity, scope)
        yield "the absolute scores' mask", self.mask(np.abs(scores), sparsity, scope)
        for tensor in self.case.tensors:
            alone = np.zeros(len(scores), bool)
            alone[self.case.index_of(tensor.name)] = True
            yield f"one that prunes {tensor.name} alone", self.mask(scores, sparsity, scope, among=alone)
            without = self.candidates & ~alone
            if without.any() and (self.candidates & alone).any():
                yield f"one that leaves out {tensor.name}", self.mask(scores, sparsity, scope, among=without)
        k = int((~theirs).sum())
        if 0 < k < n:
            yield f"the right order with k = {k}", self.mask(scores, k / n, "global")
        for name, entry in (("exact", None), *criteria.REGISTRY.items()):
            if name == claims or (entry is not None and (entry.options or entry.returns == "mask")):
                continue
            try:
                other_scores = self.scores(name, {})
            except (ValueError, FloatingPointError):
                continue
            for other in (scope, *others):
                yield f"the mask of {name}, scope {other}", self.mask(other_scores, sparsity, other)

    def pairs(self, scores: np.ndarray, sparsity: float) -> Iterator[tuple[str, np.ndarray]]:
        """Yield rules with a slip of scope, of counting and of ties at once."""
        for scope, (count, counted), ties in itertools.product(SCOPES, _COUNT_WORDS.items(), ("lower", *_TIE_WORDS)):
            said = f"one of scope {scope} that counts {counted}"
            said += f", {_TIE_WORDS[ties]}" if ties in _TIE_WORDS else ""
            yield said, self.mask(scores, sparsity, scope, count=count, ties=ties)
        everything = np.ones(len(scores), bool)
        for scope, ties in itertools.product(SCOPES, ("lower", *_TIE_WORDS)):
            said = f"one of scope {scope} whose candidates are all parameters"
            said += f", {_TIE_WORDS[ties]}" if ties in _TIE_WORDS else ""
            yield said, self.mask(scores, sparsity, scope, among=everything, ties=ties)
        for group in np.unique(self.groups["layer"]):
            own = self.groups["layer"] == group
            if (own & self.candidates).any():
                least = np.sort(scores[own & self.candidates])
                k = _COUNTS["round"](sparsity * len(least))
                if k:
                    yield f"the threshold of {self.case.tensors[int(group)].name} applied to all", scores > least[k - 1]
        least = np.sort(scores[self.candidates])
        k = _COUNTS["round"](sparsity * len(least))
        if k:
            yield "a threshold taken over the candidates and applied to every parameter", scores > least[k - 1]


_COUNTS = {
    "round": lambda v: math.floor(v + 0.5),
    "floor": lambda v: math.floor(v + 1e-12),
    "ceil": lambda v: math.ceil(v - 1e-12),
    "even": lambda v: round(v),
    "more": lambda v: math.floor(v + 0.5) + 1,
    "less": lambda v: math.floor(v + 0.5) - 1,
}
_COUNT_WORDS = {
    "floor": "k rounded down",
    "ceil": "k rounded up",
    "even": "k rounded half to even",
    "more": "one too many",
    "less": "one too few",
}
_TIE_WORDS = {
    "higher": "whose ties go to the higher index first",
    "all": "with a threshold that takes all ties: scores <= the k-th",
    "none": "with a threshold that spares all ties: scores < the next",
}


def _remarks(case: Case, rule: _Rules, scores: np.ndarray, theirs: np.ndarray, ours: np.ndarray) -> Iterator[str]:
    outside = ~theirs & ~rule.candidates
    if outside.any():
        names = [t.name for t in case.tensors if outside[case.index_of(t.name)].any()]
        yield f"{int(outside.sum())} removed entries are no candidates: {', '.join(names)}."
    gone = np.sort(scores[~theirs & rule.candidates])
    if not np.array_equal(theirs, ours) and np.array_equal(gone, np.sort(scores[~ours])):
        yield "The scores of what is removed are those of the right mask: the two differ in ties alone."
    wrong = [t.name for t in case.tensors if (theirs != ours)[case.index_of(t.name)].any()]
    if wrong and len(wrong) < len(case.tensors):
        yield f"The tensors that differ: {', '.join(wrong)}."
