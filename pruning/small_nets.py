"""Networks so small that every subset of their weights can be tried, trained to a stationary point.

| name | network | parameters | outputs and loss |
|---|---|---|---|
| xor | 2-2-1 | 9 | sigmoid units, squared error |
| parity | 3-4-1 | 21, of which 16 weights | tanh units, logit, cross-entropy |
| two-moons | 2-4-1 | 17, of which 12 weights | tanh units, logit, cross-entropy |
| monks-1 | 17-3-1 | 58 | sigmoid units, squared error |
| monks-2, monks-3 | 17-2-1 | 39 | sigmoid units, squared error |

Those of MONK's and XOR are the networks of Hassibi and Stork 1993, whose counts include the biases.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from minimal_nn import checks, datasets
from minimal_nn.datasets import Dataset
from minimal_nn.layers import Linear, Sigmoid, Tanh
from minimal_nn.losses import BinaryCrossEntropy, SquaredError
from minimal_nn.network import Network
from minimal_nn.objective import Objective
from minimal_nn.optimizers import Minimum, stationary

_DATA: dict[str, Callable[[], Dataset]] = {
    "xor": datasets.xor,
    "parity": partial(datasets.parity, 3),
    "two-moons": partial(datasets.two_moons, 60, 60),
    "monks-1": partial(datasets.monks, 1),
    "monks-2": partial(datasets.monks, 2),
    "monks-3": partial(datasets.monks, 3),
}
_HIDDEN = {"xor": 2, "parity": 4, "two-moons": 4, "monks-1": 3, "monks-2": 2, "monks-3": 2}
NAMES = tuple(_DATA)


def objective(name: str, l2: float = 1e-4, data: Dataset | None = None) -> Objective:
    """Return the loss of the named network on the training part of its data, or of the `data` given.

    The decay decides what is learned: XOR, for one, shrinks to nothing at 1e-3. ValueError for another name.
    """
    name = checks.one_of("name", name, NAMES)
    data = _DATA[name]() if data is None else data
    inputs, hidden = data.x_train.shape[1], _HIDDEN[name]
    y = data.y_train[:, None].astype(np.float64)
    if name in ("parity", "two-moons"):
        network = Network(Linear(inputs, hidden), Tanh(), Linear(hidden, 1))
        return Objective(network, BinaryCrossEntropy(), data.x_train, y, l2)
    network = Network(Linear(inputs, hidden), Sigmoid(), Linear(hidden, 1), Sigmoid())
    return Objective(network, SquaredError(), data.x_train, y, l2)


def trained(L: Objective, seed: int = 0, spread: float = 1.0) -> Minimum:
    """Return the stationary point that descent reaches from w drawn from a normal distribution of s.d. `spread`.

    All parameters are drawn, the biases too: from biases of zero the units of such small networks tend to agree.
    `converged` and the value tell whether it is a good one: some starts lead to poor minima.
    """
    rng = np.random.default_rng(checks.integer("seed", seed, 0))
    return stationary(L, checks.number("spread", spread, 0) * rng.standard_normal(L.n_parameters))
