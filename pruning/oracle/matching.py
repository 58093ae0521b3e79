"""Does a foreign score equal a known quantity, up to what usually goes wrong around it?

Around a quantity c there are, in any combination, a transform (|c|, c², √|c|), another layout in memory, and a factor,
one for all or one for each tensor; at the end of the list, only an order in common. Every match is an explanation, and
the one that assumes least is the best.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pruning.oracle.quantities import Quantity

#: a transform's name, what it does, and how unlikely it is
TRANSFORMS = (
    ("{}", lambda c: c, 0.0),
    ("|{}|", np.abs, 1.0),
    ("({})²", np.square, 1.5),
    ("√|{}|", lambda c: np.sqrt(np.abs(c)), 1.5),
)


@dataclass(frozen=True)
class Explanation:
    """A known quantity that the scores equal: theirs = factor · quantity, to `residual` of the largest of theirs.

    `factor` is one number, or None where every tensor has its own or only the order agrees; `surprise` orders
    explanations, the least surprising first. `vector` (P,) is what theirs would be exactly.
    """

    text: str
    quantity: str
    criterion: str
    factor: float | None
    residual: float
    surprise: float
    vector: np.ndarray

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Foreign:
    """Scores to be explained: their values (n,), where they stand (n,), which tensor each is of, and other layouts.

    `scrambled` (n,) is where each entry would stand if every matrix had been written in the other order of its axes.
    `N` and `C` are the examples and outputs, after which factors are named.
    """

    values: np.ndarray
    tensors: np.ndarray
    scrambled: np.ndarray
    tolerance: float
    N: int
    C: int


def explanations(
    foreign: Foreign, quantities: Iterator[tuple[Quantity, np.ndarray]], claims: str | None
) -> list[Explanation]:
    """Return all explanations, the least surprising first; `quantities` come with their values (n,) at the entries."""
    found: dict[str, Explanation] = {}
    for quantity, c in quantities:
        if not np.isfinite(c).all() or not c.any():
            continue
        strange = 0.0 if quantity.name == claims else 1.0 if quantity.of == quantity.name.partition("(")[0] else 1.5
        strange -= 0.5 if claims and quantity.of == claims.partition("(")[0] else 0.0
        for form, transform, unlikely in TRANSFORMS:
            with np.errstate(over="ignore"):
                changed = transform(c)
            if unlikely and np.array_equal(changed, c):
                continue
            for scramble in (False, True):
                candidate = changed[foreign.scrambled] if scramble else changed
                if scramble and np.array_equal(candidate, changed):
                    continue
                text = form.format(quantity.name) + (", its matrices written transposed" if scramble else "")
                match = _match(foreign, candidate, quantity.condition)
                if match is None:
                    continue
                said, factor, residual, more = match
                surprise = strange + unlikely + 1.5 * scramble + more
                one = Explanation(text + said, quantity.name, quantity.of, factor, residual, surprise, candidate)
                key = f"{quantity.name}"
                if key not in found or surprise < found[key].surprise:
                    found[key] = one
    return sorted(found.values(), key=lambda one: (one.surprise, one.residual))


def tolerance_for(dtype: np.dtype) -> float:
    """Return the relative error, of the largest, up to which scores of this dtype count as equal at condition 1."""
    return {"float32": 2e-4, "float16": 2e-2}.get(np.dtype(dtype).name, 1e-8)


def allowed(foreign: Foreign, condition: float) -> float:
    """Return the tolerance for a quantity of this condition number, at most a hundredth."""
    return min(max(foreign.tolerance, 1e-3 * foreign.tolerance * condition), max(1e-2, foreign.tolerance))


def relative_error(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return max |theirs − ours| / max |ours|, the larger of the two maxima where ours are 0."""
    scale = np.abs(ours).max(initial=0) or np.abs(theirs).max(initial=0) or 1.0
    return float(np.abs(theirs - ours).max(initial=0) / scale)


def factor_of(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return the factor of the largest entry of ours: exact where all are in proportion."""
    j = int(np.argmax(np.abs(ours)))
    return float(theirs[j] / ours[j]) if ours[j] else 0.0


def _match(foreign: Foreign, c: np.ndarray, condition: float) -> tuple[str, float | None, float, float] | None:
    tolerance = allowed(foreign, condition)
    factor = factor_of(foreign.values, c)
    if factor and (error := relative_error(foreign.values, factor * c)) <= tolerance:
        said, named, more = _say_factor(factor, foreign, tolerance)
        return said, named, min(error, relative_error(foreign.values, named * c)), more
    each = [foreign.tensors == t for t in np.unique(foreign.tensors)]
    if len(each) > 1:
        factors = [factor_of(foreign.values[own], c[own]) for own in each]
        errors = [relative_error(foreign.values[own], f * c[own]) for own, f in zip(each, factors, strict=True)]
        if all(factors) and max(errors) <= tolerance and min(own.sum() for own in each) > 1:
            text = ", every tensor with a factor of its own: " + ", ".join(f"{f:.4g}" for f in factors)
            return text + " (normalised by layer)", None, max(errors), 3.0
    return None


def named_factors(N: int, C: int) -> list[tuple[float, str, float]]:
    """Return (factor, name, surprise) of the usual slips of scale, the likeliest first."""
    named = [(1.0, "", 0.0), (2.0, "2", 0.6), (0.5, "½", 0.6), (N, f"N = {N}", 0.7), (1 / N, f"1/N, N = {N}", 0.7)]
    named += [(C, f"C = {C}", 0.8), (1 / C, f"1/C, C = {C}", 0.8), (4.0, "4", 1.2), (0.25, "¼", 1.2)]
    named += [(2.0 * N, f"2N, N = {N}", 1.1), (0.5 * N, f"N/2, N = {N}", 1.1), (2 / N, f"2/N, N = {N}", 1.1)]
    named += [
        (0.5 / N, f"1/(2N), N = {N}", 1.1),
        (float(N) ** 2, f"N², N = {N}", 1.2),
        (N**-2.0, f"1/N², N = {N}", 1.2),
    ]
    named += [(N * C, f"N·C = {N * C}", 1.2), (1 / (N * C), f"1/(N·C), N·C = {N * C}", 1.2)]
    named += [(np.sqrt(N), f"√N, N = {N}", 1.2), (1 / np.sqrt(N), f"1/√N, N = {N}", 1.2)]
    named += [(N - 1.0, f"N − 1, N = {N}", 1.5), (N / max(N - 1, 1), f"N/(N − 1), N = {N}", 1.3)]
    return named


def _say_factor(factor: float, foreign: Foreign, tolerance: float) -> tuple[str, float, float]:
    for value, name, surprise in named_factors(foreign.N, foreign.C):
        for sign, minus, more in ((1, "", 0.0), (-1, "−", 0.8)):
            if abs(factor - sign * value) <= 2 * tolerance * value:
                said = f", times {minus}{name}" if name else ", with the sign reversed" if sign < 0 else ""
                return said, sign * value, surprise + more
    return f", times {factor:.6g}", factor, 2.0


def monotone(foreign: Foreign, candidates: Sequence[tuple[Quantity, np.ndarray]]) -> list[Explanation]:
    """Return the quantities that only the order is shared with: over all entries, or within every tensor."""
    found = []
    for quantity, c in candidates:
        if not np.isfinite(c).all() or len(c) < 4:
            continue
        groups = [foreign.tensors == t for t in np.unique(foreign.tensors)]
        for sign, reversed_ in ((1, ""), (-1, " reversed")):
            if _same_order(foreign.values, sign * c):
                text, more = f"an increasing function of {quantity.name}: the same ranking{reversed_}", 5.0
            elif len(groups) > 1 and all(_same_order(foreign.values[own], sign * c[own]) for own in groups):
                text, more = f"the ranking of {quantity.name}{reversed_} within every tensor, not between them", 6.0
            else:
                continue
            surprise = more + (0.0 if quantity.of == quantity.name else 1.0) + (0.5 if reversed_ else 0.0)
            found.append(Explanation(text, quantity.name, quantity.of, None, float("nan"), surprise, c))
    return sorted(found, key=lambda one: one.surprise)


def _same_order(a: np.ndarray, b: np.ndarray) -> bool:
    """Tell whether a is a strictly increasing function of b, rounding of equal values aside."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return len(a) < 2 or (np.ptp(a) == 0) == (np.ptp(b) == 0)
    order = np.argsort(b, kind="stable")
    rises, steps = np.diff(a[order]), np.diff(b[order])
    tie_a, tie_b = 1e-12 * np.ptp(a), 1e-12 * np.ptp(b)
    return bool((rises >= -tie_a).all() and ((rises > tie_a) == (steps > tie_b)).mean() > 0.99)
