"""Pooling: the mean or the largest value of every window, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from minimal_nn import checks
from minimal_nn.layers.base import Layer, Parameters
from minimal_nn.layers.windows import add_windows, count, windows


@dataclass(frozen=True)
class _Pool2d(Layer):
    """Windows of kernel × kernel, moved by `stride` (their own size unless given); a rest at the border is left out."""

    kernel: int
    stride: int | None = None

    def __post_init__(self) -> None:
        checks.integer("kernel", self.kernel, 1)
        if self.stride is not None:
            checks.integer("stride", self.stride, 1)

    def __repr__(self) -> str:
        step = "" if self.stride is None else f", stride={self.stride}"
        return f"{type(self).__name__}({self.kernel}{step})"

    @property
    def step(self) -> int:
        """By how much the window moves."""
        return self.stride or self.kernel

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3:
            raise ValueError(f"{self}: expected images of shape (C, H, W) for each example, got {shape}")
        size = tuple(count(length, self.kernel, self.step) for length in shape[1:])
        if min(size) < 1:
            raise ValueError(f"{self}: expected images at least as large as the window, got {shape}")
        return (shape[0], *size)


@dataclass(frozen=True, repr=False)
class AvgPool2d(_Pool2d):
    """The mean of every window: a linear map, whose adjoint spreads 1/kernel² of ȳ over the window."""

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        seen = windows(x, self.kernel, self.step)
        places = np.ndindex(seen.shape[-2:])
        return reduce(np.add, (seen[..., i, j] for i, j in places)) / self.kernel**2

    def jvp(self, p: Parameters, x: np.ndarray, y: np.ndarray, dp: Parameters, dx: np.ndarray | None) -> np.ndarray:
        return np.zeros_like(y)[None] if dx is None else self.forward(p, dx)

    def vjp(self, p: Parameters, x: np.ndarray, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        share = by[..., None, None] / self.kernel**2
        return add_windows(np.broadcast_to(share, (*by.shape, self.kernel, self.kernel)), x.shape[-2:], self.step)

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


@dataclass(frozen=True, repr=False)
class MaxPool2d(_Pool2d):
    """The largest value of every window. Its place is held fixed in derivatives; of equal ones the first counts.

    "First" is by rows, then columns, of the window: the choice of torch and JAX. Away from ties the map is linear.
    """

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return self._pick(x, x)

    def jvp(self, p: Parameters, x: np.ndarray, y: np.ndarray, dp: Parameters, dx: np.ndarray | None) -> np.ndarray:
        return np.zeros_like(y)[None] if dx is None else self._pick(x, dx)

    def vjp(self, p: Parameters, x: np.ndarray, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        offsets = np.arange(self.kernel**2).reshape(self.kernel, self.kernel)
        chosen = self._where(x)[..., None, None] == offsets
        return add_windows(by[..., None, None] * chosen, x.shape[-2:], self.step)

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

    def _where(self, x: np.ndarray) -> np.ndarray:
        """Return the place (..., C, Ho, Wo) of the largest real part in each window, counted by rows."""
        w = windows(x.real, self.kernel, self.step)
        return w.reshape(*w.shape[:-2], -1).argmax(axis=-1)

    def _pick(self, x: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Return `values` (..., C, H, W) at the places where x is largest."""
        w = windows(values, self.kernel, self.step)
        flat = w.reshape(*w.shape[:-2], -1)
        where = np.broadcast_to(self._where(x), flat.shape[:-1])
        return np.take_along_axis(flat, where[..., None], axis=-1)[..., 0]
