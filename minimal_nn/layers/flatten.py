"""Flatten: images (N, C, H, W) as rows (N, C·H·W), between the convolutions and the linear layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from minimal_nn.layers.base import Layer, Parameters


@dataclass(frozen=True)
class Flatten(Layer):
    """y[n, (c, i, j)] = x[n, c, i, j], row-major: nothing is computed, in either direction."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3:
            raise ValueError(f"{self}: expected images of shape (C, H, W) for each example, got {shape}")
        return (math.prod(shape),)

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))

    def jvp(self, p: Parameters, x: np.ndarray, y: np.ndarray, dp: Parameters, dx: np.ndarray | None) -> np.ndarray:
        return np.zeros_like(y)[None] if dx is None else self.forward(p, dx)

    def vjp(self, p: Parameters, x: np.ndarray, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        return by.reshape(*by.shape[:-1], *x.shape[-3:])

    def vjp_tangent(
        self,
        p: Parameters,
        x: np.ndarray,
        y: np.ndarray,
        by: np.ndarray,
        dp: Parameters,
        dx: np.ndarray | None,
        dby: np.ndarray,
    ) -> np.ndarray:
        return self.vjp(p, x, y, dby)
