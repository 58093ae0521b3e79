"""The networks and data of the benchmarks: each an objective and a point w."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import cache

import numpy as np

from minimal_nn import (
    AvgPool2d,
    Conv2d,
    Flatten,
    Linear,
    Network,
    Objective,
    SoftmaxCrossEntropy,
    Tanh,
    datasets,
    optimizers,
    train,
)
from minimal_nn.layers import Layer
from tests.benchmarks.timing import Missing


@dataclass(frozen=True)
class Problem:
    """An objective and the point w (P,) at which it is differentiated."""

    L: Objective
    w: np.ndarray

    def __repr__(self) -> str:
        return f"P={self.L.n_parameters}, N={self.L.n_examples}"


def mlp(*widths: int, n: int, dtype: type[np.floating] = np.float64) -> Problem:
    """A chain of Linear layers with Tanh between them on digits (64 inputs), MNIST (784), or noise of another width."""
    pairs = itertools.pairwise(widths)
    return chain(n, *[layer for a, b in pairs for layer in (Linear(a, b), Tanh())][:-1], dtype=dtype)


def chain(n: int, *layers: Layer, dtype: type[np.floating] = np.float64) -> Problem:
    """Layers of which the first and the last are Linear, on the same data as `mlp`."""
    return _problem(Network(*layers), *_examples(layers[0].inputs, layers[-1].outputs, n), dtype)  # type: ignore[attr-defined]


def lenet_300_100(n: int, dtype: type[np.floating] = np.float64) -> Problem:
    """LeNet-300-100 with tanh (LeCun et al. 1998): 266,610 parameters."""
    return mlp(784, 300, 100, 10, n=n, dtype=dtype)


def cnn(n: int, channels: tuple[int, int] = (4, 8)) -> Problem:
    """conv(1→4, 3×3, padding 1)-tanh-avgpool-conv(4→8, 3×3, padding 1)-tanh-avgpool-linear on 8×8 digits: P = 666."""
    a, b = channels
    layers = (Conv2d(1, a, 3, padding=1), Tanh(), AvgPool2d(2), Conv2d(a, b, 3, padding=1), Tanh(), AvgPool2d(2))
    x, y = _examples(64, 10, n)
    return _problem(Network(*layers, Flatten(), Linear(4 * b, 10)), x.reshape(n, 1, 8, 8), y, np.float64)


@cache
def trained_lenet(phi: Layer) -> Problem:
    """LeNet-300-100 after 1,500 steps of Adam on 20,000 MNIST images, at 1,000 of the test images."""
    layers = Linear(784, 300), phi, Linear(300, 100), phi, Linear(100, 10)
    return _trained(Network(*layers), (784,), examples=20_000, steps=1500)


@cache
def trained_cnn(dtype: type[np.floating] = np.float64) -> Problem:
    """LeNet-5-like: conv 6, conv 16 (5×5, tanh, average pooling), linear 256-180-10, after 150 steps; P = 50,642."""
    pool = Tanh(), AvgPool2d(2)
    layers = Conv2d(1, 6, 5), *pool, Conv2d(6, 16, 5), *pool, Flatten(), Linear(256, 180), Tanh(), Linear(180, 10)
    problem = _trained(Network(*layers), (1, 28, 28), examples=2_000, steps=150)
    L = problem.L
    return Problem(Objective(L.network, L.loss, L.x.astype(dtype), L.y), problem.w.astype(dtype))


def _trained(network: Network, shape: tuple[int, ...], *, examples: int, steps: int) -> Problem:
    if not os.environ.get("MINIMAL_NN_DATA"):
        raise Missing("MNIST: set MINIMAL_NN_DATA to the folder that holds it")
    data = datasets.mnist()
    x, x_test = (x.reshape(-1, *shape) for x in (data.x_train[:examples], data.x_test[:1000]))
    L = Objective(network, SoftmaxCrossEntropy(), x, data.y_train[:examples])
    w = network.init(np.random.default_rng(0), dtype=np.float32)
    rule, rng = optimizers.adam(1e-3), np.random.default_rng(0)
    w = train(L, w, rule, steps=steps, batch_size=100, rng=rng, progress=False).w.astype(np.float64)
    return Problem(Objective(network, SoftmaxCrossEntropy(), x_test, data.y_test[:1000]), w)


def _problem(network: Network, x: np.ndarray, y: np.ndarray, dtype: type[np.floating]) -> Problem:
    w = network.init(np.random.default_rng(0), dtype=dtype)
    return Problem(Objective(network, SoftmaxCrossEntropy(), x.astype(dtype), y), w)


def _examples(inputs: int, classes: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x (n, inputs) and labels y (n,); nothing is downloaded."""
    if (inputs, classes) == (64, 10):
        data = datasets.digits()
        x, y = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
        return x[:n], y[:n]
    rng = np.random.default_rng(1)
    if (inputs, classes) == (784, 10) and os.environ.get("MINIMAL_NN_DATA"):
        data = datasets.mnist()
        return data.x_train[:n].reshape(n, inputs), data.y_train[:n]
    return rng.random((n, inputs)), rng.integers(0, classes, n)
