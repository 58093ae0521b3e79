"""Scores by their definitions in 50-digit arithmetic: layers, losses and criteria written again, slow and obvious.

Nothing here is shared with what it judges: forward passes on arrays of mpmath numbers, central differences for every
derivative, dense inverses, one forward pass for each removed weight, all sets for a best set. 80 digits are carried. A
first difference of step 1e-25 and a second one of step 1e-20 have errors near 1e-50 and 1e-40, so that what is rounded
to float64 in the end is the definition's own value, whatever machine computes it; below 1e-30 it is 0. Where a ReLU or
a maximum has its kink, derivatives are those of the side on which the function is at w, and 0 for a ReLU at 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cached_property
from typing import Any

import mpmath
import numpy as np

from minimal_nn.objective import Objective

MP = mpmath.mp.clone()
MP.dps = 80
H1, H2 = MP.mpf(10) ** -25, MP.mpf(10) ** -20  #: steps of first and of second differences

Parameters = dict[str, np.ndarray]


def numbers(a: Any) -> np.ndarray:
    """Return an array of float64, or of integers, as one of exactly equal mpmath numbers."""
    a = np.asarray(a)
    return np.array([MP.mpf(v.item()) for v in a.ravel()], object).reshape(a.shape)


def floats(a: np.ndarray) -> np.ndarray:
    """Return mpmath numbers rounded to the nearest float64, and 0 for what the differences cannot tell from it."""
    return np.array([float(v) if abs(v) > 1e-30 else 0.0 for v in a.ravel()]).reshape(a.shape)


def _each(f: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    def of(a: np.ndarray) -> np.ndarray:
        return np.array([f(v) for v in a.ravel()], object).reshape(a.shape)

    return of


ACTIVATIONS = {
    "Identity": lambda a: a,
    "Tanh": _each(MP.tanh),
    "Sigmoid": _each(lambda v: 1 / (1 + MP.exp(-v))),
    "Softplus": _each(lambda v: MP.log1p(MP.exp(v))),
    "SiLU": _each(lambda v: v / (1 + MP.exp(-v))),
    "GELU": _each(lambda v: v * (1 + MP.erf(v / MP.sqrt(2))) / 2),
}


class Pass:
    """Forward passes. `gates` hold on which side of every kink they are, taken once; `seen` the inputs of layers."""

    def __init__(self, gates: dict[str, np.ndarray] | None = None, linear: bool = False) -> None:
        self.gates, self.linear = gates, linear
        self.seen: dict[str, tuple[Any, np.ndarray]] = {}

    def __call__(self, layers: Any, p: Parameters, x: np.ndarray, within: str = "") -> np.ndarray:
        """Return the outputs of layers, one after another, for inputs x (N, ...)."""
        for i, layer in enumerate(layers):
            where = f"{within}{i}"
            self.seen[where] = layer, x
            x = self._one(layer, p, x, where)
        return x

    def _one(self, layer: Any, p: Parameters, x: np.ndarray, where: str) -> np.ndarray:
        kind = type(layer).__name__
        if kind == "Residual":
            return x + self(layer.layers, p, x, f"{where}.")
        if kind == "Linear":
            z = x @ p[f"{where}.weight"]
            return z + p[f"{where}.bias"] if layer.bias else z
        if kind == "Conv2d":
            return self._convolution(layer, p, x, where)
        if kind == "BatchNorm":
            return self._batch_norm(layer, p, x, where)
        if kind == "Flatten":
            return x.reshape(len(x), -1)
        if kind in ("AvgPool2d", "MaxPool2d"):
            return self._pool(layer, x, where)
        if self.linear:
            return x
        if kind == "ReLU":
            return x * self._gate(where, np.where(x > 0, 1, 0))
        return ACTIVATIONS[kind](x)

    def _gate(self, where: str, now: np.ndarray) -> np.ndarray:
        return now if self.gates is None else self.gates.setdefault(where, now)

    def _convolution(self, layer: Any, p: Parameters, x: np.ndarray, where: str) -> np.ndarray:
        rows = windows(x, layer.kernel, layer.stride, layer.padding)
        N, height, width = rows.shape[:3]
        W = p[f"{where}.weight"]
        z = rows.reshape(-1, rows.shape[3]) @ W.transpose(0, 2, 3, 1).reshape(-1, W.shape[1])
        if layer.bias:
            z = z + p[f"{where}.bias"]
        return z.reshape(N, height, width, -1).transpose(0, 3, 1, 2)

    def _pool(self, layer: Any, x: np.ndarray, where: str) -> np.ndarray:
        k = layer.kernel
        rows = windows(x, k, layer.stride or k, 0)
        rows = rows.reshape(*rows.shape[:3], x.shape[1], k * k)
        if type(layer).__name__ == "AvgPool2d":
            y = rows.sum(axis=-1) / MP.mpf(k * k)
        else:
            largest = self._gate(where, rows.argmax(axis=-1))
            y = np.take_along_axis(rows, largest[..., None], axis=-1)[..., 0]
        return y.transpose(0, 3, 1, 2)

    def _batch_norm(self, layer: Any, p: Parameters, x: np.ndarray, where: str) -> np.ndarray:
        along = (1, -1) + (1,) * (x.ndim - 2)
        sigma = _each(MP.sqrt)(numbers(layer.variance) + MP.mpf(layer.epsilon)).reshape(along)
        gamma, beta = (p[f"{where}.{name}"].reshape(along) for name in ("gamma", "beta"))
        return gamma * x / sigma if self.linear else gamma * (x - numbers(layer.mean).reshape(along)) / sigma + beta


def windows(x: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    """Return every window of images x (N, C, H, W) as a row: (N, height, width, C·kernel²)."""
    N, C, H, W = x.shape
    padded = numbers(np.zeros((N, C, H + 2 * padding, W + 2 * padding)))
    padded[:, :, padding : padding + H, padding : padding + W] = x
    height, width = ((size + 2 * padding - kernel) // stride + 1 for size in (H, W))
    rows = np.empty((N, height, width, C * kernel**2), object)
    for i, j in np.ndindex(height, width):
        a, b = stride * i, stride * j
        rows[:, i, j] = padded[:, :, a : a + kernel, b : b + kernel].reshape(N, -1)
    return rows


class Definitions:
    """Derivatives and every deterministic criterion of an objective at w, as arrays (P,) of mpmath numbers.

    A criterion is the method of its name. Entries without a score are +inf.
    """

    def __init__(self, L: Objective, w: np.ndarray) -> None:
        self.L, self.layers, self.layout = L, L.network.layers, L.network.layout
        self.w, self.x, self.l2 = numbers(w), numbers(L.x), MP.mpf(L.l2)
        self.N, self.P, self.C = L.n_examples, len(w), L.n_outputs
        self.gates: dict[str, np.ndarray] = {}
        first = Pass(self.gates)
        self.z = first(self.layers, self._named(self.w), self.x)
        self.seen = first.seen

    def _named(self, w: np.ndarray) -> Parameters:
        return self.layout.unflatten(w)

    def outputs(self, w: np.ndarray, frozen: bool = True) -> np.ndarray:
        """Return the outputs (N, C) at w, with every kink on the side of the start where frozen."""
        return Pass(self.gates if frozen else None)(self.layers, self._named(w), self.x)

    def losses(self, z: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """Return ℓ (N,) of outputs z (N, C), without l2; targets are those of the data unless given."""
        y, kind = numbers(self.L.y) if targets is None else targets, type(self.L.loss).__name__
        if kind == "SquaredError":
            each = ((z - y) ** 2).sum(axis=1) / MP.mpf(2)
        elif kind == "BinaryCrossEntropy":
            each = (_each(lambda v: MP.log1p(MP.exp(v)))(z) - y * z).sum(axis=1)
        else:
            if y.ndim == 1:
                y = numbers(np.eye(self.C)[[int(label) for label in y]])
            each = _each(MP.log)(_each(MP.exp)(z).sum(axis=1)) - (y * z).sum(axis=1)
        return MP.mpf(self.L.loss.scale) * each

    def value(self, w: np.ndarray, frozen: bool = True) -> Any:
        """Return L(w)."""
        return self.losses(self.outputs(w, frozen)).sum() / self.N + self.l2 / 2 * (w * w).sum()

    def _moved(self, *steps: tuple[int, Any]) -> np.ndarray:
        w = self.w.copy()
        for j, h in steps:
            w[j] += h
        return w

    def gradient(self, w: np.ndarray | None = None) -> np.ndarray:
        """Return the gradient (P,), l2 included, at w or elsewhere."""
        if w is None:
            return self.rows.sum(axis=0) / self.N + self.l2 * self.w
        return Definitions(self.L, w).gradient()

    @cached_property
    def rows(self) -> np.ndarray:
        """The gradient of every ℓ_n (N, P), without l2."""
        each = [self.losses(self.outputs(self._moved((j, h)))) for j in range(self.P) for h in (H1, -H1)]
        return np.array([(up - down) / (2 * H1) for up, down in zip(each[::2], each[1::2], strict=True)]).T

    @cached_property
    def hessian_diagonal(self) -> np.ndarray:
        """The diagonal of H (P,), l2 included."""
        around = [(self.value(self._moved((j, H2))), self.value(self._moved((j, -H2)))) for j in range(self.P)]
        centre = self.value(self.w)
        return np.array([(up - 2 * centre + down) / H2**2 for up, down in around], object)

    @cached_property
    def hessian(self) -> np.ndarray:
        """H (P, P), l2 included."""
        around = [self.value(self._moved((j, H2))) + self.value(self._moved((j, -H2))) for j in range(self.P)]
        centre, H = self.value(self.w), np.diag(self.hessian_diagonal)
        for j, k in itertools.combinations(range(self.P), 2):
            both = self.value(self._moved((j, H2), (k, H2))) + self.value(self._moved((j, -H2), (k, -H2)))
            H[j, k] = H[k, j] = (both - around[j] - around[k] + 2 * centre) / (2 * H2**2)
        return H

    @cached_property
    def jacobian(self) -> np.ndarray:
        """∂z/∂w (N, C, P)."""
        each = [self.outputs(self._moved((j, h))) for j in range(self.P) for h in (H1, -H1)]
        J = [(up - down) / (2 * H1) for up, down in zip(each[::2], each[1::2], strict=True)]
        return np.array(J).transpose(1, 2, 0)

    def output_gradient(self, targets: np.ndarray | None = None) -> np.ndarray:
        """Return ∂ℓ/∂z (N, C), for these targets or those of the data."""
        columns = []
        for c in range(self.C):
            h = numbers(np.eye(self.C)[c]) * H1
            columns.append((self.losses(self.z + h, targets) - self.losses(self.z - h, targets)) / (2 * H1))
        return np.array(columns).T

    def fisher_diagonal(self) -> np.ndarray:
        """Return the diagonal of the true Fisher (P,): the mean over labels drawn from the model, by all of them."""
        kind, scale = type(self.L.loss).__name__, MP.mpf(self.L.loss.scale)
        if kind == "SquaredError":  # z − y is a standard normal vector: its second moments are I
            return scale * (self.jacobian**2).sum(axis=(0, 1)) / self.N
        if kind == "BinaryCrossEntropy":
            on = _each(lambda v: 1 / (1 + MP.exp(-v)))(self.z)
            labels = [numbers(v) for v in itertools.product((0, 1), repeat=self.C)]
            drawn = [(np.prod(np.where(y == 1, on, 1 - on), axis=1), y + 0 * self.z) for y in labels]
        else:
            p = _each(MP.exp)(self.z)
            p = p / p.sum(axis=1)[:, None]
            drawn = [(p[:, c], numbers(np.eye(self.C)[c]) + 0 * self.z) for c in range(self.C)]
        total = 0
        for probability, y in drawn:
            g = np.einsum("ncp,nc->np", self.jacobian, self.output_gradient(y) / scale)
            total = total + (probability[:, None] * g**2).sum(axis=0)
        return scale * total / self.N

    def empirical(self) -> np.ndarray:
        """Return the empirical Fisher (P, P), with the labels of the data."""
        return self.rows.T @ self.rows / self.N

    def exact(self) -> np.ndarray:
        """L(w without j) − L(w), one forward pass for each weight."""
        at = self.value(self.w, frozen=False)
        return np.array([self.value(self._moved((j, -self.w[j])), frozen=False) - at for j in range(self.P)], object)

    def magnitude(self) -> np.ndarray:
        """|w|."""
        return abs(self.w)

    def magnitude_scaled(self) -> np.ndarray:
        """|w| over the standard deviation of its tensor."""
        scores = self.w.copy()
        for own in self._tensors():
            v = self.w[own]
            scores[own] = abs(v) / MP.sqrt(((v - v.sum() / len(v)) ** 2).sum() / len(v))
        return scores

    def lamp(self) -> np.ndarray:
        """w_j² over the sum of what is not smaller in its tensor, ties by their place."""
        scores = self.w.copy()
        for own in self._tensors():
            v = list(self.w[own])
            for i, a in enumerate(v):
                scores[own.start + i] = a * a / sum(b * b for k, b in enumerate(v) if (b * b, k) >= (a * a, i))
        return scores

    def _tensors(self) -> list[slice]:
        return [self.layout[name] for name in self.layout]

    def taylor_signed(self) -> np.ndarray:
        """−g w."""
        return -self.gradient() * self.w

    def taylor(self) -> np.ndarray:
        """|g w|."""
        return abs(self.gradient() * self.w)

    def taylor_squared(self) -> np.ndarray:
        """The mean over examples of (g_n w)²."""
        return ((self.rows * self.w) ** 2).sum(axis=0) / self.N

    def taylor_second(self) -> np.ndarray:
        """−g w + ½ H_jj w²."""
        return self.taylor_signed() + self.obd()

    def movement(self, trajectory: np.ndarray) -> np.ndarray:
        """−Σ_t g_t w_t over the rows of trajectory (T, P)."""
        return -sum(numbers(w) * self.gradient(w) for w in trajectory)

    def obd(self) -> np.ndarray:
        """½ H_jj w²."""
        return self.hessian_diagonal * self.w**2 / 2

    def obs(self, damping: float) -> np.ndarray:
        """w² over twice the diagonal of (H + damping I)⁻¹."""
        return self.w**2 / (2 * np.diag(self._inverse(self.hessian, damping)))

    def obs_gradient(self, damping: float) -> np.ndarray:
        """(w_j − [M⁻¹g]_j)² / (2 [M⁻¹]_jj) − ½ gᵀM⁻¹g, M = H + damping I."""
        inverse, g = self._inverse(self.hessian, damping), self.gradient()
        step = inverse @ g
        return (self.w - step) ** 2 / (2 * np.diag(inverse)) - (g @ step) / 2

    def fisher(self) -> np.ndarray:
        """½ F_jj w², the true Fisher."""
        return self.fisher_diagonal() * self.w**2 / 2

    def fisher_empirical(self) -> np.ndarray:
        """½ F_jj w², the empirical Fisher."""
        return np.diag(self.empirical()) * self.w**2 / 2

    def woodfisher(self, damping: float) -> np.ndarray:
        """w² over twice the diagonal of (F + damping I)⁻¹, the empirical Fisher."""
        return self.w**2 / (2 * np.diag(self._inverse(self.empirical(), damping)))

    @staticmethod
    def _inverse(M: np.ndarray, damping: float) -> np.ndarray:
        inverse = MP.inverse(MP.matrix(M.tolist()) + MP.mpf(damping) * MP.eye(len(M)))
        return np.array(inverse.tolist(), object)

    def snip(self) -> np.ndarray:
        """|g w| over its sum."""
        return self.taylor() / self.taylor().sum()

    def grasp(self) -> np.ndarray:
        """w (H g)."""
        return self.w * (self.hessian @ self.gradient())

    def synflow(self) -> np.ndarray:
        """R(|w|) − R(|w| without j): R is linear in each weight, so that this is |w ∂R/∂w|."""
        flow = abs(self.w)
        for name, own in self._named(flow).items():
            if name.rpartition(".")[2] in ("bias", "beta"):
                own[...] = MP.mpf(0)
        ones = numbers(np.ones((1, *self.L.x.shape[1:])))

        def R(v: np.ndarray) -> Any:
            return Pass(linear=True)(self.layers, self._named(v), ones).sum()

        whole, scores = R(flow), flow.copy()
        for j in range(self.P):
            without = flow.copy()
            without[j] = MP.mpf(0)
            scores[j] = whole - R(without)
        return scores

    def _layer_inputs(self) -> dict[str, np.ndarray]:
        """Return the inputs (rows, q) of every Linear and Conv2d, a window of an image for each row."""
        found = {}
        for where, (layer, x) in self.seen.items():
            if type(layer).__name__ == "Linear":
                found[where] = x
            elif type(layer).__name__ == "Conv2d":
                rows = windows(x, layer.kernel, layer.stride, layer.padding)
                found[where] = rows.reshape(-1, rows.shape[3])
        return found

    def _spread(self, each: dict[str, np.ndarray]) -> np.ndarray:
        """Return numbers (q,), or (q + 1,) with the bias, of the inputs of layers as one (P,), the same for outputs."""
        spread = np.array([MP.inf] * self.P, object)
        for name, own in self._named(spread).items():
            where, _, part = name.rpartition(".")
            if where not in each:
                continue
            if part == "bias":
                own[...] = each[where][-1]
                continue
            q, o = own.shape[0] * int(np.prod(own.shape[2:], dtype=int)), own.shape[1]
            wide = np.repeat(each[where][:q, None], o, axis=1).reshape(own.shape[0], *own.shape[2:], o)
            own[...] = np.moveaxis(wide, -1, 1)
        return spread

    def _with_ones(self, where: str, rows: np.ndarray) -> np.ndarray:
        if not self.seen[where][0].bias:
            return rows
        return np.concatenate([rows, numbers(np.ones((len(rows), 1)))], axis=1)

    def wanda(self) -> np.ndarray:
        """|w| times the norm of the input over all examples."""
        inputs = {where: self._with_ones(where, rows) for where, rows in self._layer_inputs().items()}
        norms = {where: _each(MP.sqrt)((rows**2).sum(axis=0)) for where, rows in inputs.items()}
        return abs(self.w) * self._spread(norms)

    def obs_layerwise(self, damping: float) -> np.ndarray:
        """w² over twice the diagonal of (XᵀX/N + damping I)⁻¹, X the layer's inputs."""
        inverses = {}
        for where, rows in self._layer_inputs().items():
            X = self._with_ones(where, rows)
            inverses[where] = np.diag(self._inverse(X.T @ X / self.N, damping))
        spread = self._spread(inverses)
        judged = np.array([MP.isfinite(v) for v in spread], bool)
        return np.where(judged, self.w**2 / (2 * spread), spread)

    def obd_recursive(self) -> np.ndarray:
        """½ h w², h by LeCun's recursion, for Linear layers and activations in a chain."""
        h, delta = np.array([np.diag(M) for M in self._output_hessian()], object), self.output_gradient()
        total = numbers(np.zeros(self.P))
        named, run = self._named(total), Pass(self.gates)
        for where in reversed(list(self.seen)):
            layer, x = self.seen[where]
            if type(layer).__name__ == "Linear":
                named[f"{where}.weight"][...] = (x**2).T @ h / self.N
                if layer.bias:
                    named[f"{where}.bias"][...] = h.sum(axis=0) / self.N
                W = self._named(self.w)[f"{where}.weight"]
                h, delta = h @ (W**2).T, delta @ W.T
                continue
            up, at, down = (run._one(layer, {}, x + step, where) for step in (H2, MP.mpf(0), -H2))
            slope, bend = (up - down) / (2 * H2), (up - 2 * at + down) / H2**2
            h, delta = slope**2 * h + bend * delta, slope * delta
        return (total + self.l2) * self.w**2 / 2

    def _output_hessian(self) -> np.ndarray:
        """Return ∂²ℓ/∂z² (N, C, C)."""
        H = np.empty((self.N, self.C, self.C), object)
        h = numbers(np.eye(self.C)) * H2
        for c, d in np.ndindex(self.C, self.C):
            signs = [(a, b, a * b) for a in (1, -1) for b in (1, -1)]
            H[:, c, d] = sum(s * self.losses(self.z + a * h[c] + b * h[d]) for a, b, s in signs) / (4 * H2**2)
        return H

    def combinatorial(self, k: int) -> np.ndarray:
        """Return 0 on the set of k weights of least −g_Sᵀw_S + ½ w_Sᵀ H_SS w_S, 1 elsewhere, by trying all sets.

        ValueError where the second-best set is within a thousandth of the least: the best is then no good example.
        """
        Q, linear = self.hessian * np.outer(self.w, self.w) / 2, -self.gradient() * self.w
        rises = [(linear[list(S)].sum() + Q[np.ix_(S, S)].sum(), S) for S in itertools.combinations(range(self.P), k)]
        (least, best), (second, _) = sorted(rises)[:2]
        if second - least < abs(least) / 1000:
            raise ValueError(f"k: two sets of {k} weights are as good: {float(least)} and {float(second)}")
        mask = numbers(np.ones(self.P))
        mask[list(best)] = MP.mpf(0)
        return mask
