"""Layers of other frameworks as steps of a chain of ours; what has no counterpart is a ValueError that says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import minimal_nn
from minimal_nn.layers import Layer
from pruning.oracle.chains import Source, Step


@dataclass(frozen=True)
class Weight:
    """A parameter as an expression of the graph: its name, its shape there, and whether that is its transpose."""

    name: str
    shape: tuple[int, ...]
    transposed: bool = False

    @property
    def T(self) -> Weight:
        """The transpose of a matrix."""
        if len(self.shape) != 2:
            raise ValueError(f"{self.name}: expected a matrix, got shape {self.shape}")
        return replace(self, shape=self.shape[::-1], transposed=not self.transposed)

    @property
    def source(self) -> Source:
        """Its name, and the order of our axes in the foreign tensor, where this expression is (outputs, inputs, ...).

        Ours are (inputs, outputs, ...).
        """
        axes = tuple(range(2, len(self.shape)))
        return self.name, (0, 1, *axes) if self.transposed else (1, 0, *axes)


def linear(weight: Weight, bias: Weight | None) -> Step:
    """Return x weightᵀ + bias for a weight (outputs, inputs)."""
    if len(weight.shape) != 2:
        raise ValueError(f"expected {weight.name} of shape (outputs, inputs), got {weight.shape}")
    outputs, inputs = weight.shape
    layer = minimal_nn.Linear(inputs, outputs, bias is not None)
    return layer, {"weight": weight.source} | _vector("bias", bias, outputs)


def convolution(
    weight: Weight, bias: Weight | None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1
) -> Step:
    """Return the convolution with a weight (outputs, inputs, kernel, kernel); padding may be "same"."""
    if groups != 1 or square("dilation", dilation) != 1:
        raise ValueError(f"expected groups=1 and dilation=1, got {groups} and {dilation}")
    if len(weight.shape) != 4:
        raise ValueError(f"expected {weight.name} of shape (outputs, inputs, kernel, kernel), got {weight.shape}")
    outputs, inputs, kernel = *weight.shape[:2], square("kernel", weight.shape[2:])
    if isinstance(padding, str) and padding == "same":
        if kernel % 2 == 0:
            raise ValueError("padding 'same' with an even kernel pads one side more than the other")
        padding = kernel // 2
    pixels = square("padding", padding)
    layer = minimal_nn.Conv2d(inputs, outputs, kernel, square("stride", stride), pixels, bias is not None)
    return layer, {"weight": weight.source} | _vector("bias", bias, outputs)


def batch_norm(mean: np.ndarray, variance: np.ndarray, scale: Weight, shift: Weight, epsilon: float) -> Step:
    """Return batch norm with fixed statistics."""
    channels = scale.shape[0] if scale.shape else 0
    constants = [tuple(np.asarray(v, np.float64).ravel().tolist()) for v in (mean, variance)]
    layer = minimal_nn.BatchNorm(channels, constants[0], constants[1], epsilon)
    return layer, _vector("gamma", scale, channels) | _vector("beta", shift, channels)


def pooling(kind: str, kernel: Any, stride: Any, padding: Any = 0, dilation: Any = 1) -> Layer:
    """Return AvgPool2d or MaxPool2d."""
    if square("padding", padding) != 0 or square("dilation", dilation) != 1:
        raise ValueError(f"expected padding=0 and dilation=1, got {padding} and {dilation}")
    side, step = square("kernel", kernel), square("stride", stride)
    return getattr(minimal_nn, kind)(side, None if step == side else step)


def mean_of_images(axes: Sequence[int], keep: bool, shape: tuple[int, ...]) -> list[Step]:
    """Return the mean over these axes of a batch of examples of this shape, which must be those of a square image."""
    if len(shape) != 3 or sorted(axis % 4 for axis in axes) != [2, 3] or shape[1] != shape[2]:
        raise ValueError(
            f"only the mean over both axes of square images can be expressed, got {shape} and {list(axes)}"
        )
    pooled: list[Step] = [(minimal_nn.AvgPool2d(shape[1]), {})]
    return pooled if keep else [*pooled, (minimal_nn.Flatten(), {})]


def rows(shape: tuple[int, ...]) -> list[Step]:
    """Return what makes rows of examples of this shape."""
    return [(minimal_nn.Flatten(), {})] if len(shape) > 1 else []


def square(name: str, value: Any) -> int:
    """Return the one whole number that is given for both axes of an image."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or pair[0] != pair[1] or not isinstance(pair[0], int):
        raise ValueError(f"{name}: expected the same whole number for both axes, got {value}")
    return int(pair[0])


def _vector(ours: str, given: Weight | None, length: int) -> dict[str, Source]:
    if given is None:
        return {}
    if given.shape != (length,):
        raise ValueError(f"expected {given.name} of shape ({length},), got {given.shape}")
    return {ours: (given.name, (0,))}
