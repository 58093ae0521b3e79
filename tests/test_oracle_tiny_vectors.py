"""The tiny vectors once more in 50 digits, by jets: every number carries its exact gradient and Hessian in w.

Shares nothing with the package, nor with its own 50-digit definitions: those difference, this differentiates; they
invert, this solves Lagrange's conditions; they remove a weight from the paths, this adds up the paths.
"""

from __future__ import annotations

import itertools
from functools import cached_property

import mpmath
import numpy as np
import pytest

from pruning.oracle.vector_files import load, vector_names
from tests.cases import assert_close

mp = mpmath.mp.clone()
mp.dps = 50
TINY = [name for name in vector_names() if name.startswith("v1/tiny-")]
PROBLEMS = sorted({name.rpartition(".")[0] for name in TINY})


def exactly(a):
    return np.array([mp.mpf(v) for v in np.ravel(a).tolist()], object).reshape(np.shape(a))


class Jet:
    """A number with its gradient (P,) and Hessian (P, P)."""

    def __init__(self, v, g, h):
        self.v, self.g, self.h = v, g, h

    def __add__(self, other):
        if not isinstance(other, Jet):
            return Jet(self.v + other, self.g, self.h)
        return Jet(self.v + other.v, self.g + other.g, self.h + other.h)

    def __mul__(self, other):
        if not isinstance(other, Jet):
            return Jet(self.v * other, self.g * other, self.h * other)
        cross = np.outer(self.g, other.g)
        return Jet(
            self.v * other.v, self.v * other.g + other.v * self.g, self.v * other.h + other.v * self.h + cross + cross.T
        )

    __radd__, __rmul__ = __add__, __mul__

    def __sub__(self, other):
        return self + other * -1

    def through(self, f, df, d2f):
        """f(self), given f, f′ and f″ at its value."""
        return Jet(f, df * self.g, df * self.h + d2f * np.outer(self.g, self.g))


def sigma(v):
    return 1 / (1 + mp.exp(-v))


def activation(kind, a):
    if kind == "Tanh":
        t = mp.tanh(a.v)
        return a.through(t, 1 - t * t, -2 * t * (1 - t * t))
    if kind == "Sigmoid":
        s = sigma(a.v)
        return a.through(s, s * (1 - s), s * (1 - s) * (1 - 2 * s))
    if kind == "Softplus":
        s = sigma(a.v)
        return a.through(mp.log(1 + mp.exp(a.v)), s, s * (1 - s))
    assert kind == "ReLU"
    return a if a.v > 0 else a * 0


def variables(w, many=None):
    """w as jets in all of its entries, or in the first `many`."""
    many = len(w) if many is None else many
    unit = exactly(np.eye(len(w)))
    return [Jet(mp.mpf(v), unit[j, :many], exactly(np.zeros((many, many)))) for j, v in enumerate(w)]


def along(z, c):
    """The values of z as jets in entry c alone."""
    return [Jet(a.v, exactly([float(c == d)]), exactly([[0.0]])) for d, a in enumerate(z)]


def value_of(a):
    return a.v if isinstance(a, Jet) else a


class Tiny:
    """One problem: parameters in the order of its tensors, each with the place of its scores."""

    def __init__(self, vector):
        self.said, self.inputs = vector.document, vector.inputs
        self.names = [one["name"] for one in self.said["tensors"] if one["role"] == "parameter"]
        self.shapes = [vector.inputs[name].shape for name in self.names]
        self.w = np.concatenate([vector.inputs[name].ravel() for name in self.names])
        self.m = exactly(self.w)
        self.N, self.P = len(vector.inputs["x"]), len(self.w)
        self.l2, self.scale = mp.mpf(self.said["l2"]), mp.mpf(self.said["loss"]["scale"])
        self.at = {}  # (layer, input or "bias", output) -> j
        start = 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            layer, part = name.split(".")
            for place in np.ndindex(*shape):
                if part == "bias":
                    self.at[int(layer), "bias", place[0]] = start
                else:
                    i, o = place[::-1] if self.said["layout"] == "torch" else place
                    self.at[int(layer), i, o] = start
                start += 1
        self.jets = self.examples(variables(self.w))

    def forward(self, w, x):
        """The values before every layer, then the outputs."""
        trace = [list(x)]
        for l, layer in enumerate(self.said["layers"]):
            h = trace[-1]
            if layer["kind"] != "Linear":
                trace.append([activation(layer["kind"], a) for a in h])
                continue
            z = []
            for o in range(layer["outputs"]):
                terms = [w[self.at[l, i, o]] * h[i] for i in range(layer["inputs"])]
                terms += [w[self.at[l, "bias", o]]] if layer["bias"] else []
                z.append(sum(terms[1:], terms[0]))
            trace.append(z)
        return trace

    def examples(self, w):
        return [self.forward(w, row) for row in exactly(self.inputs["x"])]

    def loss(self, z, y):
        """The loss of one example without its scale; y is a label, or numbers."""
        if self.said["loss"]["kind"] == "SquaredError":
            return sum(((a - t) * (a - t) for a, t in zip(z, y, strict=True)), z[0] * 0) * mp.mpf("0.5")
        if self.said["loss"]["kind"] == "BinaryCrossEntropy":
            return sum((activation("Softplus", a) - a * t for a, t in zip(z, y, strict=True)), z[0] * 0)
        total = sum((a.through(*[mp.exp(a.v)] * 3) for a in z), z[0] * 0)
        return total.through(mp.log(total.v), 1 / total.v, -1 / total.v**2) - z[y]

    def targets(self):
        y = self.inputs["y"]
        return y.tolist() if y.ndim == 1 else exactly(y)

    def losses(self, jets=None):
        jets = self.jets if jets is None else jets
        return [self.loss(trace[-1], y) * self.scale for trace, y in zip(jets, self.targets(), strict=True)]

    @cached_property
    def L(self):
        return self.objective(self.w)

    def objective(self, w, many=None):
        v = variables(w, many)
        each = self.losses(self.examples(v))
        penalty = sum((a * a for a in v), v[0] * 0) * (self.l2 / 2)
        return sum(each, v[0] * 0) * (mp.mpf(1) / self.N) + penalty

    # criteria, by their names

    def exact(self):
        without = [np.where(np.arange(self.P) == j, 0, self.w) for j in range(self.P)]
        return [self.objective(w, many=0).v - self.L.v for w in without]

    def magnitude(self):
        return [mp.sqrt(a * a) for a in self.m]

    def magnitude_scaled(self):
        scores = []
        for shape in self.shapes:
            own = self.m[len(scores) : len(scores) + int(np.prod(shape))]
            mean, square = sum(own) / len(own), sum(a * a for a in own) / len(own)
            scores += [abs(a) / mp.sqrt(square - mean * mean) for a in own]
        return scores

    def lamp(self):
        """Ties by the order of layout minimal_nn: inputs first."""
        scores = [None] * self.P
        for name in self.names:
            layer, part = name.split(".")
            mine = [key for key in self.at if key[0] == int(layer) and (key[1] == "bias") == (part == "bias")]
            rest = mp.mpf(0)
            for key in sorted(mine, key=lambda key: (abs(self.m[self.at[key]]), key[1:]), reverse=True):
                square = self.m[self.at[key]] ** 2
                rest += square
                scores[self.at[key]] = square / rest
        return scores

    def taylor_signed(self):
        return -self.L.g * self.m

    def taylor(self):
        return [abs(a) for a in self.taylor_signed()]

    def taylor_squared(self):
        return sum((loss.g * self.m) ** 2 for loss in self.losses()) / self.N

    def taylor_second(self):
        return self.taylor_signed() + self.obd()

    def movement(self):
        total = exactly(np.zeros(self.P))
        steps = [self.inputs[f"trajectory.{name}"] for name in self.names]
        for t in range(len(steps[0])):
            w = np.concatenate([step[t].ravel() for step in steps])
            total -= exactly(w) * self.objective(w).g
        return total

    def obd(self):
        return np.array([self.L.h[j, j] * a * a / 2 for j, a in enumerate(self.m)])

    def obd_recursive(self):
        """Two Linear layers at most: h of a lower weight goes through one activation."""
        h = exactly(np.zeros(self.P)) + self.l2
        layers = self.said["layers"]
        for trace, y in zip(self.jets, self.targets(), strict=True):
            z = trace[-1]
            each = [self.loss(along(z, c), y) for c in range(len(z))]
            up, delta = [e.h[0, 0] * self.scale for e in each], [e.g[0] * self.scale for e in each]
            for l in reversed(range(len(layers))):
                x = trace[l]
                if layers[l]["kind"] != "Linear":
                    one = [activation(layers[l]["kind"], variables([0])[0] + a.v) for a in x]
                    up = [f.g[0] ** 2 * b + f.h[0, 0] * d for f, b, d in zip(one, up, delta, strict=True)]
                    delta = [f.g[0] * d for f, d in zip(one, delta, strict=True)]
                    continue
                below = range(layers[l]["inputs"])
                for (own, i, o), j in self.at.items():
                    if own == l:
                        h[j] += up[o] * (1 if i == "bias" else value_of(x[i]) ** 2) / self.N
                W = {(i, o): self.m[self.at[l, i, o]] for i in below for o in range(len(up))}
                up, delta = (
                    [sum(W[i, o] ** 2 * up[o] for o in range(len(up))) for i in below],
                    [sum(W[i, o] * delta[o] for o in range(len(delta))) for i in below],
                )
        return h * self.m**2 / 2

    def constrained(self, M, g, j, to):
        """The least gᵀδ + ½ δᵀMδ with δ_j = to, by Lagrange's conditions."""
        n = len(g)
        A, b = mp.zeros(n + 1), mp.zeros(n + 1, 1)
        for a in range(n):
            b[a] = -g[a]
            for c in range(n):
                A[a, c] = M[a, c]
        A[j, n] = A[n, j] = 1
        b[n] = to
        delta = np.array(list(mp.lu_solve(A, b))[:n], object)
        return g @ delta + delta @ M @ delta / 2

    def damped(self, M):
        return M + exactly(np.eye(len(M))) * mp.mpf(self.said["options"]["damping"])

    def obs(self):
        M, none = self.damped(self.L.h), exactly(np.zeros(self.P))
        return [self.constrained(M, none, j, -a) for j, a in enumerate(self.m)]

    def obs_gradient(self):
        M = self.damped(self.L.h)
        return [self.constrained(M, self.L.g, j, -a) for j, a in enumerate(self.m)]

    def woodfisher(self):
        M = self.damped(sum(np.outer(loss.g, loss.g) for loss in self.losses()) / self.N)
        return [self.constrained(M, exactly(np.zeros(self.P)), j, -a) for j, a in enumerate(self.m)]

    def fisher(self):
        """The labels of the model, one after the other."""
        total, kind = 0, self.said["loss"]["kind"]
        for trace in self.jets:
            z = trace[-1]
            if kind == "SquaredError":
                total += sum(a.g**2 for a in z)
            elif kind == "BinaryCrossEntropy":
                assert len(z) == 1
                total += sum(p * self.loss(z, [y]).g ** 2 for y, p in ((1, sigma(z[0].v)), (0, sigma(-z[0].v))))
            else:
                weights = [mp.exp(a.v) for a in z]
                total += sum(p / sum(weights) * self.loss(z, c).g ** 2 for c, p in enumerate(weights))
        return self.scale * total / self.N * self.m**2 / 2

    def fisher_empirical(self):
        return sum(loss.g**2 for loss in self.losses()) / self.N * self.m**2 / 2

    def snip(self):
        total = sum(self.taylor())
        return [a / total for a in self.taylor()]

    def grasp(self):
        return [a * sum(self.L.h[j, k] * self.L.g[k] for k in range(self.P)) for j, a in enumerate(self.m)]

    def synflow(self):
        """Every path from an input to an output, its weights multiplied, added to each of them."""
        scores = exactly(np.zeros(self.P))
        linear = [l for l, layer in enumerate(self.said["layers"]) if layer["kind"] == "Linear"]
        widths = [self.said["layers"][linear[0]]["inputs"], *(self.said["layers"][l]["outputs"] for l in linear)]
        for units in itertools.product(*map(range, widths)):
            path = [self.at[l, a, b] for l, a, b in zip(linear, units, units[1:], strict=False)]
            flow = mp.mpf(1)
            for j in path:
                flow *= abs(self.m[j])
            for j in path:
                scores[j] += flow
        return scores

    def rows(self, l):
        """The inputs of a layer, with a 1 behind them for its bias."""
        values = [[value_of(a) for a in trace[l]] for trace in self.jets]
        return (
            exactly(values) if not self.said["layers"][l]["bias"] else np.array([[*row, mp.mpf(1)] for row in values])
        )

    def wanda(self):
        """How far the layer's outputs move when the weight goes."""
        scores = [None] * self.P
        for (l, i, _), j in self.at.items():
            moved = [row[-1 if i == "bias" else i] * self.m[j] for row in self.rows(l)]
            scores[j] = mp.sqrt(sum(a * a for a in moved))
        return scores

    def obs_layerwise(self):
        scores = [None] * self.P
        for (l, i, _), j in self.at.items():
            X = self.rows(l)
            M = self.damped(X.T @ X / self.N)
            none = exactly(np.zeros(len(M)))
            scores[j] = self.constrained(M, none, len(M) - 1 if i == "bias" else i, -self.m[j])
        return scores

    def combinatorial(self):
        k = self.said["options"]["k"]

        def rise(S):
            delta = np.array([-self.m[j] if j in S else mp.mpf(0) for j in range(self.P)])
            return self.L.g @ delta + delta @ self.L.h @ delta / 2

        best = min(itertools.combinations(range(self.P), k), key=rise)
        return [int(j not in best) for j in range(self.P)]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_tiny_vectors_are_right_to_the_last_digit_of_float64(problem):
    names = [name for name in TINY if name.rpartition(".")[0] == problem]
    vectors = [load(name) for name in names]
    tiny = Tiny(next((v for v in vectors if v.criterion == "movement"), vectors[0]))
    for vector in vectors:
        tiny.said = vector.document
        found = np.array([float(a) for a in getattr(tiny, vector.criterion)()])
        expected = np.concatenate([vector.expected[name].ravel() for name in tiny.names])
        assert_close(expected, found, 3e-16)
