"""Does a foreign score equal a known quantity, up to what usually goes wrong around it?

Around a quantity c there are, in any combination, a transform (|c|, c², √|c|), another layout in memory, and a factor,
one for all or one for each tensor; at the end of the list, only an order in common. Every match is an explanation, and
the one that assumes least is the best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from minimal_nn import memory
from pruning.oracle.quantities import Quantity

#: a transform's name, what it does, and how unlikely it is
TRANSFORMS = (
    ("{}", lambda c: c, 0.0),
    ("|{}|", np.abs, 1.0),
    ("({})²", np.square, 1.5),
    ("√|{}|", lambda c: np.sqrt(np.abs(c)), 1.5),
    ("max({}, 0)", lambda c: np.maximum(c, 0), 1.5),
    ("max(−{}, 0)", lambda c: np.maximum(-c, 0), 2.0),
)
#: groups times scores beyond which no factor of its own is looked for in each group: every one takes a pass over all
_MOST_GROUPED = 2_000_000
#: errors up to which scores count as a rounded or slightly changed version of a quantity, where nothing fits exactly
_CLOSE = 0.03


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
    """Scores to be explained: their values (n,), which tensor, output unit and input each is of, and other layouts.

    `scrambled` (n,) is where each entry would stand if every matrix had been written in the other order of its axes.
    `N` and `C` are the examples and outputs, after which factors are named.
    """

    values: np.ndarray
    tensors: np.ndarray
    outputs: np.ndarray
    inputs: np.ndarray
    scrambled: np.ndarray
    tolerance: float
    N: int
    C: int


def explanations(
    foreign: Foreign, quantities: Sequence[tuple[Quantity, np.ndarray]], claims: str | None
) -> list[Explanation]:
    """Return all explanations, the least surprising first; `quantities` come with their values (n,) at the entries.

    All quantities are tried at once, in pieces within the memory budget, and only those that may fit one by one.
    """
    usable = [(q, c) for q, c in quantities if np.isfinite(c).all() and c.any()]
    found: dict[str, Explanation] = {}
    for piece in memory.pieces(len(usable), 12 * 8 * len(foreign.values)):
        _explain(foreign, usable[piece], claims, found)
    return sorted(found.values(), key=lambda one: (one.surprise, one.residual))


def _explain(
    foreign: Foreign, usable: list[tuple[Quantity, np.ndarray]], claims: str | None, found: dict[str, Explanation]
) -> None:
    """Enter the explanations by these quantities, the least surprising of each."""
    values = np.stack([c for _, c in usable])
    limits = np.array([allowed(foreign, q.condition) for q, _ in usable])
    for form, transform, unlikely in TRANSFORMS:
        with np.errstate(over="ignore"):
            changed = transform(values)
        new = np.ones(len(usable), bool) if not unlikely else (changed != values).any(axis=1)
        for said, order, moved in _layouts(foreign):
            candidates = changed[:, order]
            for k in np.flatnonzero(new & _plausible(foreign, candidates, limits)):
                quantity = usable[k][0]
                match = _match(foreign, candidates[k], quantity.condition)
                if match is None or (moved and np.array_equal(candidates[k], changed[k])):
                    continue
                text, factor, residual, more = match
                surprise = _strangeness(quantity, claims) + unlikely + moved + more
                if quantity.name not in found or surprise < found[quantity.name].surprise:
                    named = form.format(quantity.name) + said + text
                    found[quantity.name] = Explanation(
                        named, quantity.name, quantity.of, factor, residual, surprise, candidates[k]
                    )


def _strangeness(quantity: Quantity, claims: str | None) -> float:
    """Return how surprising a quantity is by itself: least what is claimed, then criteria, then slips of others."""
    strange = 0.0 if quantity.name == claims else 1.0 if quantity.of == quantity.name.partition("(")[0] else 1.5
    return strange - (0.5 if claims and quantity.of == claims.partition("(")[0] else 0.0)


def _plausible(foreign: Foreign, C: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Tell which candidates (M, n) may match in one of the ways of `_match`; limits (M,) are their tolerances."""
    f = foreign.values
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        ok = _disproportion(f, C) <= limits
        for groups in (foreign.tensors, foreign.outputs, foreign.inputs):
            ids = np.unique(groups)
            if 1 < len(ids) <= min(len(f) - 3, max(10, _MOST_GROUPED // len(f))):
                worst = np.zeros(len(C))
                for g in ids:
                    worst = np.fmax(worst, _disproportion(f[groups == g], C[:, groups == g]))
                ok |= worst <= limits
        ok |= _bend(f, C) <= limits
        parts = [own for own in (foreign.tensors == t for t in np.unique(foreign.tensors)) if own.sum() >= 4]
        if parts:
            ok |= np.max([_bend(f[own], C[:, own]) for own in parts], axis=0) <= limits
    return np.asarray(ok)


def _disproportion(f: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Return by how much f differs from the multiple of each candidate (M, n) that fits its largest entry (M,)."""
    rows, at = np.arange(len(C)), np.abs(C).argmax(axis=1)
    fitted = (f[at] / C[rows, at])[:, None] * C
    error = np.abs(f - fitted).max(axis=1) / np.abs(fitted).max(axis=1)
    return np.where(np.isnan(error), 0.0 if not f.any() else np.inf, error)


def _bend(f: np.ndarray, C: np.ndarray) -> np.ndarray:
    """Return by how much f differs from the straight line in each candidate through its least and largest entry."""
    rows, low, high = np.arange(len(C)), C.argmin(axis=1), C.argmax(axis=1)
    a = (f[high] - f[low]) / (C[rows, high] - C[rows, low])
    b = f[low] - a * C[rows, low]
    error = np.abs(f - a[:, None] * C - b[:, None]).max(axis=1) / max(np.abs(f).max(), 1e-300)
    return np.where(np.isnan(error), np.inf, error)


def _layouts(foreign: Foreign) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield how entries may have been moved, as an order of all of them, and how unlikely it is."""
    still = np.arange(len(foreign.values))
    yield "", still, 0.0
    if (foreign.scrambled != still).any():
        yield ", its matrices written transposed", foreign.scrambled, 1.5
    for step, said in ((1, "before"), (-1, "behind")):
        yield f", that of the entry {said}", np.roll(still, step), 2.5


def precision_of(values: np.ndarray, dtype: np.dtype) -> np.dtype:
    """Return the dtype the scores were computed in: that of the array, or float32 where it holds all their digits."""
    with np.errstate(over="ignore"):
        single = np.dtype(dtype) == np.float64 and np.array_equal(values, values.astype(np.float32))
    return np.dtype(np.float32 if single and not np.array_equal(values, np.round(values)) else dtype)


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


def enough(numbers: int, fitted: int, tolerance: float) -> bool:
    """Tell whether so many numbers, less what is fitted to them, at this tolerance, are no accident.

    About 10⁵ candidates are tried, each of which a random number meets with a chance of about the tolerance.
    """
    return (numbers - fitted) * -np.log10(max(tolerance, 1e-16)) >= 8


def _match(foreign: Foreign, c: np.ndarray, condition: float) -> tuple[str, float | None, float, float] | None:
    tolerance = allowed(foreign, condition)
    n, factor = len(c), factor_of(foreign.values, c)
    if factor and enough(n, 1, tolerance) and (error := relative_error(foreign.values, factor * c)) <= tolerance:
        said, named, more = _say_factor(factor, foreign, tolerance)
        return said, named, min(error, relative_error(foreign.values, named * c)), more
    for groups, said, surprise in (
        (foreign.tensors, "every tensor with a factor of its own", 3.0),
        (foreign.outputs, "every output unit with a factor of its own", 4.0),
        (foreign.inputs, "every input with a factor of its own", 4.4),
    ):
        fitted = _by_group(foreign.values, c, groups, tolerance)
        if fitted is not None and enough(n, len(fitted[0]), tolerance):
            factors, error = fitted
            listed = ": " + ", ".join(f"{f:.4g}" for f in factors) if len(factors) <= 12 else ""
            return f", {said}{listed} (normalised by group)", None, error, surprise
    shifted = _affine(foreign.values, c, tolerance)
    if shifted is not None and enough(n, 2, tolerance):
        a, b, error = shifted
        return f", times {a:.6g}, plus {b:.6g}", None, error, 3.6
    parts = [foreign.tensors == t for t in np.unique(foreign.tensors)]
    if len(parts) > 1:
        large = [own for own in parts if own.sum() >= 4]
        each = [_affine(foreign.values[own], c[own], tolerance) for own in large]
        if (
            all(found is not None for found in each)
            and enough(n, 2 * len(parts), tolerance)
            and 5 * sum(own.sum() for own in large) >= 4 * len(c)
        ):
            error = max(found[2] for found in each if found is not None)
            return ", every tensor scaled and shifted by itself (such as min-max)", None, error, 4.0
    return None


def _by_group(
    theirs: np.ndarray, ours: np.ndarray, groups: np.ndarray, tolerance: float
) -> tuple[list[float], float] | None:
    """Return a factor for every group and the largest error, None where they do not fit or fit anything."""
    _, which, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2 or len(theirs) - len(sizes) < max(3, len(theirs) // 3):
        return None
    factors, worst = [], 0.0
    for g in range(len(sizes)):
        own = which == g
        factor = factor_of(theirs[own], ours[own])
        error = relative_error(theirs[own], factor * ours[own])
        if not factor or error > tolerance:
            return None
        factors.append(factor)
        worst = max(worst, error)
    return factors, worst


def _affine(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> tuple[float, float, float] | None:
    """Return a, b and the error of theirs = a · ours + b, None where it does not hold or b says nothing."""
    if len(theirs) < 4:
        return None
    low, high = int(np.argmin(ours)), int(np.argmax(ours))
    reach = ours[high] - ours[low]
    if not reach > 1e-9 * np.abs(ours).max():
        return None
    a = (theirs[high] - theirs[low]) / reach
    b = theirs[low] - a * ours[low]
    error = np.abs(theirs - a * ours - b).max() / max(np.abs(theirs).max(), 1e-300)
    varies = np.ptp(theirs) > 1e-6 * np.abs(theirs).max()
    return (float(a), float(b), float(error)) if a and varies and error <= tolerance else None


def sums(foreign: Foreign, terms: Sequence[tuple[Quantity, np.ndarray]], claims: str) -> list[Explanation]:
    """Return the weighted sums of two terms that the scores are, fitted by least squares."""
    found = []
    for (p, a), (q, b) in itertools.combinations(terms, 2):
        columns = np.stack([a, b], axis=1)
        if len(a) < 6 or not np.isfinite(columns).all():
            continue
        weights, _, rank, _ = np.linalg.lstsq(columns, foreign.values, rcond=None)
        error = relative_error(foreign.values, columns @ weights)
        parts = np.abs(weights) * np.abs(columns).max(axis=0)
        if (
            rank == 2
            and enough(len(a), 2, foreign.tolerance)
            and error <= foreign.tolerance
            and parts.min() > 1e-4 * np.abs(foreign.values).max()
        ):
            text = f"{weights[0]:.6g} · ({p.name}) + {weights[1]:.6g} · ({q.name})"
            of = claims.partition("(")[0]
            surprise = 3.0 - 0.5 * (of in (p.of, q.of))
            found.append(Explanation(text, text, of, None, error, surprise, columns @ weights))
    return sorted(found, key=lambda one: one.surprise)


def close(foreign: Foreign, candidates: Sequence[tuple[Quantity, np.ndarray]], claims: str) -> list[Explanation]:
    """Return the quantities that the scores nearly are, factor 1: rounded, or computed at slightly other weights."""
    found = []
    for quantity, c in candidates:
        if not np.isfinite(c).all() or not c.any():
            continue
        error = relative_error(foreign.values, c)
        if error <= _CLOSE and enough(len(c), 0, _CLOSE):
            surprise = (5.2 if quantity.name == claims else 5.8) + 10 * error
            text = f"nearly {quantity.name}, to {error:.2g} of the largest: rounded, or at slightly other weights"
            found.append(Explanation(text, quantity.name, quantity.of, 1.0, error, surprise, c))
    return sorted(found, key=lambda one: one.surprise)


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
        if not np.isfinite(c).all() or math.lgamma(len(c) + 1) < math.log(2000 * len(candidates)):
            continue  # so few numbers are in the order of one of so many candidates by accident
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
