"""A case as plain data: a description that is JSON, and arrays. What the vectors are made of, for any language.

    {"layers": [{"kind": "Linear", "inputs": 4, "outputs": 3}, {"kind": "Tanh"}, ...],
     "loss": {"kind": "SoftmaxCrossEntropy", "scale": 1.0},
     "l2": 0.0,
     "layout": "torch"}

A layer's other fields are those of its class in minimal_nn, with the same defaults; Residual holds "layers" of its own.
Parameters are named "<index of the layer>.<parameter>", for example "0.weight"; activations count as layers. Layout
"torch" has Linear weights (outputs, inputs) and Conv2d weights (outputs, inputs, kernel, kernel), "minimal_nn" the
first two axes the other way round. Parameters, scores and masks of a case are all in that layout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import minimal_nn
from minimal_nn import checks
from minimal_nn.layers import Layer, Residual
from minimal_nn.losses import Loss
from minimal_nn.network import Network
from minimal_nn.objective import Objective
from pruning.oracle.cases import Case, Tensor, as_array

KINDS = ("Linear", "Conv2d", "AvgPool2d", "MaxPool2d", "Flatten", "BatchNorm", "Residual", "Tanh", "ReLU", "Sigmoid",
         "Softplus", "GELU", "SiLU", "Identity")  # fmt: skip
LOSSES = ("SoftmaxCrossEntropy", "BinaryCrossEntropy", "SquaredError")
LAYOUTS = ("torch", "minimal_nn")
#: no axis of a layer is longer, so that a wrong number is an error before it is memory
LONGEST = 10**6


def from_arrays(description: Mapping[str, Any], arrays: Mapping[str, Any], name: str = "case") -> Case:
    """Return the case of a description (see above) and its arrays: "x" (N, ...), "y", and every parameter by its name.

    y holds integer labels (N,) or probabilities (N, C) for SoftmaxCrossEntropy, labels in [0, 1] (N, C) for
    BinaryCrossEntropy (for one output also integers (N,)), numbers (N, C) for SquaredError. Numbers are taken as
    float64. Raises ValueError for a field that is missing, unknown or wrong, for missing or extra arrays, and for an
    array of another shape or kind.
    """
    known = _fields("description", description, {"layers", "loss"}, {"l2", "layout"})
    layout = checks.one_of("description['layout']", known.get("layout", "torch"), LAYOUTS)
    network = _network(known["layers"])
    loss = _loss(known["loss"])
    tensors = tensors_in(network, layout)
    if not isinstance(arrays, Mapping):
        raise ValueError(f"arrays: expected a mapping of names to arrays, got {checks.describe(arrays)}")
    expected = {"x", "y", *(tensor.name for tensor in tensors)}
    if set(arrays) != expected:
        missing, extra = sorted(expected - set(arrays)), sorted(map(str, set(arrays) - expected))
        raise ValueError(f"arrays: missing {missing or 'none'}, not expected {extra or 'none'}")
    shapes = network.layout.shapes
    for tensor in tensors:
        given, shape = as_array(f"arrays[{tensor.name!r}]", arrays[tensor.name]), shapes[tensor.ours]
        checks.array(f"arrays[{tensor.name!r}]", given, [shape[axis] for axis in tensor.axes], kinds="fiu")
    x, y = (as_array(f"arrays[{key!r}]", arrays[key]) for key in "xy")
    labels = y.dtype.kind in "iu" and y.ndim == 1 and not isinstance(loss, minimal_nn.SquaredError)
    y = y if labels else y.astype(np.float64)
    l2 = checks.number("description['l2']", known.get("l2", 0.0), 0)
    L = Objective(network, loss, x.astype(np.float64), y, l2)
    case = Case(L, np.zeros(L.n_parameters), tensors, name)
    w, _ = case.to_ours({tensor.name: arrays[tensor.name] for tensor in tensors}, "arrays")
    return dataclasses.replace(case, w=w)


def describe(case: Case, layout: str = "torch") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the description and the arrays of a case, the inverse of `from_arrays` up to the names of its tensors."""
    L, tensors = case.L, tensors_in(case.L.network, checks.one_of("layout", layout, LAYOUTS))
    description = {
        "layers": [_as_plain(layer) for layer in L.network.layers],
        "loss": _as_plain(L.loss),
        "l2": L.l2,
        "layout": layout,
    }
    return description, {"x": L.x, "y": L.y} | Case(L, case.w, tensors).parameters


def tensors_in(network: Network, layout: str) -> tuple[Tensor, ...]:
    """Return every parameter under its own name, in one of the LAYOUTS."""
    tensors = []
    for name, shape in network.layout.shapes.items():
        axes = list(range(len(shape)))
        if layout == "torch" and len(shape) > 1:
            axes[:2] = 1, 0
        tensors.append(Tensor(name, name, tuple(axes)))
    return tuple(tensors)


def _network(given: Any) -> Network:
    where = "description['layers']"
    try:
        layers = _layers(where, given)
    except RecursionError:
        raise ValueError(f"{where}: nested too deep") from None
    try:
        return Network(*layers)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _layers(where: str, given: Any) -> list[Layer]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"{where}: expected a list of layers, got {checks.describe(given)}")
    return [_layer(f"{where}[{i}]", one) for i, one in enumerate(given)]


def _layer(where: str, given: Any) -> Layer:
    kind = _kind(where, given, KINDS)
    if kind is Residual:
        inner = _layers(f"{where}['layers']", _fields(where, given, {"kind", "layers"}, set())["layers"])
        return _made(where, lambda layers: Residual(*layers), {"layers": inner})
    types = {field.name: str(field.type) for field in dataclasses.fields(kind)}
    for name, value in _known_fields(where, kind, given).items():
        if types[name] == "bool" and not isinstance(value, bool):
            raise ValueError(f"{where}[{name!r}]: expected true or false, got {checks.describe(value)}")
        if types[name].startswith("int") and value is not None:
            checks.integer(f"{where}[{name!r}]", value, high=LONGEST)
    return _made(where, kind, _known_fields(where, kind, given))


def _loss(given: Any) -> Loss:
    where = "description['loss']"
    kind = _kind(where, given, LOSSES)
    return _made(where, kind, _known_fields(where, kind, given))


def _kind(where: str, given: Any, known: tuple[str, ...]) -> Any:
    if not isinstance(given, Mapping) or "kind" not in given:
        raise ValueError(f"{where}: expected an object with a kind, got {checks.describe(given)}")
    return getattr(minimal_nn, checks.one_of(f"{where}['kind']", given["kind"], known))


def _known_fields(where: str, kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given besides the kind, if it is the dataclass's fields and lacks none without a default."""
    fields = dataclasses.fields(kind)
    required = {f.name for f in fields if f.default is dataclasses.MISSING}
    own = _fields(where, given, {"kind", *required}, {f.name for f in fields} - required)
    return {key: value for key, value in own.items() if key != "kind"}


def _made(where: str, kind: Any, fields: Mapping[str, Any]) -> Any:
    """Return kind(**fields); its own complaints name the place."""
    try:
        return kind(**fields)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None


def _fields(where: str, given: Any, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: expected an object, got {checks.describe(given)}")
    missing, extra = required - set(given), {str(key) for key in given} - required - optional
    if missing or extra:
        said = [
            f"{word} {', '.join(sorted(names))}" for word, names in (("missing", missing), ("unknown", extra)) if names
        ]
        raise ValueError(f"{where}: {'; '.join(said)}")
    return dict(given)


def _as_plain(thing: Layer | Loss) -> dict[str, Any]:
    plain: dict[str, Any] = {"kind": type(thing).__name__}
    if isinstance(thing, Residual):
        return plain | {"layers": [_as_plain(layer) for layer in thing.layers]}
    checks.one_of("kind", plain["kind"], (*KINDS, *LOSSES))
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        plain[field.name] = list(value) if isinstance(value, tuple) else value
    return plain
