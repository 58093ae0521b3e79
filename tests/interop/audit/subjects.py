"""What the audited libraries are handed: small networks, a trained digits net, and how masks of units are costed."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import itertools
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from minimal_nn import datasets
from pruning import exact, masks, oracle

#: the distributions and versions that FINDINGS.md speaks of
AUDITED = {
    "torch": "2.13.0",
    "torch-pruning": "1.6.1",
    "torchao": "0.18.0",
    "nni": "3.0",
    "curvlinops-for-pytorch": "3.0.1",
    "backpack-for-pytorch": "1.7.1",
}
SPARSITIES = (0.1, 0.3, 0.5, 0.7, 0.9)


class NotAudited(Exception):
    """A library is missing, or another version than the audited one is installed."""


def audited(distribution: str, module: str) -> Any:
    """Return a module of an audited distribution, NotAudited where it is missing or of another version."""
    try:
        found = importlib.metadata.version(distribution).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        raise NotAudited(f"{distribution} is not installed") from None
    if found != AUDITED[distribution]:
        raise NotAudited(f"{distribution} {found} is installed, {AUDITED[distribution]} was audited")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def mlp(*sizes: int, norm: bool = False, seed: int = 0) -> Any:
    """Return a ReLU network of these sizes in float64, in eval mode; `norm` has a batch norm before every ReLU."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    layers: list[Any] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        if i < len(sizes) - 2:
            layers += [_drawn_norm(nn.BatchNorm1d(b))] if norm else []
            layers.append(nn.ReLU())
    return nn.Sequential(*layers).double().eval()


def data(n: int, inputs: int, classes: int, seed: int = 1) -> tuple[Any, Any]:
    """Return n examples (n, inputs) in float64, of unequal scales by input, and labels (n,)."""
    import torch

    torch.manual_seed(seed)
    return (torch.randn(n, inputs) * torch.linspace(0.2, 3, inputs)).double(), torch.randint(0, classes, (n,))


def tiny() -> tuple[Any, Any, Any, oracle.Case]:
    """Return a network of 45 parameters, 5 examples, and their case: small enough for every diagnosis."""
    import torch

    model, (x, y) = mlp(3, 6, 3), data(5, 3, 3)
    return model, x, y, oracle.from_torch(model, torch.nn.CrossEntropyLoss(), x, y)


def backward(model: Any, x: Any, y: Any) -> None:
    """Fill the gradients with those of the mean cross-entropy of these examples."""
    import torch

    model.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()


@functools.cache
def _trained(kind: str) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    if kind == "mlp":
        model = nn.Sequential(
            nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 10)
        )  # fmt: skip
    else:
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
    model = model.double()
    x, y = digits(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(100 if kind == "mlp" else 60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


@functools.cache
def digits(kind: str) -> tuple[Any, Any]:
    """Return 400 images of digits and their labels, as vectors for "mlp" and as images for "cnn"."""
    import torch

    found = datasets.digits(images=kind == "cnn")
    return torch.tensor(found.x_train[:400]), torch.tensor(found.y_train[:400])


def trained(kind: str) -> tuple[Any, Any, Any]:
    """Return a fresh copy of the trained digits net ("mlp" 64-24-20-10, "cnn" with batch norms), and its data."""
    return copy.deepcopy(_trained(kind)), *digits(kind)


@functools.cache
def trained_case(kind: str) -> oracle.Case:
    """Return the case of the trained digits net on its own training images."""
    import torch

    model, x, y = trained(kind)
    return oracle.from_torch(model, torch.nn.CrossEntropyLoss(), x, y)


def unit_scores(tp: Any, model: Any, importance: Any, layers: Iterable[str], x: Any) -> dict[str, np.ndarray]:
    """Return torch-pruning's importance of every output unit of these layers."""
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=x[:2])
    scores = {}
    for name in layers:
        layer = model.get_submodule(name)
        convolution = type(layer).__name__ == "Conv2d"
        remove = tp.prune_conv_out_channels if convolution else tp.prune_linear_out_channels
        every = list(range(layer.out_channels if convolution else layer.out_features))
        scores[name] = importance(graph.get_pruning_group(layer, remove, every)).detach().double().numpy()
    return scores


def without_units(case: oracle.Case, gone: Mapping[str, Iterable[int]]) -> np.ndarray:
    """Return the mask over w without all that feeds these units, their batch norm too: behind ReLU they are 0."""
    keep = np.ones(len(case.w), bool)
    known = {tensor.name for tensor in case.tensors}
    for layer, units in gone.items():
        following = f"{int(layer) + 1}"
        for name in (f"{layer}.weight", f"{layer}.bias", f"{following}.weight", f"{following}.bias"):
            if name in known:
                keep[case.index_of(name)[list(units)]] = False
    return keep


def lowest_units(scores: Mapping[str, np.ndarray], sparsity: float, local: bool = False) -> dict[str, list[int]]:
    """Return the units of lowest score, by layer: this share of all units, or of each layer's."""
    if local:
        return {name: np.flatnonzero(~masks.smallest(own, sparsity)).tolist() for name, own in scores.items()}
    keep = masks.smallest(np.concatenate(list(scores.values())), sparsity)
    parts = np.split(keep, np.cumsum([len(own) for own in scores.values()])[:-1])
    return {name: np.flatnonzero(~part).tolist() for name, part in zip(scores, parts, strict=True)}


def pruned_units(before: Any, after: Any, layers: Iterable[str]) -> dict[str, list[int]]:
    """Return which output units of each layer a structural pruner took out, found by the weights that are left.

    The inputs of a later layer shrink too, so that rows are told apart by their biases, which must differ.
    """
    gone = {}
    for name in layers:
        old = before.get_submodule(name).bias.detach().numpy()
        left = after.get_submodule(name).bias.detach().numpy()
        if len(np.unique(old)) != len(old):
            raise ValueError(f"{name}: two units have the same bias")
        gone[name] = np.flatnonzero(~np.isin(old, left)).tolist()
    return gone


def regret(case: oracle.Case, theirs: np.ndarray, ours: np.ndarray) -> float:
    """Return L(w ∘ theirs) − L(w ∘ ours) of two masks over w."""
    losses = exact.losses(case.L, case.w, np.array([theirs, ours]))
    return float(losses[0] - losses[1])


def regrets_of_units(
    case: oracle.Case, theirs: Mapping[str, np.ndarray], ours: Mapping[str, np.ndarray], local: bool = False
) -> list[float]:
    """Return the regret of following their scores of units instead of ours, at every sparsity."""
    return [
        regret(case, *(without_units(case, lowest_units(scores, p, local)) for scores in (theirs, ours)))
        for p in SPARSITIES
    ]


def _drawn_norm(norm: Any) -> Any:
    """Fill a batch norm with statistics and parameters that are all different."""
    import torch

    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    return norm
