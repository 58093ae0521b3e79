"""Trained networks by recipe, for the command line: trained once, then read from the user's cache."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from minimal_nn import checks, datasets
from minimal_nn.layers import AvgPool2d, Conv2d, Flatten, Identity, Layer, Linear, ReLU, Sigmoid, Softplus, Tanh
from minimal_nn.losses import SoftmaxCrossEntropy
from minimal_nn.network import Network
from minimal_nn.objective import Objective
from minimal_nn.optimizers import adam
from minimal_nn.training import train

ACTIVATIONS = {"tanh": Tanh, "relu": ReLU, "sigmoid": Sigmoid, "softplus": Softplus, "identity": Identity}

DATASETS: dict[str, Callable[[], datasets.Dataset]] = {
    "digits": datasets.digits,
    "xor": datasets.xor,
    "parity": datasets.parity,
    "monks-1": partial(datasets.monks, 1),
    "monks-2": partial(datasets.monks, 2),
    "monks-3": partial(datasets.monks, 3),
    "two-moons": datasets.two_moons,
    "spirals": datasets.spirals,
    "boolean-rule": datasets.boolean_rule,
    "mnist": datasets.mnist,
}


MODELS = ("mlp", "lenet-300-100", "lenet-5")


@dataclass(frozen=True)
class Recipe:
    """A network with softmax cross-entropy, and its training: Adam from Glorot's start, full-batch unless said.

    Model "mlp" has hidden layers of widths `hidden`; "lenet-300-100" is the one of 300,100; "lenet-5" is
    conv 6 (5×5, padding 2), pool, conv 16 (5×5), pool, linear 120, 84, with average pooling (LeCun et al. 1998, with
    every map of the second convolution connected to all of the first), on square images.
    """

    dataset: str = "digits"
    hidden: tuple[int, ...] = (20,)
    activation: str = "tanh"
    seed: int = 0
    examples: int = 1000
    steps: int = 300
    learning_rate: float = 3e-3
    l2: float = 1e-3
    model: str = "mlp"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        checks.one_of("dataset", self.dataset, DATASETS)
        checks.one_of("activation", self.activation, ACTIVATIONS)
        checks.one_of("model", self.model, MODELS)
        for width in self.hidden:
            checks.integer("hidden", width, 1)
        checks.integer("seed", self.seed, 0)
        checks.integer("examples", self.examples, 1)
        checks.integer("steps", self.steps, 0)

    def objective(self) -> Objective:
        """Return the loss on the first `examples` training examples, or on all where there are fewer."""
        data = DATASETS[self.dataset]()
        x, y = data.x_train[: self.examples], data.y_train[: self.examples]
        if self.model == "lenet-5":
            x = _square_images(x)
            layers = self._lenet_5(x.shape[-1], data.classes)
        else:
            layers = self._perceptron(x.shape[1], data.classes)
        return Objective(Network(*layers), SoftmaxCrossEntropy(), x, y, l2=self.l2)

    def _perceptron(self, inputs: int, classes: int) -> list[Layer]:
        widths = (inputs, *((300, 100) if self.model == "lenet-300-100" else self.hidden), classes)
        layers: list[Layer] = [Linear(widths[0], widths[1])]
        for a, b in pairwise(widths[1:]):
            layers += [ACTIVATIONS[self.activation](), Linear(a, b)]
        return layers

    def _lenet_5(self, side: int, classes: int) -> list[Layer]:
        phi = ACTIVATIONS[self.activation]()
        maps = [Conv2d(1, 6, 5, padding=2), phi, AvgPool2d(2), Conv2d(6, 16, 5), phi, AvgPool2d(2), Flatten()]
        try:
            features = Network(*maps).output_shape((1, side, side))[0]
        except ValueError as error:
            raise ValueError(f"model: lenet-5 does not fit images of {side} x {side}: {error}") from None
        return [*maps, Linear(features, 120), phi, Linear(120, 84), phi, Linear(84, classes)]


def _square_images(x: np.ndarray) -> np.ndarray:
    """Return x (N, side²) as images (N, 1, side, side)."""
    side = math.isqrt(x.shape[1])
    if side**2 != x.shape[1]:
        raise ValueError(f"model: lenet-5 takes square images, and the data have {x.shape[1]} inputs")
    return x.reshape(-1, 1, side, side)


def trained(recipe: Recipe, L: Objective, *, cache: bool = True) -> tuple[np.ndarray, bool]:
    """Return the weights w (P,) that the recipe gives on L = recipe.objective(), and whether they came from the cache.

    The cache is a folder in the user's cache directory, one file for each recipe and data. A file that cannot be
    read as what was written is ignored and written anew; a folder that cannot be written to is done without.
    """
    path = _cache_path(recipe, L)
    if cache:
        w = _read(path, L.n_parameters)
        if w is not None:
            return w, True
    rng = np.random.default_rng(recipe.seed)
    start, batch_size = L.network.init(rng), recipe.batch_size and min(recipe.batch_size, L.n_examples)
    w = train(L, start, adam(recipe.learning_rate), recipe.steps, batch_size=batch_size, rng=rng).w
    if cache:
        _write(path, w)
    return w, False


def _cache_path(recipe: Recipe, L: Objective) -> Path:
    """Name the file by everything that determines w: the recipe, the network, and the data to the bit."""
    import pooch

    content = hashlib.sha256(f"v1 {recipe} {L.network} {np.__version__}".encode())
    for a in (L.x, L.y):
        content.update(np.ascontiguousarray(a).tobytes())
    return Path(pooch.os_cache("exact-pruning")) / "networks" / f"{content.hexdigest()[:32]}.npz"


def _read(path: Path, n_parameters: int) -> np.ndarray | None:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return checks.array("w", file["w"], (n_parameters,))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _write(path: Path, w: np.ndarray) -> None:
    """Write the whole file or none of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.savez(file, w=w)
        os.replace(file.name, path)
    except OSError:
        return
