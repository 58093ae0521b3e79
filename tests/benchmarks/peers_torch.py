"""What torch, curvlinops and BackPACK offer for the same quantities, each used as its documentation shows.

torch keeps the weight of a Linear as (out, in), of a Conv2d as (out, in, k, k): ours with the first two axes exchanged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minimal_nn import optimizers
from tests.benchmarks import threads
from tests.benchmarks.problems import Problem
from tests.benchmarks.timing import Missing, Route, seconds

SAMPLE = 500  #: weights that the loop over masked weights removes; its time is scaled to all
CHUNK = 128  #: tangents at once, for the route that takes them in pieces


def torch_func_hessian(problem: Problem) -> Route:
    """The fastest of three ways with torch.func: H v vmapped over the identity, whole or in pieces, and its hessian."""
    torch = _torch()
    model, x, y, order = _parts(torch, problem)
    names, shapes, sizes = zip(*((name, p.shape, p.numel()) for name, p in model.named_parameters()), strict=True)
    w = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    def loss(w: Any) -> Any:
        views = [part.reshape(shape) for part, shape in zip(w.split(sizes), shapes, strict=True)]
        z = torch.func.functional_call(model, dict(zip(names, views, strict=True)), (x,))
        return torch.nn.functional.cross_entropy(z, y)

    def product(v: Any) -> Any:
        return torch.func.jvp(torch.func.grad(loss), (w,), (v,))[1]

    def products(chunk_size: int | None) -> Callable[[], Any]:
        return lambda: torch.vmap(product, chunk_size=chunk_size)(torch.eye(len(w), dtype=w.dtype))

    ways = {
        "vmap of jvp of grad": products(None),
        f"vmap of jvp of grad, {CHUNK} at once": products(CHUNK),
        "torch.func.hessian": lambda: torch.func.hessian(loss)(w),
    }
    for run in ways.values():
        run()
    fastest = min(ways, key=lambda name: seconds(ways[name]))
    return Route(f"torch.func ({fastest})", ways[fastest], lambda H: _in_our_order(H.detach().numpy(), order))


def curvlinops_on_identity(kind: str) -> Callable[[Problem], Route]:
    """A curvlinops operator of that class applied to the identity; building it, which is cheap, is not timed."""

    def prepare(problem: Problem) -> Route:
        torch = _torch()
        try:
            import curvlinops
        except ImportError as error:
            raise Missing(f"curvlinops: {error}") from None
        model, x, y, order = _parts(torch, problem)
        operator = getattr(curvlinops, kind)(
            model, torch.nn.CrossEntropyLoss(), list(model.parameters()), [(x, y)], check_deterministic=False
        )
        eye = torch.eye(operator.shape[1], dtype=x.dtype)
        read = lambda H: _in_our_order(H.detach().numpy(), order)  # noqa: E731 - named for the line's length
        return Route(f"curvlinops {kind} on I", lambda: operator @ eye, read)

    return prepare


def backpack_diagonal(problem: Problem) -> Route:
    """BackPACK's DiagHessian: forward and backward pass of an extended model."""
    torch = _torch()
    try:
        from backpack import backpack, extend
        from backpack.extensions import DiagHessian
    except ImportError as error:
        raise Missing(f"BackPACK: {error}") from None
    model, x, y, order = _parts(torch, problem)
    model, loss = extend(model), extend(torch.nn.CrossEntropyLoss())
    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # of BackPACK's own hooks

    def run() -> list[Any]:
        model.zero_grad()
        with backpack(DiagHessian()):
            loss(model(x), y).backward()
        return [p.diag_h for p in model.parameters()]

    def read(parts: list[Any]) -> np.ndarray:
        return _in_our_order(torch.cat([part.detach().reshape(-1) for part in parts]).numpy(), order)

    return Route("BackPACK DiagHessian", run, read)


def training_step(problem: Problem, rate: float = 0.1) -> Route:
    """torch's eager step of SGD on one batch; `run` goes on from where the last call stopped."""
    torch = _torch()
    model, x, y, order = _parts(torch, problem)
    loss, optimizer = torch.nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=rate)

    def run() -> Any:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
        return model

    def read(model: Any) -> np.ndarray:
        return _in_our_order(torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy(), order)

    return Route("torch SGD step, eager", run, read)


def our_training_step(problem: Problem, rate: float = 0.1) -> Route:
    """Our step on one batch: the gradient, and what the optimiser makes of it."""
    L, w = problem.L, problem.w.copy()
    optimizer = optimizers.sgd(rate)
    state = optimizer.start(w)

    def run() -> np.ndarray:
        nonlocal w, state
        _, g = L.value_and_gradient(w)
        w, state = optimizer.step(w, g, state)
        return w

    return Route("value_and_gradient and sgd", run, np.array)


def loop_over_masked_weights(problem: Problem) -> Route:
    """One forward pass for each of SAMPLE weights with that weight at 0: the plain loop, of which P/SAMPLE are all."""
    torch = _torch()
    model, x, y, order = _parts(torch, problem)
    x = x.to(next(model.parameters()).dtype)
    loss, sample = torch.nn.CrossEntropyLoss(), sampled(problem)
    parameters = [p.detach().view(-1) for p in model.parameters()]
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    edges = np.cumsum([0, *(len(p) for p in parameters)])
    k = np.searchsorted(edges, place[sample], side="right") - 1
    flat = [(parameters[i], int(j - edges[i])) for i, j in zip(k, place[sample], strict=True)]

    def run() -> list[float]:
        changes = []
        with torch.no_grad():
            before = loss(model(x), y).item()
            for p, j in flat:
                kept = p[j].item()
                p[j] = 0
                changes.append(loss(model(x), y).item() - before)
                p[j] = kept
        return changes

    return Route(f"torch, {SAMPLE} forward passes, scaled", run, parts=problem.L.n_parameters / SAMPLE)


def sampled(problem: Problem) -> np.ndarray:
    """Return the SAMPLE weights that the loop removes."""
    return np.random.default_rng(0).choice(problem.L.n_parameters, SAMPLE, replace=False)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Missing(f"torch: {error}") from None
    torch.set_num_threads(threads.THREADS)
    return torch


def _parts(torch: Any, problem: Problem) -> tuple[Any, Any, Any, np.ndarray]:
    """Return the model with the parameters of the problem, x, y, and our index of each of torch's parameters (P,)."""
    L, w = problem.L, problem.w
    model = torch.nn.Sequential(*(_module(torch, layer) for layer in L.network.layers))
    model = model.to(torch.float32 if w.dtype == np.float32 else torch.float64)
    order = np.concatenate([p.ravel() for p in _in_torchs_shapes(L, np.arange(len(w)))])
    with torch.no_grad():
        for p, values in zip(model.parameters(), _in_torchs_shapes(L, w), strict=True):
            p.copy_(torch.tensor(values))
    return model, torch.tensor(L.x), torch.tensor(L.y), order


def _in_torchs_shapes(L: Any, w: np.ndarray) -> list[np.ndarray]:
    return [
        np.ascontiguousarray(view.swapaxes(0, 1)) if name.endswith("weight") else view
        for name, view in L.network.layout.unflatten(w).items()
    ]


def _in_our_order(a: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Undo `a = ours[order]` on every axis."""
    out = np.empty_like(a)
    out[np.ix_(*[order] * a.ndim)] = a
    return out


def _module(torch: Any, layer: Any) -> Any:
    kind = type(layer).__name__
    if kind == "Linear":
        return torch.nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)
    if kind == "Conv2d":
        return torch.nn.Conv2d(
            layer.inputs, layer.outputs, layer.kernel, stride=layer.stride, padding=layer.padding, bias=layer.bias
        )
    if kind == "AvgPool2d":
        return torch.nn.AvgPool2d(layer.kernel)
    if kind in ("Tanh", "ReLU", "Flatten"):
        return getattr(torch.nn, kind)()
    raise Missing(f"torch: no counterpart of {layer} is written here")
