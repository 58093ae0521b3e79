"""Scores of units: one number for each output neuron or filter, and how single weights may have been put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimal_nn import checks
from pruning import exact, masks
from pruning.oracle.cases import Case, as_array
from pruning.oracle.quantities import Quantity


@dataclass(frozen=True)
class Given:
    """Foreign scores as one vector (n,), which tensor or layer each is of (n,), and their dtype."""

    values: np.ndarray
    tensors: np.ndarray
    dtype: np.dtype


AGGREGATES: dict[str, Callable[[np.ndarray], float]] = {
    "sum": np.sum,
    "mean": np.mean,
    "maximum": np.max,
    "ℓ2 norm": lambda v: np.sqrt(np.sum(v**2)),
    "sum of absolute values": lambda v: np.sum(np.abs(v)),
    "mean of absolute values": lambda v: np.mean(np.abs(v)),
    "sum of squares": lambda v: np.sum(v**2),
}


def read(case: Case, scores: Mapping[str, Any]) -> tuple[Given, Units] | None:
    """Return scores of units and what they are of, or None where the scores are of single weights.

    A tensor's name with one number for each of its output units, or a module's name, says units; the name of a bias
    with its own shape does not.
    """
    if not isinstance(scores, Mapping) or not scores:
        return None
    shapes = {name: a.shape for name, a in case.parameters.items()}
    modules = {name.rpartition(".")[0] for name in shapes}
    layers, values, dtypes = [], [], []
    for name, value in scores.items():
        a = as_array(f"scores[{name!r}]", value)
        weight = name if name in shapes else f"{name}.weight" if name in modules else None
        if weight is None or a.shape == shapes.get(name) or weight not in shapes:
            return None
        shape = shapes[weight]
        if len(shape) < 2 or a.shape != (shape[0],):
            return None
        values.append(checks.array(f"scores[{name!r}]", a, kinds="fiub").astype(np.float64))
        layers.append(weight.rpartition(".")[0])
        dtypes.append(dtype_of(name, value))
    ids = np.repeat(np.arange(len(layers)), [len(v) for v in values])
    return Given(np.concatenate(values), ids, np.result_type(*dtypes)), Units(case, layers)


def dtype_of(name: str, value: Any) -> np.dtype:
    """Return the dtype of an array of scores; torch's bfloat16, which NumPy lacks, counts as float16."""
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        return np.dtype(np.float16)
    return as_array(f"scores[{name!r}]", value).dtype


class Units:
    """Scores of all output units of some layers: every quantity is put together in every way that is known."""

    def __init__(self, case: Case, layers: list[str]) -> None:
        self.case, self.layers = case, layers
        self.sets = {
            "its weights": [self._own(layer, ("weight",)) for layer in layers],
            "its weights and bias": [self._own(layer, ("weight", "bias")) for layer in layers],
        }
        following = [self._following(layer) for layer in layers]
        for said, own in list(self.sets.items()):
            if all(following):
                self.sets[f"{said} and the next layer's from it"] = _joined(own, following)
        norms = [self._norm(layer) for layer in layers]
        for said, own in list(self.sets.items()):
            if all(norms):
                self.sets[f"{said} and its batch norm"] = _joined(own, norms)
        count = sum(len(units) for units in self.sets["its weights"])
        self.scrambled = self.outputs = self.inputs = np.arange(count)

    def values(self, quantity: Quantity) -> list[tuple[Quantity, np.ndarray]]:
        """Return the quantity aggregated in every way, the sum over a unit's own weights first."""
        found = []
        for set_name, groups in self.sets.items():
            for how, aggregate in AGGREGATES.items():
                name = f"{quantity.name}, {how} over {set_name}"
                with np.errstate(over="ignore"):
                    values = np.array([aggregate(quantity.vector[unit]) for units in groups for unit in units])
                found.append((Quantity(name, quantity.vector, quantity.of, quantity.condition), values))
        if quantity.name == "exact":
            gates = self._gates()
            if gates is not None:
                found.append((Quantity("the exact saliency of the unit's gate", quantity.vector, "exact"), gates))
        return found

    def place(self, j: int) -> tuple[str, tuple[int, ...]]:
        """Return the layer and the unit of entry j."""
        for layer, units in zip(self.layers, self.sets["its weights"], strict=True):
            if j < len(units):
                return layer, (j,)
            j -= len(units)
        raise AssertionError("every entry is a unit")

    def masks(self, values: np.ndarray, sparsity: float) -> np.ndarray:
        """Return the mask over w that removes all incoming weights, and the bias, of this share of the units."""
        kept = masks.smallest(values, sparsity)
        mask = np.ones(len(self.case.w), bool)
        every = [unit for units in self.sets["its weights and bias"] for unit in units]
        for unit, keep in zip(every, kept, strict=True):
            mask[unit] = keep
        return mask

    def names(self) -> dict[int, str]:
        """Return the layers by their number."""
        return dict(enumerate(self.layers))

    def _own(self, layer: str, parts: tuple[str, ...]) -> list[np.ndarray]:
        """Return the indices in w of each output unit's own parameters."""
        known = {tensor.name for tensor in self.case.tensors}
        found = [self.case.index_of(f"{layer}.{part}") for part in parts if f"{layer}.{part}" in known]
        return [np.concatenate([np.ravel(where[o]) for where in found]) for o in range(len(found[0]))]

    def _following(self, layer: str) -> list[np.ndarray]:
        """Return the next layer's weights from each unit, empty where there is none or it does not fit."""
        matrices = [t.name for t in self.case.tensors if self.case.index_of(t.name).ndim > 1]
        later = matrices[matrices.index(f"{layer}.weight") + 1 :]
        units = len(self.case.index_of(f"{layer}.weight"))
        if not later:
            return []
        where = self.case.index_of(later[0])
        if where.shape[1] % units:
            return []
        each = where.shape[1] // units  # positions of a channel behind Flatten
        return [np.ravel(where[:, o * each : (o + 1) * each]) for o in range(units)]

    def _norm(self, layer: str) -> list[np.ndarray]:
        """Return gamma and beta of the batch norm right behind the layer, empty where there is none."""
        tensors = list(self.case.tensors)
        names = [t.name for t in tensors]
        last = max(i for i, name in enumerate(names) if name.rpartition(".")[0] == layer)
        behind = [t for t in tensors[last + 1 : last + 3] if t.ours.endswith(("gamma", "beta"))]
        if len(behind) < 2:
            return []
        gamma, beta = (self.case.index_of(t.name) for t in behind)
        return [np.array([g, b]) for g, b in zip(gamma, beta, strict=True)]

    def _gates(self) -> np.ndarray | None:
        """Return the exact saliency of every unit's gate, None where it is not defined for a layer."""
        values = []
        for layer in self.layers:
            ours = next(t.ours for t in self.case.tensors if t.name == f"{layer}.weight")
            if ours.count(".") > 1:
                return None
            try:
                values.append(exact.saliency(self.case.L, self.case.w, units=int(ours.split(".")[0])))
            except ValueError:
                return None
        return np.concatenate(values)


def _joined(one: list[list[np.ndarray]], other: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Return both lists of indices of every unit of every layer as one."""
    return [[np.concatenate(pair) for pair in zip(a, b, strict=True)] for a, b in zip(one, other, strict=True)]
