"""The loss changes of all parameters of some output channels of one layer, by the cheapest exact route there is.

lines         Linear, piecewise-linear behind it    `regions` and `polynomials`
polynomials   Linear, analytic behind it            `polynomials`
channels      Linear, Conv2d, BatchNorm             one channel computed again for each weight, by `suffix`
prefix        any other layer with parameters       the layer and all behind it for each weight
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minimal_nn import memory
from minimal_nn.curvature.blocks import layer_slices
from minimal_nn.curvature.products import PRODUCTS, product_index, product_rows
from minimal_nn.layers import (
    GELU,
    BatchNorm,
    Conv2d,
    Identity,
    Linear,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from minimal_nn.layers.windows import windows
from minimal_nn.network import Network
from pruning.exact import polynomials
from pruning.exact.regions import Region
from pruning.exact.suffix import Piece, Suffix

ANALYTIC = (Linear, BatchNorm, Identity, Tanh, Sigmoid, Softplus, SiLU, GELU)
PIECEWISE_LINEAR = (Linear, BatchNorm, Identity, ReLU)
WORTHWHILE = 24  #: inputs from which on a polynomial costs less than its weights one by one
TOGETHER = 32 * 2**20  #: bytes of changed channels at once

Omega = np.ndarray | None  #: (M, n) weights of the examples, or None to keep them apart


def route(network: Network, i: int) -> str:
    """Return by which route the parameters of layer i go: one of those above; "" for a layer without any."""
    layer, behind = network.layers[i], network.layers[i + 1 :]
    if not layer.parameter_shapes():
        return ""
    if type(layer) is Linear and layer.inputs >= WORTHWHILE:
        if all(type(other) in ANALYTIC for other in behind):
            return "polynomials"
        if all(type(other) in PIECEWISE_LINEAR for other in behind):
            return "lines"
    return "channels" if isinstance(layer, (*PRODUCTS, BatchNorm)) else "prefix"


def index(network: Network, i: int) -> np.ndarray:
    """Return where in w the parameters of each output channel of layer i stand (q, channels).

    The parameters of a layer whose route is "prefix" have one channel each.
    """
    layer = network.layers[i]
    size = sum(int(np.prod(shape)) for shape in layer.parameter_shapes().values())
    start = layer_slices(network.layout)[i].start
    if isinstance(layer, PRODUCTS):
        return start + product_index(layer)
    return start + np.arange(size).reshape(2 if isinstance(layer, BatchNorm) else 1, -1)


def changes(piece: Piece, i: int, units: range, omega: Omega) -> np.ndarray:
    """Return Σ_n ω_mn (ℓ_n′ − ℓ_n) as (M, q, units) for the parameters index(network, i)[:, units] of layer i."""
    by = route(piece.L.network, i)
    if by == "prefix":
        return _one_by_one(piece, i, units, omega)
    suffix = Suffix(piece, i)
    if omega is None or by == "channels":
        found = _channels(suffix, units, omega)
    else:
        widest = max(y[0].size for y in piece.trace[i + 1 :])
        parts = memory.pieces(len(units), suffix.z[:, 0].nbytes * widest, TOGETHER)
        found = np.concatenate([_interpolated(suffix, units[part], omega, by) for part in parts], axis=2)
    found[:, :, ~piece.heard(i)[units.start : units.stop]] = 0  # not the rounding of two equal losses
    return found


class Without:
    """The loss changes of each example with some parameters at 0 at once, for one group of them after the other.

    Members of one output channel change that channel; members of one Linear layer change its outputs by what their
    inputs contributed; others have everything computed again from the first layer that holds one of them.
    """

    def __init__(self, piece: Piece) -> None:
        """Note of every parameter its layer, its output channel there, and its row among that channel's."""
        network, P = piece.L.network, len(piece.w)
        self.piece, self.everyone = piece, np.arange(len(piece.losses))
        self.layer, self.channel, self.row = (np.empty(P, np.intp) for _ in range(3))
        for i, own in layer_slices(network.layout).items():
            at = index(network, i)
            self.layer[own] = i
            self.row[at], self.channel[at] = np.indices(at.shape)
        self._kept: dict[int, tuple[Suffix, Callable[[int, np.ndarray], np.ndarray]]] = {}

    def __call__(self, members: np.ndarray) -> np.ndarray:
        """Return ℓ_n′ − ℓ_n (n,) without the parameters w[members]."""
        piece, network = self.piece, self.piece.L.network
        if not len(members):
            return np.zeros_like(piece.losses)
        i, channels, rows = int(self.layer[members].min()), self.channel[members], self.row[members]
        if (self.layer[members] == i).all():
            if route(network, i) != "prefix" and (channels == channels[0]).all():
                return self._in_one_channel(i, int(channels[0]), rows, piece.w[members])
            if isinstance(network.layers[i], Linear):
                used, place = np.unique(rows, return_inverse=True)
                removed = np.zeros((len(used), piece.trace[i + 1].shape[1]), piece.w.dtype)
                removed[place, channels] = piece.w[members]
                _, inputs = self._of_layer(i)
                return piece.behind(i + 1, self.everyone, piece.trace[i + 1] - inputs(0, used).T @ removed)
        removed = piece.w.copy()
        removed[members] = 0
        return piece.behind(i, self.everyone, piece.trace[i], network.parameters(removed))

    def _in_one_channel(self, i: int, b: int, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
        suffix, inputs = self._of_layer(i)
        z_b = suffix.z[:, b].copy()
        for part in memory.pieces(len(rows), z_b.nbytes, TOGETHER):
            z_b -= np.tensordot(values[part], inputs(b, rows[part]), 1)
        return suffix.loss_changes(b, self.everyone, z_b)

    def _of_layer(self, i: int) -> tuple[Suffix, Callable[[int, np.ndarray], np.ndarray]]:
        if i not in self._kept:
            self._kept[i] = Suffix(self.piece, i), _inputs(self.piece, i)
        return self._kept[i]


def _interpolated(suffix: Suffix, units: range, omega: np.ndarray, by: str) -> np.ndarray:
    piece, i = suffix.piece, suffix.i
    x, weight = piece.trace[i], piece.p[i]["weight"]
    everyone = np.arange(len(x))
    region = Region(suffix, units) if by == "lines" else None

    def f(b: int, n: np.ndarray, t: np.ndarray) -> np.ndarray:
        n, t_flat = np.tile(n, len(t)), t.ravel()
        found = region.along(b, n, t_flat) if region else suffix.loss_changes(b, n, suffix.z[n, b] + t_flat)
        return found.reshape(t.shape)

    total = np.zeros((len(omega), len(index(piece.L.network, i)), len(units)), x.dtype)
    scale = float(np.abs(piece.losses).mean())
    total[:, : len(weight)], done = polynomials.sums(x, weight, units, f, scale, omega)
    for u in np.flatnonzero(done):
        b = units[u]
        if region:
            a, n, t = region.outside(b, x, weight[:, b])
            wrong = suffix.loss_changes(b, n, suffix.z[n, b] + t) - region.along(b, n, t)
            for m, weights in enumerate(omega):
                total[m, : len(weight), u] += np.bincount(a, weights[n] * wrong, len(weight))
        if len(weight) < total.shape[1]:
            total[:, -1, u] = omega @ suffix.loss_changes(b, everyone, suffix.z[:, b] - piece.p[i]["bias"][b])
    for u in np.flatnonzero(~done):
        total[:, :, u : u + 1] = _channels(suffix, units[u : u + 1], omega)
    return total


def _channels(suffix: Suffix, units: range, omega: Omega) -> np.ndarray:
    """Compute a channel again for each of its parameters: z_b − x_a w_ab, whatever follows."""
    piece, i, z = suffix.piece, suffix.i, suffix.z
    n, at = len(z), index(piece.L.network, i)
    inputs = _inputs(piece, i)
    total = np.empty((n if omega is None else len(omega), len(at), len(units)), z.dtype)
    for u, b in enumerate(units):
        for part in memory.pieces(len(at), z[:, 0].nbytes, TOGETHER):
            rows = np.arange(part.start, part.stop)
            values = piece.w[at[rows, b]].reshape(-1, *(1,) * (z.ndim - 1))
            removed = z[:, b] - inputs(b, rows) * values
            every = np.tile(np.arange(n), len(removed))
            found = suffix.loss_changes(b, every, removed.reshape(-1, *z.shape[2:])).reshape(len(removed), n).T
            total[:, rows, u] = found if omega is None else omega @ found
    return total


def _inputs(piece: Piece, i: int) -> Callable[[int, np.ndarray], np.ndarray]:
    """Return (b, rows) -> what those parameters of output channel b multiply (rows, n, ...)."""
    layer, x = piece.L.network.layers[i], piece.trace[i]
    if isinstance(layer, Linear):
        transposed = np.ascontiguousarray(product_rows(layer, x).T)
        return lambda b, rows: transposed[rows]
    if isinstance(layer, Conv2d):
        seen = np.moveaxis(windows(x, layer.kernel, layer.stride, layer.padding), (1, -2, -1), (0, 1, 2))
        places = [seen[place] for place in np.ndindex(seen.shape[:3])]
        places += [np.ones(places[0].shape, x.dtype)] * layer.bias
        return lambda b, rows: np.stack([places[row] for row in rows])
    assert isinstance(layer, BatchNorm)
    plain = {"gamma": np.ones(layer.channels, x.dtype), "beta": np.zeros(layer.channels, x.dtype)}
    normal = layer.forward(plain, x)
    return lambda b, rows: np.stack([normal[:, b], np.ones_like(normal[:, b])])[rows]


def _one_by_one(piece: Piece, i: int, units: range, omega: Omega) -> np.ndarray:
    """Run layer i, and all behind it, without each of its parameters: nothing before it is computed again."""
    network, everyone = piece.L.network, np.arange(len(piece.y))
    at = index(network, i)[0]
    found = np.empty((len(units), len(everyone)), piece.w.dtype)
    for u, j in enumerate(units):
        removed = piece.w.copy()
        removed[at[j]] = 0
        x = network.layers[i].forward(network.parameters(removed)[i], piece.trace[i])
        found[u] = piece.behind(i + 1, everyone, x)
    return (found.T if omega is None else omega @ found.T)[:, None]
