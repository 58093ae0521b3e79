"""Import of ONNX models, which Keras, JAX and TensorFlow write: read as a sequence of our layers, outputs compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective
from pruning.oracle.cases import Case, as_array
from pruning.oracle.chains import check_outputs, first_line, network_and_tensors
from pruning.oracle.foreign_losses import LOSSES, our_loss, our_targets
from pruning.oracle.onnx_graphs import Reading, array_of, opset_of

if TYPE_CHECKING:
    import onnx


def from_onnx(
    model: str | os.PathLike[str] | onnx.ModelProto,
    loss: str,
    x: Any,
    y: Any,
    l2: float = 0.0,
    reduction: str = "mean",
    name: str | None = None,
) -> Case:
    """Return the case of an ONNX model: our network, w, objective, and the map to the names of its initializers.

    `model` is a file or a ModelProto whose graph is a chain of Gemm, MatMul and Add, Conv, Relu, Tanh, Sigmoid,
    Softplus, Gelu, x · Sigmoid(x), Flatten, Reshape and Squeeze to (N, C), AveragePool, MaxPool, GlobalAveragePool,
    ReduceMean over the image, BatchNormalization, Dropout and Identity, and sums x + f(x) of such a chain with its own
    input. Its parameters are the initializers (or Constants) that these nodes take as weights and biases, scales and
    shifts of a BatchNormalization included, in their own layout. (One that two nodes take is an error; some exporters
    merge initializers of equal values.) `loss`, which ONNX has not, is "cross_entropy", "mse" or "bce_with_logits",
    `reduction` "mean" or "sum", as torch defines them (see foreign_losses.our_loss). x (N, ...) and y are what the loss
    is computed on; `l2` adds (l2/2)‖w‖² over all parameters.

    Everything is converted to float64, and outputs are compared with those of onnx.reference, at x and the weights as
    they are and at others. Raises ValueError that names the node that cannot be expressed, ImportError without onnx.
    """
    proto = _load(model)
    x = checks.array("x", as_array("x", x), kinds="fiu").astype(np.float64)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"x: expected at least one example, shape (N, ...), got {checks.describe(x)}")
    checks.one_of("loss", loss, LOSSES)
    reading = Reading(proto, x.shape)
    names = [name for name in reading.arrays if name in reading.used]
    network, tensors = network_and_tensors(reading.steps, names)
    output_shape = network.output_shape(x.shape[1:])
    if len(output_shape) != 1:
        raise ValueError(f"model: expected outputs of shape (N, C), got {(len(x), *output_shape)}")
    N, C = len(x), output_shape[0]
    targets = our_targets(loss, as_array("y", y), N, C)
    L = Objective(network, our_loss(loss, reduction, N, C), x, targets, l2)
    case = Case(L, np.zeros(L.n_parameters), tensors, name or proto.graph.name or "onnx")
    w, _ = case.to_ours({name: reading.arrays[name] for name in names}, "model")
    case = Case(L, w, tensors, case.name)
    check_outputs(case, _runner(proto, reading.input))
    return case


def _load(model: Any) -> onnx.ModelProto:
    """Return the model with its Constants as initializers, its functions inlined, and all its numbers in float64."""
    try:
        import onnx
        from onnx import inliner
    except ImportError:
        raise ImportError("from_onnx needs onnx: pip install exact-pruning[interop]") from None
    if not isinstance(model, (str, os.PathLike, onnx.ModelProto)):
        raise ValueError(f"model: expected a path or an onnx.ModelProto, got {checks.describe(model)}")
    proto = onnx.ModelProto()
    try:
        proto.CopyFrom(model if isinstance(model, onnx.ModelProto) else onnx.load(model))
        onnx.checker.check_model(proto)
    except Exception as error:
        raise ValueError(f"model: expected an ONNX model, got one that cannot be read: {first_line(error)}") from None
    proto = inliner.inline_local_functions(proto) if proto.functions else proto
    graph = proto.graph
    if graph.sparse_initializer:
        raise ValueError("model: sparse initializers cannot be expressed")
    for node in [node for node in graph.node if node.op_type == "Constant" and node.domain in ("", "ai.onnx")]:
        graph.initializer.append(_tensor(node))
        graph.node.remove(node)
    for tensor in graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            tensor.CopyFrom(onnx.numpy_helper.from_array(array_of(tensor).astype(np.float64), tensor.name))
    return proto


def _runner(proto: onnx.ModelProto, name: str) -> Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]:
    """Return the model as a function of its parameters and x, in float64, by the reference evaluator of ONNX."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(proto, new_ops=_in_float64(opset_of(proto)))

    def run(parameters: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        try:
            (z,) = evaluator.run(None, {name: x, **parameters})
        except Exception as error:
            raise ValueError(f"model: onnx.reference fails on it: {first_line(error)}") from None
        return np.asarray(z).reshape(len(x), -1)

    return run


def _in_float64(opset: int) -> list[type]:
    """Return operators for the reference evaluator in place of those of its own that are not right here.

    Its Gelu rounds √2 to float32. Its BatchNormalization before opset 14 mixes the statistics of the batch into those
    that are given, although a node with one output is in test mode.
    """
    from onnx.reference.op_run import OpRun
    from scipy.special import ndtr

    class Gelu(OpRun):
        op_domain = ""

        def _run(self, x: np.ndarray, approximate: Any = None) -> tuple[np.ndarray]:
            return (x * ndtr(x),)

    class BatchNormalization(OpRun):
        op_domain = ""

        def _run(
            self, x: Any, scale: Any, shift: Any, mean: Any, variance: Any, epsilon: Any = None, **_: Any
        ) -> tuple[np.ndarray]:
            scale, shift, mean, variance = (v.reshape(-1, *(1,) * (x.ndim - 2)) for v in (scale, shift, mean, variance))
            return (scale * (x - mean) / np.sqrt(variance + epsilon) + shift,)

    return [Gelu, BatchNormalization] if opset < 14 else [Gelu]


def _tensor(node: Any) -> Any:
    """Return the value of a Constant node as an initializer with the name of its output."""
    from onnx import helper, numpy_helper

    (attribute,) = node.attribute
    if attribute.name == "value":
        array = array_of(attribute.t)
    elif attribute.name in ("value_int", "value_ints", "value_float", "value_floats"):
        dtype = np.int64 if "int" in attribute.name else np.float32
        array = np.array(helper.get_attribute_value(attribute), dtype)
    else:
        raise ValueError(f"{node.name or node.output[0]} (Constant): expected numbers, got {attribute.name}")
    return numpy_helper.from_array(array, node.output[0])
