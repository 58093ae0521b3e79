"""The graph of an ONNX model, followed from its input to its output."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

import minimal_nn
from pruning.oracle.cases import as_array
from pruning.oracle.chains import Chain, Step, first_line, named
from pruning.oracle.foreign_layers import Weight, batch_norm, convolution, linear, mean_of_images, pooling, rows

if TYPE_CHECKING:
    import onnx

_ACTIVATIONS = {"Relu": "ReLU", "Tanh": "Tanh", "Sigmoid": "Sigmoid", "Softplus": "Softplus", "Identity": "Identity",
                "Gelu": "GELU", "Swish": "SiLU"}  # fmt: skip
_RESHAPING = ("Flatten", "Reshape", "Squeeze")


class Reading:
    """A model as `steps` of a chain; Constants are initializers already, and local functions inlined.

    `arrays` are its initializers by name, `used` the names of those that are parameters, `input` the name of its input;
    `shape` (N, ...) is that of x. ValueError for what cannot be expressed, which names the node.
    """

    def __init__(self, model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
        graph = model.graph
        self.model, self.shape = model, shape
        self.arrays = {tensor.name: array_of(tensor) for tensor in graph.initializer}
        inputs = [value.name for value in graph.input if value.name not in self.arrays]
        if len(inputs) != 1 or len(graph.output) != 1:
            outputs = [value.name for value in graph.output]
            raise ValueError(f"model: expected one input and one output, got {inputs} and {outputs}")
        (self.input,) = inputs
        self.chain = Chain(self.input, shape[1:])
        self.known = dict(self.arrays)  # values that are no function of the input
        self.weights = {name: Weight(name, a.shape) for name, a in self.arrays.items() if a.dtype.kind == "f"}
        for node in self._needed(graph.output[0].name):
            self._follow(node)
        self.chain.expect_last("model's output", graph.output[0].name)
        self.steps: list[Step] = self.chain.steps
        self.used = {name for _, own in self.steps for name, _ in own.values()}

    def _needed(self, output: str) -> list[Any]:
        """Return the nodes that the output needs."""
        needed, nodes = {output}, []
        for node in reversed(self.model.graph.node):
            if needed & set(node.output):
                needed |= set(node.input)
                nodes.append(node)
        return nodes[::-1]

    def _follow(self, node: Any) -> None:
        where = f"{node.name or node.output[0]} ({node.op_type})"
        if node.domain not in ("", "ai.onnx"):
            raise ValueError(f"{where}: operators of {node.domain} cannot be expressed")
        options = _attributes(node)
        if node.op_type == "BatchNormalization" and (options.get("training_mode") or len(node.output) > 1):
            raise ValueError(f"{where}: is in training mode")
        inputs, value = list(node.input), node.output[0]
        if all(name in self.known for name in inputs if name):
            self._of_known(where, node, options)
        elif node.op_type == "Shape":
            shape = (self.shape[0], *self.chain.shape_of(inputs[0]))
            self.known[value] = np.array(shape[options.get("start", 0) : options.get("end")], np.int64)
        elif node.op_type in ("Add", "Sum", "Mul"):
            self._combine(where, node.op_type, inputs, value)
        else:
            self.chain.expect_last(where, inputs[0])
            with named(where):
                steps = self._steps(node.op_type, inputs, options)
            self.chain.extend(where, inputs[0], value, steps)

    def _of_known(self, where: str, node: Any, options: dict[str, Any]) -> None:
        """Compute what does not depend on the input; a weight's transpose remains that weight."""
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in node.input if name]
        values = [helper.make_empty_tensor_value_info(name) for name in (*names, *node.output)]
        graph = helper.make_graph([node], where, values[: len(names)], values[len(names) :])
        single = helper.make_model(graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        try:
            found = ReferenceEvaluator(single).run(None, {name: self.known[name] for name in names})
        except Exception as error:
            raise ValueError(f"{where}: cannot be computed: {type(error).__name__}") from None
        self.known |= dict(zip(node.output, map(np.asarray, found), strict=True))
        weight = self.weights.get(names[0]) if names else None
        if weight is not None and node.op_type == "Identity":
            self.weights[node.output[0]] = weight
        if weight is not None and node.op_type == "Transpose" and options.get("perm", [1, 0]) == [1, 0]:
            with named(where):
                self.weights[node.output[0]] = weight.T

    def _combine(self, where: str, kind: str, inputs: list[str], value: str) -> None:
        """Add or multiply two values, or add a bias."""
        if len(inputs) != 2:
            raise ValueError(f"{where}: expected two terms, got {len(inputs)}")
        a, b = inputs if inputs[0] in self.chain else reversed(inputs)
        if kind == "Mul":
            self.chain.product(where, a, b, value)
        elif b in self.known:
            with named(where):
                weight = self._weight(b)
            self.chain.add_bias(where, a, value, weight.name, weight.shape)
        else:
            self.chain.sum(where, a, b, value)

    def _steps(self, kind: str, inputs: list[str], options: dict[str, Any]) -> list[Step]:
        """Return our layers for a node of one input that is not known."""
        shape = self.chain.shape
        if kind in _ACTIVATIONS:
            plain = {"approximate": "none", "alpha": 1.0}
            for name, value in options.items():
                if value != plain.get(name):
                    raise ValueError(f"{name}={value} cannot be expressed")
            return [(getattr(minimal_nn, _ACTIVATIONS[kind])(), {})]
        if kind in ("Gemm", "MatMul"):
            return [self._linear(inputs, options)]
        if kind == "Conv":
            weight, bias = self._weight(inputs[1]), self._optional(inputs, 2)
            windows = self._windows(options, weight.shape[2:])
            return [convolution(weight, bias, groups=options.get("group", 1), **windows)]
        if kind == "BatchNormalization":
            return [self._batch_norm(inputs, options)]
        if kind == "Dropout":
            if self._number(inputs, 2):
                raise ValueError("is in training mode")
            return []
        if kind in ("AveragePool", "MaxPool"):
            return [self._pooling(kind, options)]
        if kind == "GlobalAveragePool":
            return mean_of_images([2, 3], True, shape)
        if kind == "ReduceMean":
            axes = options.get("axes") or (self.known[inputs[1]].tolist() if len(inputs) > 1 else [])
            return mean_of_images(axes, bool(options.get("keepdims", 1)), shape)
        if kind in _RESHAPING:
            return self._reshape(kind, inputs, options)
        logits = "; leave it out, the loss takes logits" if kind in ("Softmax", "LogSoftmax") else ""
        raise ValueError("cannot be expressed by our layers" + logits)

    def _weight(self, name: str) -> Weight:
        if name not in self.weights:
            raise ValueError(f"expected {name} to be an initializer of floating numbers, or its transpose")
        return self.weights[name]

    def _optional(self, inputs: list[str], index: int) -> Weight | None:
        return self._weight(inputs[index]) if len(inputs) > index and inputs[index] else None

    def _number(self, inputs: list[str], index: int) -> Any:
        """Return an optional input that must be known, None where it is left out."""
        if len(inputs) <= index or not inputs[index]:
            return None
        if inputs[index] not in self.known:
            raise ValueError(f"expected {inputs[index]} not to depend on the input")
        return self.known[inputs[index]]

    def _linear(self, inputs: list[str], options: dict[str, Any]) -> Step:
        weight, bias = self._weight(inputs[1]), self._optional(inputs, 2)
        plain = options.get("transA", 0) == 0 and options.get("alpha", 1.0) == 1.0
        if not plain or (bias is not None and options.get("beta", 1.0) != 1.0):
            raise ValueError("expected transA=0, alpha=1 and beta=1: a factor would make other weights of these")
        return linear(weight if options.get("transB", 0) else weight.T, bias)

    def _windows(self, options: dict[str, Any], kernel: Any) -> dict[str, Any]:
        """Return stride, padding and dilation of windows."""
        pads, automatic = options.get("pads", [0, 0, 0, 0]), options.get("auto_pad", "NOTSET")
        stride = options.get("strides", [1, 1])
        if len(kernel) != 2 or list(options.get("kernel_shape", kernel)) != list(kernel):
            raise ValueError(f"expected windows of two axes, {tuple(kernel)}, got {options.get('kernel_shape')}")
        if automatic not in ("NOTSET", "VALID") and (not automatic.startswith("SAME") or set(stride) != {1}):
            raise ValueError(f"auto_pad={automatic} with strides {stride} cannot be expressed")
        if len(set(pads)) != 1:
            raise ValueError(f"expected the same padding on all sides, got {pads}")
        padding: Any = "same" if automatic.startswith("SAME") else pads[0]
        return {"stride": stride, "padding": padding, "dilation": options.get("dilations", [1, 1])}

    def _batch_norm(self, inputs: list[str], options: dict[str, Any]) -> Step:
        mean, variance = self._number(inputs, 3), self._number(inputs, 4)
        return batch_norm(
            mean, variance, self._weight(inputs[1]), self._weight(inputs[2]), options.get("epsilon", 1e-5)
        )

    def _pooling(self, kind: str, options: dict[str, Any]) -> Step:
        if options.get("ceil_mode", 0):
            raise ValueError("expected ceil_mode=0")
        windows = self._windows(options, options["kernel_shape"])
        return pooling("AvgPool2d" if kind == "AveragePool" else "MaxPool2d", options["kernel_shape"], **windows), {}

    def _reshape(self, kind: str, inputs: list[str], options: dict[str, Any]) -> list[Step]:
        N, shape = self.shape[0], self.chain.shape
        size = math.prod(shape)
        if kind == "Flatten":
            axis = options.get("axis", 1) % (len(shape) + 1)
            made = [math.prod((N, *shape)[:axis]), math.prod((N, *shape)[axis:])]
        elif kind == "Squeeze":
            axes = options.get("axes", self._number(inputs, 1))
            axes = (
                [a for a, n in enumerate(shape, 1) if n == 1]
                if axes is None
                else [int(a) % (len(shape) + 1) for a in axes]
            )
            made = [n for a, n in enumerate((N, *shape)) if a not in axes]
        else:
            given = self._number(inputs, 1).tolist()
            made = [(N, *shape)[i] if n == 0 and i <= len(shape) else n for i, n in enumerate(given)]
            made = [N * size // max(-math.prod(made), 1) if n == -1 else n for n in made]
        if made == [N] and shape == (1,):
            return []
        if made != [N, size]:
            raise ValueError(f"only rows, one for each example, can be expressed: {[N, size]}, got {made}")
        return rows(shape)


def array_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the numbers of an initializer or a constant; ValueError where they cannot be read."""
    from onnx import numpy_helper

    where = f"model: initializer {tensor.name}"
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:
        raise ValueError(f"{where}: cannot be read: {type(error).__name__}: {first_line(error)}") from None
    return as_array(where, array)


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that the model uses."""
    return max((own.version for own in model.opset_import if own.domain in ("", "ai.onnx")), default=1)


def _attributes(node: Any) -> dict[str, Any]:
    """Return a node's attributes by name: numbers, lists of numbers, and text."""
    from onnx import helper

    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: v.decode(errors="replace") if isinstance(v, bytes) else v for name, v in found.items()}
