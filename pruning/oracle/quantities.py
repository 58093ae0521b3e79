"""What a score may turn out to be: every criterion, and what its usual slips compute instead, as vectors over w.

A slip that is a factor, a sign, an absolute value or another layout is not here but in `slips`: it can befall every
quantity. Here are those that change what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minimal_nn import checks, curvature, memory
from minimal_nn.curvature.products import products
from minimal_nn.losses import SoftmaxCrossEntropy
from minimal_nn.objective import Objective
from pruning import criteria, exact

#: without a damping of the caller's, inverses are tried with these
DAMPINGS = (0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: batch sizes in which gradients may have been averaged before they were squared
BATCHES = (2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100, 128, 256)
#: parameters above which no (P, P) matrix is formed
MOST_FOR_MATRICES = 3000
#: parameters above which only criteria and their plain slips are tried
MOST_FOR_VARIANTS = 5_000
#: criteria that cannot be recomputed: drawn, or given a history
_OTHERS = ("random", "fisher_sampled", "movement", "combinatorial")
#: criteria with a damping, and the matrix whose condition decides how many digits they have
_DAMPED = ("obs", "obs_gradient", "obs_layerwise", "woodfisher")


@dataclass(frozen=True)
class Quantity:
    """A named vector (P,) and, for a slip, the criterion it is a slip of; `condition` multiplies rounding."""

    name: str
    vector: np.ndarray
    of: str = ""
    condition: float = 1.0


class Quantities:
    """All quantities of an objective at w, computed when they are first asked for."""

    def __init__(self, L: Objective, w: np.ndarray, options: Mapping[str, Any], batch_size: int | None) -> None:
        self.L, self.w = L, w
        self.options = dict(options)
        self._kept: list[Quantity] = []
        self.batches = BATCHES if batch_size is None else (checks.integer("batch_size", batch_size, 1),)

    def claimed(self, name: str) -> Quantity:
        """Return the criterion of that name with the caller's options, or the exact saliency."""
        if name == "exact":
            return Quantity("exact", self.exact, condition=self._condition(self.exact, abs(self.L(self.w))))
        history = ["movement"] if "trajectory" in self.options else []
        known = [n for n in criteria.REGISTRY if n not in _OTHERS or n in history]
        checks.one_of("claims", name, ("exact", *known))
        vector = criteria.REGISTRY[name].function(self.L, self.w, **self.options)
        return Quantity(_named(name, self.options), vector, name, self._condition_of(name, vector))

    def all(self) -> list[Quantity]:
        """Return all quantities, kept for the next diagnosis where they are small; equal ones of one criterion once."""
        if self._kept:
            return self._kept
        found: dict[tuple[str, bytes], Quantity] = {}
        for quantity in self:
            found.setdefault((quantity.of, quantity.vector.tobytes()), quantity)
        each = list(found.values())
        if len(each) * self.w.nbytes < memory.BUDGET / 8:
            self._kept = each
        return each

    def __iter__(self) -> Iterator[Quantity]:
        yield self.claimed("exact")
        for name in criteria.REGISTRY:
            if name in _OTHERS:
                continue
            for options in self._options_of(name):
                found = self.claimed_plain(name, **options)
                if found is not None:
                    yield found
        yield from self._slips()
        if not self.large:
            from pruning.oracle.variants import all_variants

            yield from all_variants(self)

    def terms(self, claimed: Quantity) -> list[Quantity]:
        """Return the terms of which scores may be weighted sums, what is claimed among them."""
        L, w, h = self.L, self.w, self.hessian_diagonal
        first, fisher = -self.g * w, curvature.fisher_diagonal(L, w, kind="true")
        terms = [
            Quantity("−g_j w_j", first, "taylor_signed"),
            Quantity("|g_j w_j|", np.abs(first), "taylor"),
            Quantity("½ H_jj w_j²", 0.5 * h * w**2, "obd"),
            Quantity("½ |H_jj| w_j²", 0.5 * np.abs(h) * w**2, "obd"),
            Quantity("½ F_jj w_j²", 0.5 * fisher * w**2, "fisher"),
            Quantity("½ w_j² mean of g_nj²", 0.5 * self.moments[1] * w**2, "fisher_empirical"),
            Quantity("½ w_j (Hw)_j", 0.5 * w * L.hvp(w, w), "obd"),
            Quantity("w_j (Hg)_j", w * L.hvp(w, self.g), "grasp"),
            Quantity("w_j²", w**2, "magnitude"),
            Quantity("|w_j|", np.abs(w), "magnitude"),
        ]
        known = {term.vector.tobytes() for term in terms}
        return [*terms, *([claimed] if claimed.vector.tobytes() not in known else [])]

    def claimed_plain(self, name: str, **options: Any) -> Quantity | None:
        """Return a quantity with these options, or None where the criterion cannot be computed here."""
        try:
            if name in ("obs", "obs_gradient"):
                vector = self._obs(name, options["damping"])
            else:
                vector = criteria.REGISTRY[name].function(self.L, self.w, **options)
        except (ValueError, FloatingPointError):
            return None
        return Quantity(_named(name, options), vector, name, self._condition_of(name, vector))

    def _obs(self, name: str, damping: float) -> np.ndarray:
        """Return obs or obs_gradient from the Hessian that is kept."""
        inverse = curvature.inverse(self.hessian, damping)
        step = inverse @ self.g if name == "obs_gradient" else np.zeros_like(self.w)
        return (self.w - step) ** 2 / (2 * np.diagonal(inverse)) - 0.5 * (self.g @ step)

    def _options_of(self, name: str) -> list[dict[str, Any]]:
        if name not in _DAMPED:
            return [{}]
        if "damping" in self.options:
            given = [self.options["damping"]]
            given += [given[0] / self.L.n_examples] if name == "woodfisher" else []
        else:
            given = [1e-4, 1e-2] if self.large else list(DAMPINGS)
        if name in ("obs", "obs_gradient") and len(self.w) > MOST_FOR_MATRICES:
            return []
        return [{"damping": damping} for damping in given]

    def _condition_of(self, name: str, vector: np.ndarray) -> float:
        """Return by how much rounding of ε grows in the criterion: sums that cancel, matrices near to singular."""
        needs = criteria.REGISTRY[name].needs
        if name in ("obs", "obs_gradient") and len(self.w) <= MOST_FOR_MATRICES:
            least, most = np.linalg.eigvalsh(self.hessian)[[0, -1]]
            damping = self.options.get("damping", 0.0)
            return float(max(1.0, (most + damping) / max(least + damping, 1e-300)))
        if "gradients" in needs and name not in ("taylor_squared", "fisher", "fisher_empirical", "woodfisher"):
            scale = self.moments[0] * np.abs(self.w)
            return self._condition(vector, scale.max() if name != "snip" else scale.max() / max(scale.sum(), 1e-300))
        return 1.0

    @staticmethod
    def _condition(vector: np.ndarray, scale: float) -> float:
        largest = np.abs(vector[np.isfinite(vector)]).max(initial=0)
        return float(max(1.0, scale / largest)) if largest else 1.0

    def _slips(self) -> Iterator[Quantity]:
        L, w = self.L, self.w
        yield Quantity("w², the square of the weight", w**2, "magnitude")
        yield Quantity("w itself, with its sign", w, "magnitude")
        yield Quantity("the gradient g_j, without the weight", self.g, "taylor_signed")
        variance = self.moments[2]
        yield Quantity("g_j w_j²: the weight squared", self.g * w**2, "taylor")
        yield Quantity(
            "(g_j w_j)²: the square of the mean gradient, not the mean of squares", (self.g * w) ** 2, "taylor_squared"
        )
        yield Quantity("the mean of |g_nj w_j|: absolute values before the mean", self.moments[0] * np.abs(w), "taylor")
        yield Quantity(
            "the standard deviation of g_nj w_j: the mean gradient taken out",
            np.sqrt(variance) * np.abs(w),
            "fisher_empirical",
        )
        yield Quantity("the variance of g_nj w_j: the mean gradient taken out", variance * w**2, "fisher_empirical")
        diagonals = {
            "obd": ("H_jj", self.hessian_diagonal),
            "fisher": ("F_jj", curvature.fisher_diagonal(L, w, kind="true")),
            "fisher_empirical": ("the empirical F_jj", self.moments[1]),
        }
        for name, (symbol, diagonal) in diagonals.items():
            yield Quantity(f"{symbol}, without the weight", diagonal, name)
            yield Quantity(f"{symbol} |w_j|: the weight not squared", diagonal * np.abs(w), name)
            yield Quantity(f"{symbol} w_j: the weight not squared", diagonal * w, name)
        yield from self._second_order_slips()
        yield from self._data_slips()
        yield from self._layer_slips()
        if isinstance(L.loss, SoftmaxCrossEntropy):
            z = L.network.forward(w, L.x)
            yield Quantity(
                "½ w_j² times the mean of g_nj² for the labels the model finds most likely",
                0.5 * self._squares_for(z.argmax(axis=1)) * w**2,
                "fisher",
            )
            uniform = np.mean([self._squares_for(np.full(L.n_examples, c)) for c in range(L.n_outputs)], axis=0)
            yield Quantity(
                "½ w_j² times the mean of g_nj² for every class with the same weight", 0.5 * uniform * w**2, "fisher"
            )
        if L.l2:
            bare = Objective(L.network, L.loss, L.x, L.y)
            without = Quantities(bare, w, self.options, None)
            for name in ("taylor", "taylor_signed", "taylor_second", "obd", "obd_recursive", "snip", "grasp"):
                found = without.claimed_plain(name)
                if found is not None:
                    yield Quantity(f"{name} without the l2 penalty", found.vector, name, found.condition)
            yield Quantity("exact without the l2 penalty", without.exact, "exact", without.claimed("exact").condition)
        if "trajectory" in self.options:
            yield from self._history_slips()

    def _squares_for(self, labels: np.ndarray) -> np.ndarray:
        """Return the mean of g_nj² (P,) with these labels in place of the data's."""
        other = Objective(self.L.network, self.L.loss, self.L.x, labels)
        return curvature.fisher_diagonal(other, self.w, kind="empirical")

    def _history_slips(self) -> Iterator[Quantity]:
        steps = self.options["trajectory"]
        gradients = np.array([self.L.gradient(at) for at in steps])
        yield Quantity("−g_j w_j of the last step only", -steps[-1] * gradients[-1], "movement")
        yield Quantity(
            "−w_j Σ_t g_tj: the last weight for that of each step", -steps[-1] * gradients.sum(axis=0), "movement"
        )
        yield Quantity(
            "Σ_t |w_tj g_tj|: absolute values before the sum", np.abs(steps * gradients).sum(axis=0), "movement"
        )

    def _second_order_slips(self) -> Iterator[Quantity]:
        L, w, h = self.L, self.w, self.hessian_diagonal
        for a, b in ((-1, 1), (1, 0.5), (1, 2), (2, 1), (-1, 2), (-1, 0.5)):
            said = f"taylor_second with {a:g} of −g_j w_j and {b:g} of ½ H_jj w_j²"
            yield Quantity(said, -a * self.g * w + 0.5 * b * h * w**2, "taylor_second")
        if len(w) <= MOST_FOR_MATRICES:
            G = curvature.gauss_newton(L, w)
            yield Quantity("½ G_jj w_j²: Gauss-Newton for the Hessian", 0.5 * np.diag(G) * w**2, "obd")
            if L.l2:
                yield Quantity(
                    "½ (G_jj + l2) w_j²: Gauss-Newton for the Hessian", 0.5 * (np.diag(G) + L.l2) * w**2, "obd"
                )
            yield Quantity("w_j (Hw)_j: the row of H, not its diagonal", w * (self.hessian @ w), "obd")
            pseudo = np.diag(np.linalg.pinv(self.hessian, hermitian=True))
            found = np.divide(w**2, 2 * pseudo, out=np.zeros_like(w), where=np.abs(pseudo) > 1e-12)
            yield Quantity("w_j² / (2 [H⁺]_jj): the pseudo-inverse", found, "obs")
            for damping in [self.options["damping"]] if "damping" in self.options else DAMPINGS:
                yield from self._inverse_slips(float(damping))
        yield Quantity(
            "w_j² / (2 H_jj): divided by the diagonal of H",
            np.divide(w**2, 2 * h, out=np.zeros_like(w), where=h != 0),
            "obs",
        )
        yield Quantity("(Hg)_j, without the weight", L.hvp(w, self.g), "grasp")
        yield Quantity("w_j (Hw)_j: H times w, not times g", w * L.hvp(w, w), "grasp")

    def _inverse_slips(self, damping: float) -> Iterator[Quantity]:
        w = self.w
        for of, diagonal, title in (
            ("obs", self.hessian_diagonal, "H"),
            ("woodfisher", self.moments[1], "the empirical Fisher"),
        ):
            said = f"the inverse of the diagonal of {title}, not the diagonal of the inverse"
            yield Quantity(f"½ w_j² ({title}_jj + {damping:g}): {said}", 0.5 * w**2 * (diagonal + damping), of)
        for of, M, title in (
            ("obs", self.hessian, "H"),
            ("obs", self.gauss_newton, "Gauss-Newton"),
            ("woodfisher", self.empirical, "the empirical Fisher"),
        ):
            try:
                diagonal = np.diag(curvature.inverse(M, damping))
            except ValueError:
                continue
            said = f"[({title} + {damping:g} I)⁻¹]_jj"
            yield Quantity(f"1/{said}, without the weight", 1 / diagonal, of)
            yield Quantity(f"w_j² {said}: multiplied, not divided, by the inverse", w**2 * diagonal, of)
            yield Quantity(f"|w_j| / {said}: the weight not squared", np.abs(w) / diagonal, of)
            if title != "H":
                yield Quantity(f"w_j² / (2 {said})", w**2 / (2 * diagonal), of)

    def _data_slips(self) -> Iterator[Quantity]:
        """Yield what is computed from some of the examples only, or from batches that are averaged the wrong way."""
        N = self.L.n_examples
        parts = {"the last example": slice(N - 1, N), "the first example": slice(0, 1)}
        for b in () if self.large else self.batches:
            if 1 < b < N:
                parts[f"the first batch of {b}"] = slice(0, b)
                parts[f"the last batch of {b}"] = slice(b * ((N - 1) // b), N)
        for said, part in parts.items():
            if N > 1:
                yield from self._of_part(said, part)
        for b in () if self.large else self.batches:
            if 1 < b < N:
                yield from self._of_batches(b)

    def _of_part(self, said: str, part: slice) -> Iterator[Quantity]:
        L, w = self.L.subset(part), self.w
        rows, penalty = L.per_example_gradients(w), self.L.l2 * w
        g = rows.mean(axis=0) + penalty
        yield Quantity(f"taylor of {said} only", np.abs(g * w), "taylor")
        yield Quantity(f"taylor_signed of {said} only", -g * w, "taylor_signed")
        yield Quantity(f"taylor_squared of {said} only", (rows**2).mean(axis=0) * w**2, "taylor_squared")
        diagonal = curvature.hessian_diagonal(L, w)
        yield Quantity(f"obd of {said} only", 0.5 * diagonal * w**2, "obd")
        yield Quantity(f"fisher of {said} only", criteria.fisher(L, w), "fisher")
        yield Quantity(f"taylor_second of {said} only", -g * w + 0.5 * diagonal * w**2, "taylor_second")
        yield Quantity(f"wanda of {said} only", criteria.wanda(L, w), "wanda")
        yield Quantity(f"exact of {said} only", exact.saliency(L, w), "exact")

    def _of_batches(self, b: int) -> Iterator[Quantity]:
        N, w = self.L.n_examples, self.w
        means = np.array([self.rows[s : s + b].mean(axis=0) for s in range(0, N, b)]) + self.L.l2 * w
        sums = np.array([self.rows[s : s + b].sum(axis=0) for s in range(0, N, b)])
        yield Quantity(f"the mean over batches of {b} of (g_bj w_j)²", (means**2).mean(axis=0) * w**2, "taylor_squared")
        yield Quantity(f"the mean over batches of {b} of |g_bj w_j|", np.abs(means * w).mean(axis=0), "taylor")
        yield Quantity(
            f"the mean over batches of {b} of (sum of g_nj w_j)²", (sums**2).mean(axis=0) * w**2, "taylor_squared"
        )
        if N % b:
            name = "averaged over batches of unequal size as if they were equal"
            yield Quantity(f"taylor {name} ({b})", np.abs(means.mean(axis=0) * w), "taylor")
            yield Quantity(f"taylor_signed {name} ({b})", -means.mean(axis=0) * w, "taylor_signed")
            squares = np.array([(self.rows[s : s + b] ** 2).mean(axis=0) for s in range(0, N, b)])
            yield Quantity(f"fisher_empirical {name} ({b})", 0.5 * squares.mean(axis=0) * w**2, "fisher_empirical")
            parts = [self.L.subset(slice(s, s + b)) for s in range(0, N, b)]
            obd = np.mean([criteria.obd(part, w) for part in parts], axis=0)
            yield Quantity(f"obd {name} ({b})", obd, "obd")
            fisher = np.mean([criteria.fisher(part, w) for part in parts], axis=0)
            yield Quantity(f"fisher {name} ({b})", fisher, "fisher")

    def _layer_slips(self) -> Iterator[Quantity]:
        w = self.w
        norms: dict[str, np.ndarray] = {key: np.zeros_like(w) for key in ("ℓ1", "max", "mean", "squares", "mean abs")}
        counted = np.ones_like(w)
        for index, x in products(self.L, w):
            norms["ℓ1"][index] += np.abs(x).sum(axis=0)[:, None]
            norms["mean"][index] += x.sum(axis=0)[:, None]
            norms["squares"][index] += (x**2).sum(axis=0)[:, None]
            norms["max"][index] = np.maximum(norms["max"][index], np.abs(x).max(axis=0)[:, None])
            counted[index] = len(x)
        yield Quantity("|w| ‖X‖₁: the sum of |x|, not its root mean square", np.abs(w) * norms["ℓ1"], "wanda")
        yield Quantity("|w| max |x|", np.abs(w) * norms["max"], "wanda")
        yield Quantity("|w| |mean of x|: the mean before the absolute value", np.abs(w * norms["mean"]), "wanda")
        yield Quantity("‖X‖₂, without the weight", np.sqrt(norms["squares"]), "wanda")
        yield Quantity("|w| ‖X‖₂²: the square root missing", np.abs(w) * norms["squares"], "wanda")
        variance = norms["squares"] / counted - (norms["mean"] / counted) ** 2
        yield Quantity("|w| times the standard deviation of x", np.abs(w) * np.sqrt(np.maximum(variance, 0)), "wanda")
        scores = np.zeros_like(w)
        layout = self.L.network.layout
        for name in layout:
            own = np.arange(layout[name].start, layout[name].stop)
            ascending = own[np.argsort(w[own] ** 2, kind="stable")]
            running = np.cumsum(w[ascending] ** 2)
            scores[ascending] = np.divide(w[ascending] ** 2, running, out=np.zeros(len(own)), where=running > 0)
        yield Quantity("w_j² over the sum of what is smaller: lamp in the wrong order", scores, "lamp")

    @property
    def dampings(self) -> list[float]:
        """The dampings that inverses are tried with: the caller's, or the usual ones."""
        return [float(self.options["damping"])] if "damping" in self.options else [1e-4, 1e-2, 1.0]

    @property
    def large(self) -> bool:
        """Whether there are too many parameters, or gradients of examples, for slips of batches and for variants."""
        P, N = len(self.w), self.L.n_examples
        return P > MOST_FOR_VARIANTS or 8 * N * P > memory.BUDGET / 2

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The means over examples of |g_nj| and of g_nj², and the variance of g_nj, each (P,)."""
        absolute, squares = np.zeros_like(self.w), np.zeros_like(self.w)
        centred, N = np.zeros_like(self.w), self.L.n_examples
        mean = self.g - self.L.l2 * self.w
        for trace, y in self.L.traces(self.w, extra=3 * len(self.w)):
            rows = self.L.network.per_example_vjp(self.w, trace, self.L.loss.gradient(trace[-1], y))
            absolute += np.abs(rows).sum(axis=0)
            squares += (rows**2).sum(axis=0)
            centred += ((rows - mean) ** 2).sum(axis=0)
        return absolute / N, squares / N, centred / N

    @cached_property
    def g(self) -> np.ndarray:
        """The gradient (P,), l2 included."""
        return self.L.gradient(self.w)

    @cached_property
    def rows(self) -> np.ndarray:
        """The gradients of the examples (N, P), without l2."""
        return self.L.per_example_gradients(self.w)

    @cached_property
    def hessian_diagonal(self) -> np.ndarray:
        """The diagonal of H (P,)."""
        return curvature.hessian_diagonal(self.L, self.w)

    @cached_property
    def hessian(self) -> np.ndarray:
        """H (P, P)."""
        return curvature.hessian(self.L, self.w)

    @cached_property
    def gauss_newton(self) -> np.ndarray:
        """G (P, P)."""
        return curvature.gauss_newton(self.L, self.w)

    @cached_property
    def empirical(self) -> np.ndarray:
        """The empirical Fisher (P, P)."""
        return self.rows.T @ self.rows / self.L.n_examples

    @cached_property
    def exact(self) -> np.ndarray:
        """The exact saliency (P,)."""
        return exact.saliency(self.L, self.w)


def _named(name: str, options: Mapping[str, Any]) -> str:
    said = ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in options.items()
        if not isinstance(value, np.ndarray)
    )
    return f"{name}({said})" if said else name
