"""The exact saliency of every weight, group of weights or unit without a full forward pass for each.

Removing weight (a, b) of a layer changes, for each example, only its output b, by −x_a w_ab. Everything before is kept
from one forward pass; `removals` lists the routes by which what lies behind is computed, for all weights at once.
Weights that change nothing (x_a = 0, or a ReLU that stays off) get a saliency of exactly 0, plus their penalty.

The work is cut into tasks, some examples by some output channels of one layer, which run in threads or in any
executor, and of which finished ones can be kept in a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from minimal_nn import checks, memory
from minimal_nn.network import Network
from minimal_nn.objective import Objective
from pruning.exact import removals
from pruning.exact.execution import Task, execute, threads
from pruning.exact.groups import Groups
from pruning.exact.suffix import Piece, Suffix

EXAMPLES = 1000  #: at once, at most
CHANNELS = {"lines": 25, "polynomials": 25, "channels": 4, "prefix": 256, "groups": 64, "units": 64}  #: of one task
SMALL = 2**18  #: parameters times examples below which threads cost more than they save


def saliency(
    L: Objective,
    w: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    units: int | None = None,
    per_example: bool = False,
    executor: Executor | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return the exact saliency of every parameter, s_j = L((1 − e_j) ∘ w) − L(w), shape (P,), in the units of L.

    Positive where removal hurts, negative where it helps. The penalty of L is included: −(l2/2) w_j² of each s_j.
    Exact to rounding. Lee et al. 2019 (SNIP) and others write ΔL_j = L(w) − L((1 − e_j) ∘ w) = −s_j.

    groups       ids (P,) int, −1 = none: (G,) instead, G = ids.max() + 1, s_g = L(w with all of group g at 0) − L(w)
    units        a layer's index: (U,) instead, the loss with the gate of each of its outputs (channels) at 0, behind
                 the activations that directly follow, minus L(w); no weight is removed, and no penalty saved
    per_example  (N, P), (N, G) or (N, U) instead: each example's loss change, without the penalty; ValueError where
                 that is more than the memory budget
    executor     any concurrent.futures.Executor for the tasks; threads unless given. A failed task is tried once more
    checkpoint   a file (.npz) that keeps finished tasks: the same call goes on where it stopped. ValueError where it
                 belongs to another one
    progress     show a bar with the time left

    ValueError where an argument does not fit; FloatingPointError where a loss is not finite; RuntimeError that names
    the task where it failed twice for a reason outside the computation (a lost worker).

    >>> from minimal_nn import Linear, Network, SquaredError
    >>> x = np.array([[1.0, 0], [1, 1], [2, 1], [0, 1]])
    >>> L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), x, x @ [[1.0], [2]])
    >>> saliency(L, np.array([2.0, 1]))
    array([1.5  , 0.375])
    >>> saliency(L, np.array([2.0, 1]), groups=np.array([0, 0])), saliency(L, np.array([2.0, 1]), units=0)
    (array([3.375]), array([3.375]))
    """
    w = _point(L, w)
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise ValueError(f"executor: expected a concurrent.futures.Executor, got {checks.describe(executor)}")
    if groups is not None and units is not None:
        raise ValueError("units: expected None where groups are given, got both")
    parts = Groups.of(L, groups) if groups is not None else None
    gate = None if units is None else L.network.gate(units, "units")
    count = len(w) if parts is None else len(parts.members)
    count = count if gate is None else _channels_of(L, gate)
    if per_example and L.n_examples * count * w.itemsize > memory.BUDGET:
        size = L.n_examples * count * w.itemsize / 2**20
        raise ValueError(
            f"per_example: expected ({L.n_examples}, {count}) within {memory.BUDGET >> 20} MiB, got {size:.0f} MiB; "
            "take L.subset of the examples"
        )
    tasks = list(_tasks(L, parts, gate))
    omega = None if per_example else np.full((1, L.n_examples), 1 / L.n_examples, w.dtype)
    s = _run(L, w, tasks, omega, count, parts=parts, executor=executor, checkpoint=checkpoint, progress=progress)
    if per_example:
        return s
    if gate is not None:
        return s[0]
    penalty = 0.5 * w.dtype.type(L.l2) * w**2
    return s[0] - (penalty if parts is None else parts.total(penalty))


def weighted_saliencies(L: Objective, w: np.ndarray, omega: np.ndarray) -> np.ndarray:
    """Return Σ_n ω_mn (ℓ_n(removed) − ℓ_n) (M, P) for weights of the examples ω (M, N), without the penalty.

    ω = 1/N is the saliency of the data; rows that are 1/|S| on a subset S and 0 elsewhere give those of subsets, for
    many of them at little more than the cost of one.
    """
    w = _point(L, w)
    omega = checks.array("omega", omega, (None, L.n_examples)).astype(w.dtype, copy=False)
    return _run(L, w, list(_tasks(L, None, None)), omega, len(w))


def _point(L: Objective, w: np.ndarray) -> np.ndarray:
    w = checks.array("w", w, (L.n_parameters,))
    if w.dtype not in (np.float64, np.float32):
        raise ValueError(f"w: expected float64 or float32, got {w.dtype}")
    return w


def routes(network: Network) -> dict[str, int]:
    """Return how many parameters take which route of `removals`; "prefix" is the fallback, a forward pass for each.

    >>> from minimal_nn import Linear, Network, ReLU
    >>> routes(Network(Linear(30, 4), ReLU(), Linear(4, 2)))
    {'lines': 124, 'channels': 10}
    """
    counts: dict[str, int] = {}
    for i, layer in enumerate(network.layers):
        by = removals.route(network, i)
        if by:
            size = sum(int(np.prod(shape)) for shape in layer.parameter_shapes().values())
            counts[by] = counts.get(by, 0) + size
    return counts


def _tasks(L: Objective, parts: Groups | None, gate: int | None) -> Iterator[Task]:
    """Yield all tasks: pieces of the examples by pieces of the channels of each layer, the groups or the gates."""
    width = sum(y.size for y in L.network.trace(np.zeros(L.n_parameters), L.x[:1]))
    most = min(EXAMPLES, max(1, memory.BUDGET // (64 * width)))
    for examples in memory.pieces(L.n_examples, 1, most):
        if parts is not None:
            yield from _cut(examples, "groups", 0, len(parts.members))
        elif gate is not None:
            yield from _cut(examples, "units", gate, _channels_of(L, gate))
        else:
            for i in range(len(L.network.layers)):
                by = removals.route(L.network, i)
                if by:
                    yield from _cut(examples, by, i, removals.index(L.network, i).shape[1])


def _cut(examples: slice, kind: str, i: int, count: int) -> Iterator[Task]:
    for start in range(0, count, CHANNELS[kind]):
        yield Task(examples.start, examples.stop, kind, i, start, min(count, start + CHANNELS[kind]))


def _run(
    L: Objective,
    w: np.ndarray,
    tasks: list[Task],
    omega: np.ndarray | None,
    count: int,
    *,
    parts: Groups | None = None,
    executor: Executor | None = None,
    checkpoint: str | os.PathLike | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Return the sums of all tasks (M, count)."""
    total = np.zeros((L.n_examples if omega is None else len(omega), count), w.dtype)

    def place(task: Task) -> tuple[slice, np.ndarray]:
        rows = slice(task.first, task.last) if omega is None else slice(None)
        if task.kind in ("groups", "units"):
            return rows, np.arange(task.start, task.stop)
        return rows, removals.index(L.network, task.layer)[:, task.start : task.stop].ravel()

    def arguments(task: Task) -> tuple:
        examples = slice(task.first, task.last)
        members = None if parts is None else parts.members[task.start : task.stop]
        return L.subset(examples), w, task, None if omega is None else omega[:, examples], members

    small = L.n_parameters * L.n_examples <= SMALL or len(tasks) == 1
    with nullcontext(executor) if executor is not None or small else threads() as chosen:
        execute(
            changes_of_task,
            tasks,
            arguments,
            place,
            total,
            executor=chosen,
            checkpoint=None if checkpoint is None else Path(checkpoint),
            identity=(L, w, omega, None if parts is None else parts.ids),
            progress=progress,
        )
    if not np.isfinite(total).all():
        raise FloatingPointError(f"loss changes are not finite; the largest |w| is {np.abs(w).max():.3g}")
    return total


def changes_of_task(
    L: Objective, w: np.ndarray, task: Task, omega: np.ndarray | None, members: list[np.ndarray] | None
) -> np.ndarray:
    """Return what one task adds, (M, number of results), for its own examples L."""
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is not finite, and an error at the end
        return _changes_of_task(Piece.of(L, w), task, omega, members)


def _changes_of_task(
    piece: Piece, task: Task, omega: np.ndarray | None, members: list[np.ndarray] | None
) -> np.ndarray:
    if members is not None:
        without = removals.Without(piece)
        found = np.stack([without(group) for group in members])
    elif task.kind == "units":
        suffix, n = Suffix(piece, task.layer), np.arange(len(piece.y))
        zero = np.zeros_like(suffix.z[:, 0])
        found = np.stack([suffix.loss_changes(b, n, zero) for b in range(task.start, task.stop)])
    else:
        sums = removals.changes(piece, task.layer, range(task.start, task.stop), omega)
        return sums.reshape(len(sums), -1)
    return found.T if omega is None else omega @ found.T


def _channels_of(L: Objective, i: int) -> int:
    shape = L.x.shape[1:]
    for layer in L.network.layers[: i + 1]:
        shape = layer.output_shape(shape)
    return shape[0]
