"""A foreign graph followed from its input to its output, as a sequence of our layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from minimal_nn import Flatten, Identity, Linear, Sigmoid, SiLU
from minimal_nn.layers import Layer, Residual
from minimal_nn.network import Network
from pruning.oracle.cases import Case, Tensor

#: where a parameter comes from: the foreign name, and the order of our axes in the foreign tensor
Source = tuple[str, tuple[int, ...]]
#: a layer of ours, and for each of its parameters where it comes from
Step = tuple[Layer, dict[str, Source]]


class Chain:
    """The values of a graph as places in a sequence of layers.

    What is neither a chain of layers nor a sum x + f(x) is refused. Values go by any hashable key; `where` names the
    node in the errors. `shape` is that of one example of the input.
    """

    def __init__(self, value: Hashable, shape: tuple[int, ...]) -> None:
        self.steps: list[Step] = []
        self._shapes = [shape]  # before every step and behind the last
        self._places: dict[Hashable, int] = {value: 0}
        self._memory: dict[Hashable, Hashable] = {value: value}  # whose memory a value shares

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example of the last value."""
        return self._shapes[-1]

    def shape_of(self, value: Hashable) -> tuple[int, ...]:
        """The shape of one example of a value."""
        return self._shapes[self._places[value]]

    def __contains__(self, value: Hashable) -> bool:
        return value in self._places

    def extend(self, where: str, source: Hashable, value: Hashable, steps: Iterable[Step]) -> None:
        """Let `value` be what the steps make of `source`, which must be the last value."""
        self.expect_last(where, source)
        steps = list(steps)
        for step in steps:
            self._append(where, step)
        self._places[value] = len(self.steps)
        shares = all(isinstance(layer, (Flatten, Identity)) for layer, _ in steps)
        self._memory[value] = self._memory[source] if shares else value

    def sum(self, where: str, a: Hashable, b: Hashable, value: Hashable) -> None:
        """Let `value` be x + f(x), one of the two being the last value and the other one x."""
        block = self._behind(where, a, b, "only a sum x + f(x) of a chain with its own input can be expressed")
        names = {f"{i}.{ours}": source for i, (_, own) in enumerate(block) for ours, source in own.items()}
        try:
            step = Residual(*(layer for layer, _ in block)), names
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        self._replace(where, len(block), step, value)

    def product(self, where: str, a: Hashable, b: Hashable, value: Hashable) -> None:
        """Let `value` be x σ(x), which is SiLU."""
        block = self._behind(where, a, b, "of products only x · sigmoid(x) can be expressed")
        if len(block) != 1 or not isinstance(block[0][0], Sigmoid):
            raise ValueError(f"{where}: of products only x · sigmoid(x) can be expressed")
        self._replace(where, 1, (SiLU(), {}), value)

    def add_bias(self, where: str, source: Hashable, value: Hashable, name: str, shape: tuple[int, ...]) -> None:
        """Let `value` be `source` plus the foreign parameter `name`, where the last layer is Linear without a bias."""
        self.expect_last(where, source)
        layer, names = self.steps[-1] if self.steps else (None, {})
        if not isinstance(layer, Linear) or layer.bias or shape != (layer.outputs,):
            raise ValueError(f"{where}: {name} {shape} can be expressed only as the bias (outputs,) of a linear layer")
        self._replace(where, 1, (replace(layer, bias=True), names | {"bias": (name, (0,))}), value)

    def overwrite(self, source: Hashable, value: Hashable) -> None:
        """Say that `value` was written over the memory of `source`.

        What stood at the same place in the same memory is now the new value; other views of it cannot be used again.
        """
        same = [v for v, owner in self._memory.items() if owner == self._memory[source]]
        before = self._places.get(source)
        for v in same:
            if v == source or (before is not None and self._places.get(v) == before):
                self._places[v] = self._places[value]
            elif v != value:
                self._places.pop(v, None)
        self._memory[value] = self._memory[source]

    def expect_last(self, where: str, value: Hashable) -> None:
        """Raise ValueError unless `value` is what the layers so far end in."""
        if value not in self._places or self._places[value] != len(self.steps):
            raise ValueError(
                f"{where}: expected a chain of layers and sums x + f(x), got a branch: its input is not the output of "
                "the layer before it, or was overwritten"
            )

    def _behind(self, where: str, a: Hashable, b: Hashable, otherwise: str) -> list[Step]:
        """Return the steps between the two values, of which the later one must be the last."""
        places = [self._places.get(v) for v in (a, b)]
        first, last = min(p if p is not None else -1 for p in places), max(p if p is not None else -1 for p in places)
        if first < 0 or first == last or last != len(self.steps):
            raise ValueError(f"{where}: {otherwise}")
        return self.steps[first:]

    def _replace(self, where: str, count: int, step: Step, value: Hashable) -> None:
        """Put one step in place of the last ones, whose values are gone."""
        del self.steps[-count:], self._shapes[-count:]
        self._places = {v: place for v, place in self._places.items() if place <= len(self.steps)}
        self._append(where, step)
        self._places[value], self._memory[value] = len(self.steps), value

    def _append(self, where: str, step: Step) -> None:
        used = {name for _, own in self.steps for name, _ in own.values()}
        for name, _ in step[1].values():
            if name in used:
                raise ValueError(f"{where}: takes {name}, as another layer does, which cannot be expressed")
        try:
            self._shapes.append(step[0].output_shape(self.shape))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        self.steps.append(step)


def network_and_tensors(steps: list[Step], names: Iterable[str]) -> tuple[Network, tuple[Tensor, ...]]:
    """Return the network of the steps and its foreign tensors in the order of `names`, all of which must be used."""
    found = {
        name: Tensor(name, f"{i}.{ours}", axes)
        for i, (_, own) in enumerate(steps)
        for ours, (name, axes) in own.items()
    }
    unused = [name for name in names if name not in found]
    if unused:
        raise ValueError(f"model: parameters that its outputs do not need cannot be expressed: {', '.join(unused)}")
    if not found:
        raise ValueError("model: expected at least one layer with parameters, got none")
    return Network(*(layer for layer, _ in steps)), tuple(found[name] for name in names)


def moved(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return a w and an x at random near those of the case; weights at zero stay there."""
    rng, x = np.random.default_rng(0), case.L.x
    w = case.w * (1 + 0.3 * rng.uniform(-1, 1, case.w.shape))
    return w, x + (x.std() or 1.0) * rng.standard_normal(x.shape)


def check_outputs(case: Case, run: Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]) -> None:
    """Raise ValueError unless run(parameters, x), the foreign model in float64, gives our outputs (N, C).

    Compared at the case's w and x, and where both are moved, so that equal outputs are no accident of the point:
    max |ours − theirs| ≤ 1e-7 max |theirs|.
    """
    for w, x in ((case.w, case.L.x), moved(case)):
        theirs = run(case.to_foreign(w), x)
        ours = case.L.network.forward(w, x)
        if theirs.shape != ours.shape:
            raise ValueError(f"model: expected outputs of shape {ours.shape} as they were read, got {theirs.shape}")
        error, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
        if not error <= 1e-7 * max(scale, 1e-300):
            raise ValueError(
                f"model: its outputs are not those of the network that was read from it, {case.L.network}: they differ "
                f"by {error / max(scale, 1e-300):.2g} of the largest"
            )


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Let ValueErrors begin with what they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return str(error).partition("\n")[0]
