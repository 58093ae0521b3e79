"""What lies behind one layer: the loss of each example when a single output channel of that layer changes.

Up to the next product the layers act on each channel alone (activations, pooling, BatchNorm, Flatten), so that only
channel b of them is computed again. The next product's outputs then change by what channel b contributes,

    z_next′ = z_next + (h_b′ − h_b) W_next[b]

a rank-one change for Linear, a convolution of one channel for Conv2d; everything behind is run forward. Where another
layer comes first (Residual), its input is the old one with channel b replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minimal_nn.layers import Activation, AvgPool2d, BatchNorm, Conv2d, Flatten, Layer, Linear, MaxPool2d
from minimal_nn.layers.base import Parameters
from minimal_nn.objective import Objective

CHANNELWISE = (Activation, AvgPool2d, MaxPool2d, Flatten, BatchNorm)
CHUNK = 4 * 2**20  #: bytes of the widest array behind a layer at once: it stays in the processor's cache


@dataclass(frozen=True)
class Piece:
    """Some examples, forward through the network at w, and their losses (n,)."""

    L: Objective
    w: np.ndarray
    p: list[dict[str, np.ndarray]]
    trace: list[np.ndarray]
    y: np.ndarray
    losses: np.ndarray

    @classmethod
    def of(cls, L: Objective, w: np.ndarray) -> Piece:
        """Run all examples of L at once; FloatingPointError where an output is not finite."""
        trace = L.network.trace(w, L.x.astype(w.dtype, copy=False))
        if not np.isfinite(trace[-1]).all():
            raise FloatingPointError(f"outputs are not finite; the largest |w| is {np.abs(w).max():.3g}")
        return cls(L, w, L.network.parameters(w), trace, L.y, L.loss.value(trace[-1], L.y))

    def heard(self, i: int) -> np.ndarray:
        """Return which output channels of layer i reach an output over weights that are not 0 (channels,) bool."""
        heard: Any = np.ones(self.trace[-1].shape[1], bool)
        for k in range(len(self.p) - 1, i, -1):
            layer, p, channels = self.L.network.layers[k], self.p[k], self.trace[k].shape[1]
            if isinstance(layer, (Linear, Conv2d)):
                heard = (p["weight"][:, heard] != 0).reshape(channels, -1).any(axis=1)
            elif isinstance(layer, BatchNorm):
                heard = heard & (p["gamma"] != 0)
            elif isinstance(layer, Flatten):
                heard = heard.reshape(channels, -1).any(axis=1)
            elif not isinstance(layer, CHANNELWISE):
                heard = np.ones(channels, bool)
        return heard

    def behind(self, start: int, n: np.ndarray, x: np.ndarray, p: list | None = None) -> np.ndarray:
        """Return ℓ′ − ℓ (E,) of examples n (E,) when layer `start` receives x (E, ...), or other parameters p too."""
        for layer, own in zip(self.L.network.layers[start:], (p or self.p)[start:], strict=True):
            x = layer.forward(own, x)
        return self.L.loss.value(x, self.y[n]) - self.losses[n]


class Suffix:
    """What follows layer i, whose output has channels along its second axis."""

    def __init__(self, piece: Piece, i: int) -> None:
        layers = piece.L.network.layers
        self.piece, self.i = piece, i
        self.k = next((k for k in range(i + 1, len(layers)) if not isinstance(layers[k], CHANNELWISE)), len(layers))
        self.z, self.h = piece.trace[i + 1], piece.trace[self.k]
        self.per_channel = self.h.shape[1] // self.z.shape[1]  # features of one channel, where Flatten lies between
        widths = [y[0].size for y in piece.trace[self.k :]]
        self.rows = max(1, CHUNK // (max(widths) * self.z.itemsize))

    def loss_changes(self, b: int, n: np.ndarray, z_b: np.ndarray) -> np.ndarray:
        """Return ℓ′ − ℓ (E,) of examples n (E,) when output channel b of layer i is z_b (E, ...) instead.

        It is exactly 0 where nothing changes behind the channelwise layers.
        """
        changes = np.zeros(len(n), self.z.dtype)
        for start in range(0, len(n), self.rows):
            rows = slice(start, start + self.rows)
            changes[rows] = self._chunk(b, n[rows], z_b[rows])
        return changes

    def _chunk(self, b: int, n: np.ndarray, z_b: np.ndarray) -> np.ndarray:
        at = slice(b * self.per_channel, (b + 1) * self.per_channel)
        moved = self.channel(b, z_b[:, None])
        change = moved - self.h[n, at]
        differs = change.reshape(len(n), -1).any(axis=1)
        out = np.zeros(len(differs), change.dtype)
        if differs.any():
            out[differs] = self._behind(b, at, n[differs], moved[differs], change[differs])
        return out

    def channel(self, b: int, x: np.ndarray) -> np.ndarray:
        """Run the channelwise layers on channel b alone: x (E, 1, ...) -> (E, features or 1, ...)."""
        first = last = b
        for i in range(self.i + 1, self.k):
            layer = self.piece.L.network.layers[i]
            p: Parameters = self.piece.p[i]
            if isinstance(layer, Flatten):
                first, last = b * self.per_channel, (b + 1) * self.per_channel - 1
            if isinstance(layer, BatchNorm):
                layer, p = _some_channels(layer, p, slice(first, last + 1))
            x = layer.forward(p, x)
        return x

    def _behind(self, b: int, at: slice, n: np.ndarray, moved: np.ndarray, change: np.ndarray) -> np.ndarray:
        layers, p = self.piece.L.network.layers, self.piece.p
        layer = layers[self.k] if self.k < len(layers) else None
        if isinstance(layer, Linear):
            weight = p[self.k]["weight"][at]
            added = change * weight if len(weight) == 1 else change @ weight
        elif isinstance(layer, Conv2d):
            alone = replace(layer, inputs=1, bias=False)
            added = alone.forward({"weight": p[self.k]["weight"][b : b + 1]}, change)
        else:
            x = self.h[n].copy()
            x[:, at] = moved
            return self.piece.behind(self.k, n, x)
        added += self.piece.trace[self.k + 1][n]
        return self.piece.behind(self.k + 1, n, added)


def _some_channels(layer: BatchNorm, p: Parameters, at: slice) -> tuple[Layer, Parameters]:
    """Return BatchNorm of some of its channels, with their parameters."""
    mean, variance = layer.mean[at], layer.variance[at]  # type: ignore[index]
    some = BatchNorm(len(mean), mean, variance, layer.epsilon)
    return some, {name: value[at] for name, value in p.items()}
