"""The layers of torch, as modules and as functions, as steps of a chain. What has no counterpart is a ValueError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import minimal_nn
from minimal_nn.layers import Layer
from pruning.oracle.cases import as_array
from pruning.oracle.chains import Step
from pruning.oracle.foreign_layers import (
    Weight,
    batch_norm,
    convolution,
    linear,
    mean_of_images,
    pooling,
    rows,
    square,
)

#: functions by their names, as what module they compute, and their arguments behind the input
_FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("ReLU", ("inplace",)),
    "relu_": ("ReLU", ()),
    "tanh": ("Tanh", ()),
    "tanh_": ("Tanh", ()),
    "sigmoid": ("Sigmoid", ()),
    "sigmoid_": ("Sigmoid", ()),
    "silu": ("SiLU", ("inplace",)),
    "gelu": ("GELU", ("approximate",)),
    "softplus": ("Softplus", ("beta", "threshold")),
    "avg_pool2d": (
        "AvgPool2d", ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    ),
    "max_pool2d": ("MaxPool2d", ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", ("output_size",)),
    "mean": ("mean", ("dim", "keepdim")),
    "linear": ("linear", ("weight", "bias")),
    "matmul": ("matmul", ("weight",)),
    "conv2d": ("conv2d", ("weight", "bias", "stride", "padding", "dilation", "groups")),
    "batch_norm": (
        "batch_norm", ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    ),
    "contiguous": ("same", ()),
    **{f"{kind}dropout{of}": ("dropout", ("p", "training", "inplace"))
       for kind, of in (("", ""), ("", "1d"), ("", "2d"), ("alpha_", ""), ("feature_alpha_", ""))},
    **dict.fromkeys(("softmax", "log_softmax"), ("Softmax", ("dim",))),
}  # fmt: skip
_ACTIVATIONS = ("Tanh", "ReLU", "Sigmoid", "SiLU", "Identity")
_DROPOUTS = ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")


def steps_of_module(name: str, module: Any, shape: tuple[int, ...]) -> list[Step]:
    """Return our layers for a torch module; `shape` is that of one example of its input."""
    kind = type(module).__name__
    if type(module) is not _class_of(kind) or kind == "DataParallel":
        raise ValueError("cannot be expressed by our layers" + _hint(module, kind))
    own = _own(name, module)
    if kind in _DROPOUTS:
        return _dropout(module.training)
    if kind in ("BatchNorm1d", "BatchNorm2d"):
        if module.training:
            raise ValueError("is in training mode; call model.eval() first")
        return [_batch_norm(module.running_mean, module.running_var, own.get("weight"), own.get("bias"), module.eps)]
    if kind == "Linear":
        return [linear(own["weight"], own.get("bias"))]
    if kind == "Conv2d":
        return [_convolution(own["weight"], own.get("bias"), vars(module))]
    return [(layer, {}) for layer in _without_parameters(kind, vars(module), shape)]


def steps_of_function(
    called: str, arguments: Sequence[Any], options: Mapping[str, Any], shape: tuple[int, ...]
) -> list[Step]:
    """Return our layers for a call called(input, *arguments, **options), the input's examples being of that shape."""
    if called not in _FUNCTIONS:
        raise ValueError("cannot be expressed by our layers")
    kind, names = _FUNCTIONS[called]
    if len(arguments) > len(names):
        raise ValueError(f"expected at most the arguments {', '.join(names)}, got {len(arguments)}")
    given = dict(zip(names, arguments, strict=False)) | dict(options)
    if kind == "dropout":
        return _dropout(given.get("training", given.get("train", called != "feature_alpha_dropout")))
    if kind in ("linear", "matmul"):
        weight = _parameter(given.get("weight"), "the weight")
        bias = None if given.get("bias") is None else _parameter(given["bias"], "the bias")
        return [linear(weight if kind == "linear" else weight.T, bias)]
    if kind == "conv2d":
        bias = None if given.get("bias") is None else _parameter(given["bias"], "the bias")
        return [_convolution(_parameter(given.get("weight"), "the weight"), bias, given)]
    if kind == "batch_norm":
        if given.get("training"):
            raise ValueError("is in training mode; call model.eval() first")
        mean, variance = given.get("running_mean"), given.get("running_var")
        return [_batch_norm(mean, variance, given.get("weight"), given.get("bias"), given.get("eps", 1e-5))]
    if kind == "mean":
        axes = given.get("dim")
        return mean_of_images(axes if isinstance(axes, Sequence) else [], bool(given.get("keepdim")), shape)
    return [] if kind == "same" else [(layer, {}) for layer in _without_parameters(kind, given, shape)]


def _class_of(kind: str) -> Any:
    from torch import nn

    return getattr(nn, kind, None)


def _hint(module: Any, kind: str) -> str:
    if hasattr(module, "parametrizations"):
        return f"; remove its parametrization ({', '.join(module.parametrizations)}) first"
    return "; put the module that it wraps in its place" if kind == "DataParallel" else ""


def _own(name: str, module: Any) -> dict[str, Weight]:
    """Return a module's weight and bias, masked ones under their plain names."""
    buffers, found = dict(module.named_buffers(recurse=False)), {}
    for key, value in module.named_parameters(recurse=False):
        plain = key.removesuffix("_orig") if f"{key.removesuffix('_orig')}_mask" in buffers else key
        if plain not in ("weight", "bias"):
            raise ValueError(
                f"expected only weight and bias as its own parameters, got {key}; remove what computes them"
            )
        found[plain] = Weight(f"{name}.{plain}" if name else plain, tuple(value.shape))
    if getattr(module, "weight", None) is not None and "weight" not in found:
        raise ValueError("its weight is not a parameter of its own; remove what computes it")
    return {key: found[key] for key in ("weight", "bias") if key in found}


def _parameter(value: Any, what: str) -> Weight:
    if not isinstance(value, Weight):
        raise ValueError(f"expected a parameter of the model as {what}")
    return value


def _dropout(training: bool) -> list[Step]:
    if training:
        raise ValueError("is in training mode; call model.eval() first")
    return []


def _convolution(weight: Weight, bias: Weight | None, options: Mapping[str, Any]) -> Step:
    if options.get("padding_mode", "zeros") != "zeros":
        raise ValueError(f"expected padding_mode='zeros', got {options['padding_mode']!r}")
    padding = options.get("padding", 0)
    padding = 0 if padding == "valid" else padding
    given = {name: options.get(name, 1) for name in ("stride", "dilation", "groups")}
    return convolution(weight, bias, padding=padding, **given)


def _batch_norm(mean: Any, variance: Any, weight: Any, bias: Any, epsilon: float) -> Step:
    if mean is None or variance is None:
        raise ValueError("expected running statistics, got none")
    if not isinstance(weight, Weight) or not isinstance(bias, Weight):
        raise ValueError("expected a weight and a bias (affine=True)")
    return batch_norm(as_array("running_mean", mean), as_array("running_var", variance), weight, bias, epsilon)


def _without_parameters(kind: str, options: Mapping[str, Any], shape: tuple[int, ...]) -> list[Layer]:
    """Return our layers for a module without parameters, given its class and its attributes."""
    if kind in _ACTIVATIONS:
        return [getattr(minimal_nn, kind)()]
    if kind == "GELU":
        if options.get("approximate", "none") != "none":
            raise ValueError(f"expected the exact form, approximate='none', got {options['approximate']!r}")
        return [minimal_nn.GELU()]
    if kind == "Softplus":
        if options.get("beta", 1) != 1 or options.get("threshold", 20) < 20:
            raise ValueError("expected beta=1 and a threshold of 20 or more")
        return [minimal_nn.Softplus()]
    if kind == "Flatten" and options["start_dim"] == 1 and options["end_dim"] in (-1, len(shape)):
        return [layer for layer, _ in rows(shape)]
    if kind in ("AvgPool2d", "MaxPool2d"):
        return [_pooling(kind, options)]
    if kind == "AdaptiveAvgPool2d":
        return _adaptive_pooling(options["output_size"], shape)
    logits = "; leave it out, the loss takes logits" if kind in ("Softmax", "LogSoftmax") else ""
    raise ValueError("cannot be expressed by our layers" + logits)


def _pooling(kind: str, options: Mapping[str, Any]) -> Layer:
    if any(options.get(name) for name in ("ceil_mode", "divisor_override", "return_indices")):
        raise ValueError("expected ceil_mode=False, return_indices=False and no divisor_override")
    kernel, stride = options["kernel_size"], options.get("stride")
    stride = kernel if stride in (None, []) else stride
    return pooling(kind, kernel, stride, options.get("padding", 0), options.get("dilation", 1))


def _adaptive_pooling(size: Any, shape: tuple[int, ...]) -> list[Layer]:
    """Return average pooling to `size` × `size`: windows of one size, where the image is a multiple of it."""
    pair = size if isinstance(size, Sequence) else (size, size)
    if len(shape) != 3 or len(pair) != 2:
        raise ValueError(f"expected images of shape (C, H, W) for each example and two sizes, got {shape} and {size}")
    side = square("output_size", [n or length for n, length in zip(pair, shape[1:], strict=True)])
    if shape[1] != shape[2] or shape[1] % side:
        raise ValueError(f"expected square images whose side is a multiple of the output's {side}, got {shape}")
    return [minimal_nn.AvgPool2d(shape[1] // side)]
