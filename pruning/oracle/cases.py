"""A case: an objective at a point w, and how a foreign implementation names its tensors and lays them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minimal_nn import checks, curvature
from minimal_nn.objective import Objective
from pruning import criteria, exact

if TYPE_CHECKING:
    from pruning.oracle.diagnosis import Diagnosis
    from pruning.oracle.mask_diagnosis import MaskDiagnosis


@dataclass(frozen=True)
class Tensor:
    """A foreign tensor: its name, ours, and the order of our axes in it, foreign = ours.transpose(axes)."""

    name: str
    ours: str
    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """A network, data, loss and weights on which somebody else's scores can be compared with ours.

    L and w (P,) are ours, in float64. `tensors` name every parameter as the foreign model does, in its order. What the
    methods return are dictionaries keyed and laid out like the foreign model's own parameters, and what they take is
    too. `name` says which model it was.
    """

    L: Objective
    w: np.ndarray
    tensors: tuple[Tensor, ...]
    name: str = "case"

    def __post_init__(self) -> None:
        object.__setattr__(self, "w", checks.array("w", self.w, (self.L.n_parameters,)).astype(np.float64))
        shapes = self.L.network.layout.shapes
        if sorted(tensor.ours for tensor in self.tensors) != sorted(shapes):
            raise ValueError(f"tensors: expected every one of {', '.join(shapes)} once, got {self.tensors}")
        if len({tensor.name for tensor in self.tensors}) < len(self.tensors):
            raise ValueError(f"tensors: expected names that differ, got {[tensor.name for tensor in self.tensors]}")
        for tensor in self.tensors:
            if sorted(tensor.axes) != list(range(len(shapes[tensor.ours]))):
                raise ValueError(f"tensors: expected an order of the axes of {shapes[tensor.ours]}, got {tensor}")

    def __repr__(self) -> str:
        return f"Case({self.name!r}, {self.L})"

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The weights themselves, in the foreign layout."""
        return self.to_foreign(self.w)

    def scores(self, criterion: str, **options: Any) -> dict[str, np.ndarray]:
        """Return the scores of the criterion of that name (see criteria.REGISTRY), or "exact", higher = keep.

        Criteria that return a mask give True = kept. `options` are the criterion's own; `active` is a dictionary like
        the result, bool, False on weights that are already gone.
        """
        if criterion == "exact":
            return self.exact()
        name = checks.one_of("criterion", criterion, ("exact", *criteria.REGISTRY))
        if options.get("active") is not None:
            options["active"] = self.mask_of(options["active"], "active")
        return self.to_foreign(criteria.REGISTRY[name].function(self.L, self.w, **options))

    def exact(self) -> dict[str, np.ndarray]:
        """Return the exact saliency L((1 − e_j) ∘ w) − L(w) of every weight."""
        return self.to_foreign(exact.saliency(self.L, self.w))

    def gradient(self) -> dict[str, np.ndarray]:
        """Return the gradient of the objective, the l2 penalty included."""
        return self.to_foreign(self.L.gradient(self.w))

    def hessian(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the Hessian, l2 included, as blocks: [a][b] is of shape (*shape of a, *shape of b)."""
        return self.matrix_to_foreign(curvature.hessian(self.L, self.w))

    def gauss_newton(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the Gauss-Newton matrix, without l2, as blocks like those of `hessian`."""
        return self.matrix_to_foreign(curvature.gauss_newton(self.L, self.w))

    def fisher(self, kind: str = "true", **options: Any) -> dict[str, dict[str, np.ndarray]]:
        """Return the Fisher matrix of that kind, see curvature.fisher, as blocks like those of `hessian`."""
        return self.matrix_to_foreign(curvature.fisher(self.L, self.w, kind, **options))

    def diagnose(self, scores: Mapping[str, Any], claims: str, **options: Any) -> Diagnosis:
        """Return what the scores are that claim to be a criterion: see oracle.diagnosis.diagnose."""
        from pruning.oracle.diagnosis import diagnose

        return diagnose(self, scores, claims, **options)

    def assert_matches(self, scores: Mapping[str, Any], claims: str, **options: Any) -> None:
        """Raise AssertionError with the diagnosis unless the scores are what they claim."""
        from pruning.oracle.diagnosis import diagnose, matches

        tolerance = {"tolerance": options["tolerance"]} if "tolerance" in options else {}
        own = {key: value for key, value in options.items() if key not in ("tolerance", "batch_size")}
        if not matches(self, scores, claims, **tolerance, **own):
            raise AssertionError(str(diagnose(self, scores, claims, **options)))

    def diagnose_mask(self, mask: Mapping[str, Any], claims: str, sparsity: float, **options: Any) -> MaskDiagnosis:
        """Return by which rule a mask was made that claims a criterion: see oracle.mask_diagnosis.diagnose_mask."""
        from pruning.oracle.mask_diagnosis import diagnose_mask

        return diagnose_mask(self, mask, claims, sparsity, **options)

    def matrix_to_foreign(self, M: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
        """Return a matrix (P, P) over w as blocks by pairs of foreign tensors."""
        M = checks.array("M", M, (len(self.w), len(self.w)))
        where = {tensor.name: self.index_of(tensor.name) for tensor in self.tensors}
        return {
            a: {b: M[np.ix_(i.ravel(), j.ravel())].reshape(i.shape + j.shape) for b, j in where.items()}
            for a, i in where.items()
        }

    def to_foreign(self, v: np.ndarray) -> dict[str, np.ndarray]:
        """Return a vector over w (P,) as foreign tensors; entries may be infinite, as scores of removed weights are."""
        v = np.asarray(v)
        if v.shape != self.w.shape or v.dtype.kind not in "fiub":
            raise ValueError(f"v: expected numbers of shape {self.w.shape}, got {checks.describe(v)}")
        return {tensor.name: self._as_foreign(tensor, v) for tensor in self.tensors}

    def to_ours(self, tensors: Mapping[str, Any], what: str = "tensors") -> tuple[np.ndarray, np.ndarray]:
        """Return foreign tensors as one vector (P,), and which entries were given (P,) bool; the others are 0.

        Raises ValueError for an unknown name, a wrong shape or dtype, NaN or infinite entries, and where nothing is
        given.
        """
        if not isinstance(tensors, Mapping):
            raise ValueError(f"{what}: expected a mapping of names to arrays, got {checks.describe(tensors)}")
        known = {tensor.name: tensor for tensor in self.tensors}
        v, given = np.zeros(len(self.w)), np.zeros(len(self.w), bool)
        index = np.arange(len(self.w))
        for name, value in tensors.items():
            where = self._as_foreign(known[checks.one_of(f"{what}: name", name, known)], index)
            a = as_array(f"{what}[{name!r}]", value)
            v[where] = checks.array(f"{what}[{name!r}]", a, where.shape, kinds="fiub")
            given[where] = True
        if not given.any():
            raise ValueError(f"{what}: expected at least one of {', '.join(known)}, got none")
        return v, given

    def mask_of(self, tensors: Mapping[str, Any], what: str = "mask") -> np.ndarray:
        """Return a foreign mask as one vector (P,) bool, True where nothing is said; entries must be 0 or 1."""
        v, given = self.to_ours(tensors, what)
        if not np.isin(v, (0, 1)).all():
            raise ValueError(f"{what}: expected entries that are True or False, or 0 and 1")
        return np.where(given, v, 1).astype(bool)

    def index_of(self, name: str) -> np.ndarray:
        """Return where in w the entries of a foreign tensor stand, in its shape."""
        known = {tensor.name: tensor for tensor in self.tensors}
        return self._as_foreign(known[checks.one_of("name", name, known)], np.arange(len(self.w)))

    def _as_foreign(self, tensor: Tensor, v: np.ndarray) -> np.ndarray:
        layout = self.L.network.layout
        return v[layout[tensor.ours]].reshape(layout.shapes[tensor.ours]).transpose(tensor.axes).copy()


def as_array(name: str, value: Any) -> np.ndarray:
    """Return a NumPy, JAX or torch array (detached, on the CPU) or nested lists of numbers as an array.

    Formats of less than 32 bits that NumPy does not know, such as bfloat16, become float32.
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            known = str(value.dtype) in ("torch.float16", "torch.float32", "torch.float64")
            value = (value if known or not value.dtype.is_floating_point else value.float()).numpy()
        a = np.asarray(value)
        a = a.astype(np.float32) if a.dtype.name.startswith(("bfloat", "float8")) else a
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name}: expected an array of numbers, got {type(value).__name__}: {reason}") from None
    if a.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected an array of numbers, got {checks.describe(a)}")
    return a
