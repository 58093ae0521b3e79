"""Import of torch modules: traced by torch.fx into a sequence of our layers, and compared with torch's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

import minimal_nn
from minimal_nn import checks
from minimal_nn.layers import Layer, Residual
from minimal_nn.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy, SquaredError
from minimal_nn.network import Network
from minimal_nn.objective import Objective
from pruning.oracle.cases import Case, Tensor, as_array

if TYPE_CHECKING:
    import torch

#: a layer of ours and the names of its parameters in the model: ours -> theirs
Step = tuple[Layer, dict[str, str]]
_SMOOTH = {"Tanh": "Tanh", "ReLU": "ReLU", "Sigmoid": "Sigmoid", "SiLU": "SiLU", "Identity": "Identity"}


def from_torch(model: torch.nn.Module, loss: Any, x: Any, y: Any, l2: float = 0.0, name: str | None = None) -> Case:
    """Return the case of a torch module: our network, w, objective, and the map to the names of its state_dict.

    `model` may be any module whose forward is a chain of Linear, Conv2d, Tanh, ReLU, Sigmoid, Softplus, GELU, SiLU,
    AvgPool2d, MaxPool2d, AdaptiveAvgPool2d, Flatten, Dropout and BatchNorm (both in eval mode), nested Sequentials of
    them, their functional forms, and sums x + f(x) of such a chain with its own input. `loss` is CrossEntropyLoss,
    BCEWithLogitsLoss or MSELoss, or the functional of that name (reduction "mean"); "mean" and "sum" are as torch
    defines them, "none" counts as "mean". x (N, ...) and y are what the loss is computed on, all N at once. `l2` adds
    (l2/2)‖w‖² over all parameters, biases too: torch's weight_decay.

    Everything is converted to float64; the outputs for x are compared with torch's, and a model that computes anything
    else is refused. Raises ValueError that names the module, or what was traced, where it cannot be expressed.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {checks.describe(model)}")
    x, y = as_array("x", x).astype(np.float64), as_array("y", y)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"x: expected at least one example, shape (N, ...), got {checks.describe(x)}")
    _check_parameters(model)
    steps = _steps(model, x.shape[1:])
    network = Network(*(layer for layer, _ in steps))
    tensors = _tensors(model, steps)
    with torch.no_grad():
        dtype = next(model.parameters()).dtype
        z = as_array("outputs", model(torch.as_tensor(x, dtype=dtype)))
    if z.ndim != 2:
        raise ValueError(f"model: expected outputs of shape (N, C), got {checks.describe(z)}")
    y = y.reshape(z.shape) if y.shape == (len(x),) and z.shape == (len(x), 1) and y.dtype.kind == "f" else y
    L = Objective(network, _loss(loss, z.shape[0], z.shape[1], y), x, _targets(loss, y, z.shape[1]), l2)
    state = {key: as_array(key, value) for key, value in model.named_parameters()}
    case = Case(L, np.zeros(L.n_parameters), tensors, name or type(model).__name__)
    w, _ = case.to_ours({key: value.astype(np.float64) for key, value in state.items()}, "model")
    ours, scale = network.forward(w, x), max(np.abs(z).max(), 1e-300)
    error = np.abs(ours - z).max() / scale
    if not error <= (1e-4 if dtype in (torch.float32, torch.float16, torch.bfloat16) else 1e-10):
        raise ValueError(
            f"model: what was traced computes other outputs than the module, by {error:.2g} of the largest"
        )
    return Case(L, w, tensors, case.name)


def _check_parameters(model: torch.nn.Module) -> None:
    if not list(model.parameters()):
        raise ValueError("model: expected at least one parameter, got none")
    for name, p in model.named_parameters():
        if not p.dtype.is_floating_point:
            raise ValueError(f"model: parameter {name}: expected a real floating dtype, got {p.dtype}")
        checks.array(f"model: parameter {name}", as_array(name, p))
    shared = len(list(model.named_parameters(remove_duplicate=False))) - len(list(model.named_parameters()))
    if shared:
        raise ValueError("model: parameters that two modules share cannot be expressed")


def _tensors(model: torch.nn.Module, steps: list[Step]) -> tuple[Tensor, ...]:
    theirs = {}
    for i, (layer, names) in enumerate(steps):
        for ours, their in names.items():
            shape = layer.parameter_shapes()[ours]
            axes = (1, 0, *range(2, len(shape))) if len(shape) > 1 else (0,)
            theirs[their] = Tensor(their, f"{i}.{ours}", axes)
    unused = [name for name, _ in model.named_parameters() if name not in theirs]
    if unused:
        raise ValueError(f"model: parameters that its forward does not use cannot be expressed: {', '.join(unused)}")
    return tuple(theirs[name] for name, _ in model.named_parameters())


def _steps(model: torch.nn.Module, shape: tuple[int, ...]) -> list[Step]:
    """Trace the model and follow it from its input to its output."""
    from torch import fx

    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:
        raise ValueError(f"model: {type(model).__name__} cannot be traced by torch.fx: {error}") from None
    steps: list[Step] = []
    at: dict[Any, int] = {}  # node -> how many steps lie before its value
    current: Any = None
    for node in graph.nodes:
        if node.op == "placeholder":
            if current is not None:
                raise ValueError(f"model: expected one input, got also {node.name}")
            current = node
        elif node.op == "output":
            if node.args[0] is not current:
                raise ValueError("model: expected the output of its last layer to be the only output")
            continue
        elif node.op == "get_attr" or (not node.users and node.op != "output"):
            continue
        elif node.op == "call_module":
            _expect_current(node, current)
            module = model.get_submodule(node.target)
            steps += _module(str(node.target), module, _shape(steps, shape))
            current = node
        elif _is_sum(node):
            start = next((a for a in node.args[:2] if a is not current), current)
            if current not in node.args[:2] or start not in at or at[start] == len(steps):
                raise ValueError(f"{node.name}: only a sum x + f(x) with the block's own input can be expressed")
            steps = [*steps[: at[start]], _residual(steps[at[start] :])]
            at = {n: k for n, k in at.items() if k <= at[start]}
            current = node
        else:
            _expect_current(node, current)
            steps += _function(node, _shape(steps, shape))
            current = node
        at[current] = len(steps)
    return steps


def _expect_current(node: Any, current: Any) -> None:
    if not node.args or node.args[0] is not current:
        raise ValueError(f"{node.name}: expected a chain of layers, and sums x + f(x), got a branch")


def _is_sum(node: Any) -> bool:
    import operator

    import torch

    return (node.op == "call_function" and node.target in (operator.add, operator.iadd, torch.add)) or (
        node.op == "call_method" and node.target in ("add", "add_")
    )


def _residual(steps: list[Step]) -> Step:
    names = {f"{i}.{ours}": theirs for i, (_, own) in enumerate(steps) for ours, theirs in own.items()}
    return Residual(*(layer for layer, _ in steps)), names


def _shape(steps: list[Step], shape: tuple[int, ...]) -> tuple[int, ...]:
    for layer, _ in steps:
        shape = layer.output_shape(shape)
    return shape


def _module(name: str, module: Any, shape: tuple[int, ...]) -> list[Step]:
    """Return our layer for a torch module; the ValueError names it."""
    kind = type(module).__name__
    own = {f"{ours}": f"{name}.{ours}" for ours in ("weight", "bias") if getattr(module, ours, None) is not None}
    try:
        if kind in ("Dropout", "Dropout1d", "Dropout2d"):
            return _in_eval(module, [])
        if kind in ("BatchNorm1d", "BatchNorm2d"):
            return _in_eval(module, [_batch_norm(module, name)])
        if kind == "Linear":
            return [(minimal_nn.Linear(module.in_features, module.out_features, bias=module.bias is not None), own)]
        if kind == "Conv2d":
            return [(_convolution(module), own)]
        return [(layer, {}) for layer in _without_parameters(kind, vars(module), shape)]
    except ValueError as error:
        raise ValueError(f"{name} ({module}): {error}") from None


def _in_eval(module: Any, steps: list[Step]) -> list[Step]:
    if module.training:
        raise ValueError("is in training mode; call model.eval() first")
    return steps


def _batch_norm(module: Any, name: str) -> Step:
    if module.running_mean is None or not module.affine:
        raise ValueError("expected running statistics and affine=True")
    mean, variance = (
        tuple(as_array(name, v).astype(float).tolist()) for v in (module.running_mean, module.running_var)
    )
    layer = minimal_nn.BatchNorm(module.num_features, mean, variance, module.eps)
    return layer, {"gamma": f"{name}.weight", "beta": f"{name}.bias"}


def _convolution(module: Any) -> Layer:
    kernel, stride = _square("kernel_size", module.kernel_size), _square("stride", module.stride)
    padding = module.padding
    if padding == "valid":
        padding = 0
    elif padding == "same":
        if kernel % 2 == 0:
            raise ValueError("padding 'same' with an even kernel pads one side more than the other")
        padding = kernel // 2
    if module.groups != 1 or _square("dilation", module.dilation) != 1 or module.padding_mode != "zeros":
        raise ValueError("expected groups=1, dilation=1 and padding_mode='zeros'")
    return minimal_nn.Conv2d(
        module.in_channels, module.out_channels, kernel, stride, _square("padding", padding), module.bias is not None
    )


def _without_parameters(kind: str, options: dict[str, Any], shape: tuple[int, ...]) -> list[Layer]:
    """Return our layers for a module without parameters, given its class and its attributes."""
    if kind in _SMOOTH:
        return [getattr(minimal_nn, kind)()]
    if kind == "GELU" and options.get("approximate", "none") == "none":
        return [minimal_nn.GELU()]
    if kind == "Softplus" and options.get("beta", 1) == 1 and options.get("threshold", 20) >= 20:
        return [minimal_nn.Softplus()]
    if kind == "Flatten" and options.get("start_dim", 1) == 1 and options.get("end_dim", -1) in (-1, len(shape)):
        return [minimal_nn.Flatten()] if len(shape) > 1 else []
    if kind in ("AvgPool2d", "MaxPool2d"):
        return [_pooling(kind, options)]
    if kind == "AdaptiveAvgPool2d" and len(shape) == 3:
        size = _square("output_size", options["output_size"])
        if shape[1] == shape[2] and shape[1] % size == 0:
            return [minimal_nn.AvgPool2d(shape[1] // size)]
    raise ValueError("cannot be expressed by our layers")


def _pooling(kind: str, options: dict[str, Any]) -> Layer:
    kernel = _square("kernel_size", options["kernel_size"])
    stride = options.get("stride")
    plain = _square("padding", options.get("padding", 0)) == 0 and _square("dilation", options.get("dilation", 1)) == 1
    if not plain or options.get("ceil_mode") or options.get("divisor_override"):
        raise ValueError("expected padding=0, dilation=1, ceil_mode=False and no divisor_override")
    return getattr(minimal_nn, kind)(kernel, None if stride is None else _square("stride", stride))


def _square(name: str, value: Any) -> int:
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or pair[0] != pair[1]:
        raise ValueError(f"{name}: expected the same for both axes, got {value}")
    return int(pair[0])


def _function(node: Any, shape: tuple[int, ...]) -> list[Step]:
    """Return our layers for a function or a method call: relu, tanh, flatten, view, pooling, dropout."""
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    args, options = list(node.args[1:]), dict(node.kwargs)
    plain = {"relu": "ReLU", "relu_": "ReLU", "tanh": "Tanh", "sigmoid": "Sigmoid", "silu": "SiLU", "gelu": "GELU",
             "softplus": "Softplus"}  # fmt: skip
    try:
        if called in plain and not args:
            layers = _without_parameters(plain[called], options, shape)
        elif called == "flatten":
            given = dict(zip(("start_dim", "end_dim"), args, strict=False)) | options
            layers = _without_parameters("Flatten", {"start_dim": 0} | given, shape)
        elif called in ("view", "reshape") and args and args[-1] in (-1, int(np.prod(shape))) and len(args) == 2:
            layers = [minimal_nn.Flatten()] if len(shape) > 1 else []
        elif called in ("avg_pool2d", "max_pool2d", "boolean_dispatch"):
            kind = "AvgPool2d" if called == "avg_pool2d" else "MaxPool2d"
            names = ("kernel_size", "stride", "padding", "dilation" if kind == "MaxPool2d" else "ceil_mode")
            layers = [_pooling(kind, dict(zip(names, args, strict=False)) | options)]
        elif called == "dropout" and not options.get("training", args[1] if len(args) > 1 else True):
            layers = []
        else:
            raise ValueError("cannot be expressed by our layers")
    except ValueError as error:
        raise ValueError(f"{node.name} (a call of {called}): {error}") from None
    return [(layer, {}) for layer in layers]


def _loss(loss: Any, N: int, C: int, y: np.ndarray) -> Loss:
    """Return our loss, whose scale makes the mean over examples of ours what theirs is on all N."""
    kind, reduction = _kind_of_loss(loss), getattr(loss, "reduction", "mean")
    for option, plain in (("weight", None), ("pos_weight", None), ("ignore_index", -100)):
        value = getattr(loss, option, plain)
        if value is not None and value != plain and not (option == "ignore_index" and (y != value).all()):
            raise ValueError(f"loss: {option} cannot be expressed")
    each: dict[str, tuple[Callable[..., Loss], float]] = {
        "CrossEntropyLoss": (SoftmaxCrossEntropy, 1.0),
        "BCEWithLogitsLoss": (BinaryCrossEntropy, 1 / C),
        "MSELoss": (SquaredError, 2 / C),
    }
    ours, scale = each[kind]
    return ours(scale=N * (scale if kind == "CrossEntropyLoss" else scale * C) if reduction == "sum" else scale)


def _kind_of_loss(loss: Any) -> str:
    functional = {
        "cross_entropy": "CrossEntropyLoss",
        "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
        "mse_loss": "MSELoss",
    }
    called = getattr(loss, "__name__", type(loss).__name__)
    return functional.get(called) or checks.one_of("loss", called, functional.values())


def _targets(loss: Any, y: np.ndarray, C: int) -> np.ndarray:
    smoothing = getattr(loss, "label_smoothing", 0.0)
    if _kind_of_loss(loss) != "CrossEntropyLoss":
        return y.astype(np.float64)
    if y.ndim == 1 and smoothing:
        y = np.eye(C)[checks.array("y", y, (None,), kinds="iu")]
    if y.ndim == 2:
        return (1 - smoothing) * y.astype(np.float64) + smoothing / C
    return y
