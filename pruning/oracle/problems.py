"""The networks, data and weights of the vectors, odd ones included, and which criteria each is scored by.

All numbers are multiples of 2⁻¹⁶ below 2 in size, or scaled by powers of two, drawn from the raw bits of a generator:
the same on every machine and with every release of NumPy, and the same in float32 as in float64.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimal_nn.layers import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
)
from minimal_nn.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy, SquaredError
from minimal_nn.network import Network
from minimal_nn.objective import Objective
from pruning.oracle.formulas import FORMULAS

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """A network, its data and weights, and the criteria that score it; `about` says what it is for.

    `plain` puts the numbers into the JSON too. `alter` changes what was drawn in place. `damping` is that of every
    criterion which takes one, and k the size of the set. `within` bounds how far float64 may be from 50 digits,
    `tolerance` what is granted to others in float32 and in float64.
    """

    name: str
    about: str
    layers: tuple[Layer, ...]
    criteria: tuple[str, ...]
    loss: Loss = field(default_factory=SoftmaxCrossEntropy)
    n: int = 5
    l2: float = 0.0
    layout: str = "torch"
    shape: tuple[int, ...] | None = None
    soft: bool = False
    plain: bool = False
    batch_size: int | None = None
    alter: Callable[[Arrays], None] | None = None
    damping: float = 0.5
    k: int = 3
    within: float = 1e-12
    tolerance: tuple[float, float] = (2e-4, 1e-8)

    def objective(self) -> tuple[Objective, np.ndarray]:
        """Return L and w."""
        network = Network(*self.layers)
        w = draw(f"{self.name} w", network.layout.size) / 2
        shape = self.shape or next(layer.input_shape for layer in self.layers if layer.input_shape is not None)
        arrays = {"x": draw(f"{self.name} x", self.n, *shape)}
        arrays["y"] = self._targets(*network.output_shape(shape))
        if self.alter is not None:
            self.alter(arrays | network.layout.unflatten(w))
        return Objective(network, self.loss, arrays["x"], arrays["y"], self.l2), w

    def _targets(self, C: int) -> np.ndarray:
        drawn = draw(f"{self.name} y", self.n, C)
        if isinstance(self.loss, SquaredError):
            return drawn
        if self.soft:  # rows of four quarters that fall on classes; for independent labels, any number in [0, 1]
            quarters = (np.floor((draw(f"{self.name} y", self.n, 4) + 2) / 4 * C)).astype(int)
            one_hot = np.eye(C)[quarters].mean(axis=1)
            return one_hot if isinstance(self.loss, SoftmaxCrossEntropy) else (drawn + 2) / 4
        if isinstance(self.loss, BinaryCrossEntropy):
            return (drawn > 0).astype(float)
        return drawn.argmax(axis=1)

    def options(self, criterion: str) -> dict[str, Any]:
        """Return the options with which it is scored, besides a trajectory."""
        if FORMULAS[criterion].damping != "none":
            return {"damping": self.damping}
        return {"k": self.k} if criterion == "combinatorial" else {}


def draw(name: str, *shape: int) -> np.ndarray:
    """Return multiples of 2⁻¹⁶ in [−2, 2), uniform, that depend on the name alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    return ((bits >> np.uint64(46)).astype(np.float64) / 2**16 - 2).reshape(shape)


def trajectory_of(w: np.ndarray) -> np.ndarray:
    """Return the three points (3, P) of a training that movement is scored on; its last step leads to w."""
    steps = [draw(f"step {t}", len(w)) / 2**t for t in (2, 3, 4)]
    return np.stack([w + sum(steps), w + steps[1] + steps[2], w + steps[2]])


def _least_squares(a: Arrays) -> None:
    a["x"][...] = [[1, 0], [1, 1], [2, 1], [0, 1]]
    a["y"][...] = a["x"] @ [[1.0], [2.0]]
    a["0.weight"][...] = [[2.0], [1.0]]


def _interpolated(a: Arrays) -> None:
    a["x"][...] = [[1, 0.5], [-1.5, 1], [0.25, -2], [2, 1]]
    a["0.weight"][...] = [[0.5, -1], [1.5, 0.25]]
    a["0.bias"][...] = [0.25, -0.5]
    a["y"][...] = a["x"] @ a["0.weight"] + a["0.bias"]


def _at_the_kink(a: Arrays) -> None:
    a["x"][...] = [[1, 1], [0.5, -1], [-1, 2], [2, 0.25]]
    a["0.weight"][...] = [[1, 0.5], [-1.5, 0.75]]
    a["0.bias"][...] = [0.5, 0.5]  # the first unit is at 0 for the first example, the second for the second


def _equal_sizes(a: Arrays) -> None:
    a["0.weight"][...] = [[0.5, -0.5], [0.5, 0.5]]
    a["0.bias"][...] = [-0.5, 0.5]
    a["2.weight"][...] = [[0.5, -0.5], [-0.5, 0.5]]
    a["2.bias"][...] = [1.5, -1.5]


def _nearly_collinear(a: Arrays) -> None:
    a["x"][...] = np.floor(256 * a["x"]) / 256
    a["x"][:, 1] = a["x"][:, 0] + a["x"][:, 1] / 256


def _dead(a: Arrays) -> None:
    a["0.bias"][0] = -64


def _larger(factor: float) -> Callable[[Arrays], None]:
    def alter(a: Arrays) -> None:
        a["2.weight"][...] *= factor

    return alter


def _uneven(a: Arrays) -> None:
    a["x"][6:] *= 2
    a["x"][:3] /= 4


ALL = tuple(FORMULAS)

PROBLEMS = (
    Problem(
        "tiny-tanh",
        "every criterion on twelve parameters",
        (Linear(2, 2), Tanh(), Linear(2, 2)),
        ALL,
        n=3,
        l2=0.0625,
        plain=True,
        damping=1.0,
        k=2,
    ),
    Problem(
        "tiny-bernoulli",
        "one output under binary cross-entropy with scale 1/2: the true and the empirical Fisher differ",
        (Linear(2, 2), Sigmoid(), Linear(2, 1)),
        ("exact", "taylor_second", "obd", "obd_recursive", "obs", "fisher", "fisher_empirical", "grasp"),
        BinaryCrossEntropy(0.5),
        n=3,
        plain=True,
    ),
    Problem(
        "tiny-quadratic",
        "two weights and a quadratic loss, to be checked by pencil; L to second order is exact",
        (Linear(2, 1, bias=False),),
        ("exact", "taylor_signed", "taylor", "taylor_second", "obd", "obs", "fisher", "fisher_empirical"),
        SquaredError(),
        n=4,
        plain=True,
        alter=_least_squares,
        damping=0.0,
    ),
    Problem(
        "tiny-relu-at-zero",
        "ReLU units exactly at their kink for some examples: the derivative there is 0",
        (Linear(2, 2), ReLU(), Linear(2, 2)),
        ("exact", "taylor_signed", "taylor_squared", "obd", "fisher", "fisher_empirical", "grasp", "synflow"),
        n=4,
        plain=True,
        alter=_at_the_kink,
    ),
    Problem(
        "tiny-ties",
        "weights of equal size: what needs an order says how ties are decided; in the layout (inputs, outputs)",
        (Linear(2, 2), Tanh(), Linear(2, 2)),
        ("magnitude", "magnitude_scaled", "lamp", "wanda", "synflow", "exact"),
        SquaredError(),
        n=3,
        layout="minimal_nn",
        plain=True,
        alter=_equal_sizes,
    ),
    Problem(
        "tiny-one-example",
        "a single example: the square of the mean and the mean of squares are one",
        (Linear(2, 2), Softplus(), Linear(2, 2)),
        ("exact", "taylor_squared", "fisher", "fisher_empirical", "woodfisher", "wanda"),
        n=1,
        plain=True,
        damping=0.125,
    ),
    Problem(
        "tiny-near-singular",
        "two inputs that are nearly one: inverses of a matrix of large condition, without damping",
        (Linear(2, 1),),
        ("exact", "obd", "obs", "obs_gradient", "obs_layerwise"),
        SquaredError(),
        l2=2**-18,
        plain=True,
        alter=_nearly_collinear,
        damping=0.0,
        within=1e-10,
        tolerance=(2e-2, 1e-8),
    ),
    Problem(
        "tiny-interpolated",
        "no residual at all: the gradient and the empirical Fisher are 0, the true Fisher and the Hessian are not",
        (Linear(2, 2),),
        ("exact", "taylor_second", "obd", "fisher", "fisher_empirical"),
        SquaredError(),
        n=4,
        plain=True,
        alter=_interpolated,
    ),
    Problem(
        "tanh",
        "every criterion on a small perceptron, away from any minimum",
        (Linear(3, 4), Tanh(), Linear(4, 3)),
        ALL,
        n=7,
        damping=1.0,
    ),
    Problem(
        "deep-sigmoid",
        "three layers and a penalty: obd and its recursion differ",
        (Linear(2, 3), Sigmoid(), Linear(3, 3), Sigmoid(), Linear(3, 2)),
        ("exact", "movement", "taylor_second", "obd", "obd_recursive", "fisher", "grasp", "synflow", "wanda", "lamp"),
        l2=0.125,
    ),
    Problem(
        "relu",
        "piecewise linear: obd and the true Fisher are one, the empirical one is another",
        (Linear(3, 4), ReLU(), Linear(4, 2)),
        ("exact", "obd", "fisher", "fisher_empirical", "taylor", "grasp", "synflow", "obd_recursive"),
        n=7,
    ),
    Problem(
        "relu-dead-unit",
        "a unit that is off for every example: scores from derivatives are 0 there, others are not",
        (Linear(3, 3), ReLU(), Linear(3, 2)),
        ("exact", "magnitude_scaled", "taylor", "obd", "fisher_empirical", "snip", "synflow", "wanda", "obs_layerwise"),
        n=6,
        alter=_dead,
    ),
    Problem(
        "saturated",
        "margins of tens: a softmax that is not computed with care loses digits",
        (Linear(3, 3), Tanh(), Linear(3, 3)),
        ("exact", "taylor_signed", "taylor_second", "obd", "fisher", "fisher_empirical"),
        n=6,
        alter=_larger(16.0),
        damping=64.0,
    ),
    Problem(
        "overflowing",
        "outputs near a thousand: exp(z) overflows, the loss does not",
        (Linear(3, 3), Tanh(), Linear(3, 3)),
        ("exact", "taylor_signed", "taylor", "taylor_squared", "fisher_empirical", "snip"),
        n=6,
        alter=_larger(1024.0),
    ),
    Problem(
        "unequal-batches",
        "seven examples, to be fed in batches of three: a mean of means of batches is another score",
        (Linear(3, 3), Tanh(), Linear(3, 2)),
        ("taylor_signed", "taylor", "taylor_squared", "obd", "fisher", "fisher_empirical", "snip", "grasp", "wanda"),
        n=7,
        batch_size=3,
        alter=_uneven,
    ),
    Problem(
        "squared-error",
        "two outputs under squared error, half the sum over the outputs",
        (Linear(3, 3), Softplus(), Linear(3, 2)),
        ("exact", "obd", "obd_recursive", "obs_gradient", "fisher", "fisher_empirical", "combinatorial"),
        SquaredError(),
        n=6,
        damping=2.0,
        k=2,
    ),
    Problem(
        "scaled-loss",
        "cross-entropy times 3: some scores grow by 3, some by 9, some not at all",
        (Linear(2, 3), Tanh(), Linear(3, 3)),
        ("exact", "taylor", "taylor_squared", "obd", "obs", "fisher", "fisher_empirical", "snip", "grasp"),
        SoftmaxCrossEntropy(3.0),
        damping=4.0,
    ),
    Problem(
        "soft-labels",
        "targets that are probabilities",
        (Linear(2, 3), Tanh(), Linear(3, 3)),
        ("exact", "taylor_squared", "obd", "fisher", "fisher_empirical"),
        soft=True,
    ),
    Problem(
        "soft-bernoulli",
        "two independent outputs with targets between 0 and 1",
        (Linear(2, 3), SiLU(), Linear(3, 2)),
        ("exact", "obd", "fisher", "fisher_empirical", "obd_recursive"),
        BinaryCrossEntropy(),
        soft=True,
    ),
    Problem(
        "gelu",
        "an activation that is not monotone, the exact GELU with the error function",
        (Linear(2, 3), GELU(), Linear(3, 2)),
        ("exact", "taylor_second", "obd", "grasp", "movement"),
    ),
    Problem(
        "silu-squared-error",
        "SiLU under squared error of scale 2/C, torch's MSELoss",
        (Linear(2, 3), SiLU(), Linear(3, 2)),
        ("exact", "taylor_second", "obd", "fisher", "obs"),
        SquaredError(1.0),
        damping=2.0,
    ),
    Problem(
        "no-bias",
        "no biases and a penalty",
        (Linear(3, 4, bias=False), Tanh(), Linear(4, 2, bias=False)),
        ("exact", "obd", "obs", "obs_layerwise", "woodfisher", "lamp", "wanda", "snip", "synflow"),
        SquaredError(),
        l2=0.25,
        damping=1.0,
    ),
    Problem(
        "logistic",
        "convex, singular without its small penalty: the Hessian has a null space",
        (Linear(3, 3),),
        ("exact", "obs", "obs_gradient", "woodfisher", "combinatorial"),
        n=7,
        l2=2**-16,
        damping=2**-16,
        within=1e-11,
        tolerance=(5e-3, 1e-8),
    ),
    Problem(
        "convolution",
        "a convolution with average pooling: weights that are shared between positions",
        (Conv2d(1, 2, 2), Tanh(), AvgPool2d(2, stride=1), Flatten(), Linear(8, 2)),
        (
            "exact",
            "taylor",
            "obd",
            "fisher",
            "fisher_empirical",
            "woodfisher",
            "wanda",
            "obs_layerwise",
            "synflow",
            "lamp",
        ),
        n=4,
        shape=(1, 4, 4),
    ),
    Problem(
        "convolution-strided",
        "two channels, stride, padding, ReLU and the largest of each window",
        (Conv2d(2, 2, 2, stride=2, padding=1), ReLU(), MaxPool2d(2), Flatten(), Linear(2, 2)),
        ("exact", "taylor_second", "obd", "fisher", "fisher_empirical", "wanda", "obs_layerwise", "magnitude_scaled"),
        SquaredError(),
        shape=(2, 4, 4),
    ),
    Problem(
        "batch-norm",
        "batch norm at inference: its scale and shift are parameters, which layer-wise criteria do not score",
        (Linear(3, 3), BatchNorm(3, (0.25, -0.5, 0.0), (0.5, 2.0, 1.0)), Tanh(), Linear(3, 2)),
        ("exact", "magnitude", "lamp", "taylor", "obd", "fisher", "wanda", "obs_layerwise", "synflow"),
    ),
    Problem(
        "batch-norm-images",
        "batch norm of channels behind a convolution without bias",
        (Conv2d(1, 2, 2, bias=False), BatchNorm(2, (0.25, -0.25), (0.5, 1.5)), Softplus(), Flatten(), Linear(8, 2)),
        ("exact", "fisher_empirical", "taylor_second", "synflow", "wanda"),
        shape=(1, 3, 3),
        l2=0.0625,
    ),
    Problem(
        "residual",
        "a block that adds its input",
        (Linear(2, 3), Residual(Linear(3, 3), Tanh()), Linear(3, 2)),
        ("exact", "taylor_second", "obd", "fisher", "grasp", "wanda", "obs_layerwise", "synflow"),
    ),
)
