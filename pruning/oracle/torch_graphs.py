"""The graph of a torch module, traced by torch.fx and followed from its input to its output."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning.oracle.cases import as_array
from pruning.oracle.chains import Chain, Step, first_line, named
from pruning.oracle.foreign_layers import Weight, rows
from pruning.oracle.torch_layers import steps_of_function, steps_of_module

if TYPE_CHECKING:
    import torch

#: what asks a tensor for its shape
_QUESTIONS = ("size", "shape", "dim", "ndim")
_RESHAPING = ("flatten", "view", "reshape", "squeeze")
_SUMS, _PRODUCTS = ("add", "add_", "iadd"), ("mul", "mul_", "imul")


class Reading:
    """A traced model as `steps` of a chain, and the `masks` by which its forward multiplies weights, by their names.

    `names` lead from every name of a parameter to the one it goes by; `shape` (N, ...) is that of the input. ValueError
    for what cannot be expressed, which it names.
    """

    def __init__(self, model: torch.nn.Module, names: Mapping[str, str], shape: tuple[int, ...]) -> None:
        self.model, self.names, self.shape = model, names, shape
        self.masks: dict[str, np.ndarray] = {}
        self.chain: Chain | None = None
        self.known: dict[Any, Any] = {}  # nodes that are no function of the input
        for node in _needed(model):
            self._follow(node)
        assert self.chain is not None  # every graph ends in an output, which asks for the chain
        self.steps: list[Step] = self.chain.steps

    def _follow(self, node: Any) -> None:
        if node.op == "placeholder":
            if self.chain is not None:
                raise ValueError(f"model: expected one input, got also {node.name}")
            self.chain = Chain(node, self.shape[1:])
        elif node.op == "output":
            self._end(node.args[0])
        elif node.op == "get_attr":
            value = operator.attrgetter(node.target)(self.model)
            known = node.target in self.names
            self.known[node] = Weight(self.names[node.target], tuple(value.shape)) if known else value
        else:
            self._call(node, _where(node, self.model))

    def _end(self, value: Any) -> None:
        if self.chain is None or value not in self.chain:
            raise ValueError("model: expected one tensor as its output, the output of a layer")
        self.chain.expect_last("model's output", value)

    def _call(self, node: Any, where: str) -> None:
        from torch.fx import map_arg

        args, options = (map_arg(given, lambda n: self.known.get(n, n)) for given in (node.args, node.kwargs))
        args, options = list(args), dict(options)
        if not args and "input" in options:
            args = [options.pop("input")]
        called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
        if all(n in self.known for n in node.all_input_nodes):
            self.known[node] = self._of_known(where, node, called, args, options)
            return
        if called == "getattr":
            called, args = args[1], args[:1]
        chain, source = self.chain, args[0]
        assert chain is not None  # the only unknown nodes come from the input
        if called in _QUESTIONS and source in chain:
            self.known[node] = self._on_meta(where, called, chain.shape_of(source), args[1:], options)
            return
        if node.op == "call_module":
            chain.expect_last(where, source)
            with named(where):
                steps = steps_of_module(node.target, self.model.get_submodule(node.target), chain.shape)
            chain.extend(where, source, node, self._renamed(steps))
        elif called in _RESHAPING:
            chain.expect_last(where, source)
            self._reshape(where, node, source, self._on_meta(where, called, chain.shape, args[1:], options).shape)
        elif called in _SUMS + _PRODUCTS:
            if len(args) != 2 or options:
                raise ValueError(f"{where}: expected two terms or factors and no options")
            self._combine(where, node, called in _SUMS, *args)
        else:
            with named(where):
                steps = steps_of_function(called, args[1:], options, chain.shape)
            chain.extend(where, source, node, steps)
        if _overwrites(node, self.model):
            chain.overwrite(source, node)

    def _combine(self, where: str, node: Any, is_sum: bool, a: Any, b: Any) -> None:
        assert self.chain is not None
        if isinstance(a, Weight):
            a, b = b, a
        if is_sum and isinstance(b, Weight):
            self.chain.add_bias(where, a, node, b.name, b.shape)
        else:
            (self.chain.sum if is_sum else self.chain.product)(where, a, b, node)

    def _reshape(self, where: str, node: Any, source: Any, shape: tuple[int, ...]) -> None:
        chain, N = self.chain, self.shape[0]
        assert chain is not None
        if tuple(shape) == (N,) and chain.shape == (1,):
            chain.extend(where, source, node, [])
        elif tuple(shape) != (N, math.prod(chain.shape)):
            raise ValueError(f"{where}: only rows, one for each example, can be expressed, got shape {tuple(shape)}")
        else:
            chain.extend(where, source, node, rows(chain.shape))

    def _on_meta(self, where: str, called: str, shape: tuple[int, ...], args: Any, options: Any) -> Any:
        """Return what torch says about a tensor of N examples of this shape."""
        import torch

        answer = getattr(torch.empty((self.shape[0], *shape), device="meta"), called)
        try:
            return answer(*args, **options) if callable(answer) else answer
        except (RuntimeError, TypeError, IndexError) as error:
            raise ValueError(f"{where}: {first_line(error)}") from None

    def _of_known(self, where: str, node: Any, called: str, args: Any, options: Any) -> Any:
        """Return a value that does not depend on the input: of numbers, or of a weight and its mask."""
        weights = [a for a in args if isinstance(a, Weight)]
        if not weights:
            return node.target(*args, **options) if node.op == "call_function" else getattr(args[0], called)(*args[1:])
        with named(where):
            if called in ("t", "numpy_T") or (called == "getattr" and args[1] in ("T", "mT")):
                return weights[0].T
            if called in ("transpose", "permute") and sorted(a % 2 for a in args[1:]) == [0, 1]:
                return weights[0].T
            factor = next((a for a in args if not isinstance(a, Weight)), None)
            mask = as_array("mask", factor) if called == "mul" and factor is not None else np.array(np.nan)
            if mask.shape == weights[0].shape and np.isin(mask, (0, 1)).all():
                mask = mask.T if weights[0].transposed else mask
                self.masks[weights[0].name] = self.masks.get(weights[0].name, 1) * mask
                return weights[0]
            raise ValueError(
                "of weights only their transpose and their product with a mask of 0 and 1 can be expressed"
            )

    def _renamed(self, steps: list[Step]) -> list[Step]:
        """Return the steps with every parameter under the first of its names."""
        return [
            (layer, {ours: (self.names.get(name, name), axes) for ours, (name, axes) in own.items()})
            for layer, own in steps
        ]


def _needed(model: torch.nn.Module) -> list[Any]:
    """Trace the model and return the nodes that its output needs, and those that write over another's memory."""
    from torch import fx

    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:
        kind = type(model).__name__
        raise ValueError(f"model: {kind} cannot be traced by torch.fx: {first_line(error)}") from None
    needed: set[Any] = set()
    for node in reversed(graph.nodes):
        if node in needed or node.op == "output" or _overwrites(node, model):
            needed.update((node, *node.all_input_nodes))
    return [node for node in graph.nodes if node in needed]


def _overwrites(node: Any, model: torch.nn.Module) -> bool:
    """Tell whether a node writes its result over its input."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(node.target), "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return bool(node.kwargs.get("inplace")) or (called.endswith("_") and not called.endswith("__"))


def _where(node: Any, model: torch.nn.Module) -> str:
    """Return how errors name a node."""
    if node.op != "call_module":
        called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target)
        return f"{node.name} (a call of {called})"
    module = model.get_submodule(node.target)
    said = repr(module)
    return f"{node.target} ({said if len(said) <= 100 and said.isprintable() else type(module).__name__})"
