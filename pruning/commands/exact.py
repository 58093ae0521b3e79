"""`python -m pruning exact`: the exact saliency of every parameter of a trained network, by layer."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from minimal_nn.objective import Objective
from pruning import plots
from pruning.commands import options as o
from pruning.exact.structured import routes, saliency
from pruning.models import MODELS, Recipe, trained

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99)


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    default = Recipe(steps=1500, batch_size=100)
    parser = commands.add_parser(
        "exact",
        help="the exact saliency of every parameter of a trained network",
        description="Train a network (or read it from the cache), compute the exact saliency of every parameter on its "
        "first training examples, print its quantiles by layer, and save it as .npz and as a figure.",
    )
    parser.set_defaults(run=run)
    o.add(parser, "--model", "mlp", "NAME", f"one of {', '.join(MODELS)}; mlp has widths --hidden", choices=MODELS)
    o.add_network(parser, default)
    o.add(parser, "--train-examples", 20_000, "N", "how many examples to train on, at most", type=o.positive)
    o.add(parser, "--steps", default.steps, "N", "training steps of Adam", type=o.natural)
    o.add(parser, "--batch-size", default.batch_size, "N", "examples of one step", type=o.positive)
    o.add(parser, "--examples", 1000, "N", "how many examples the saliency is a mean over, at most", type=o.positive)
    o.add(parser, "--output", Path("exact.npz"), "PATH", "where to save the saliency (P,) and the weights", type=o.file)
    o.add(parser, "--figure", Path("exact.png"), "PATH", "where to draw the figure: .png, .svg or .pdf", type=o.figure)
    o.add(parser, "--checkpoint", None, "PATH", "keep finished pieces there, and go on from them", type=o.file)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    recipe = Recipe(
        dataset=options.dataset,
        hidden=options.hidden,
        activation=options.activation,
        seed=options.seed,
        examples=options.train_examples,
        steps=options.steps,
        model=options.model,
        batch_size=options.batch_size,
    )
    training = recipe.objective()
    w, cached = trained(recipe, training, cache=not options.no_cache)
    o.say(f"{training.network} {'read from the cache' if cached else f'trained for {recipe.steps} steps'}")
    L = training.subset(slice(0, options.examples))
    start = time.perf_counter()
    s = saliency(L, w, checkpoint=options.checkpoint, progress=sys.stderr.isatty())
    seconds = time.perf_counter() - start
    print(_heading(recipe, L, w, seconds), table(L, s), sep="\n\n")
    o.replace(options.output, lambda path: _save(path, L, w, s))
    o.replace(options.figure, lambda path: _draw(path, L, s))
    o.say(f"saliency: {options.output}\nfigure:   {options.figure}")
    return 0


def _heading(recipe: Recipe, L: Objective, w: np.ndarray, seconds: float) -> str:
    by = ", ".join(f"{count} by {route}" for route, count in routes(L.network).items())
    return (
        f"{recipe.dataset}: {L.network}, N = {L.n_examples}, l2 = {L.l2:g}, loss {L(w):.4g}\n"
        f"exact saliency of {L.n_parameters} parameters in {seconds:.2f} s: {by}"
    )


def table(L: Objective, s: np.ndarray) -> str:
    """Return one line for each tensor of w: how many, their share of Σ|s|, the mean of |s|, and quantiles of s."""
    columns = ["min", *(f"{q:.0%}" for q in QUANTILES), "max"]
    lines = [f"{'tensor':<10} {'count':>8} {'share':>7} {'mean |s|':>10} " + " ".join(f"{c:>10}" for c in columns)]
    total = np.abs(s).sum() or 1.0
    for name in L.network.layout:
        part = s[L.network.layout[name]]
        share, mean = np.abs(part).sum() / total, np.abs(part).mean()
        numbers = [part.min(), *np.quantile(part, QUANTILES), part.max()]
        row = f"{name:<10} {len(part):>8} {share:>7.1%} {mean:>10.2e} "
        lines.append(row + " ".join(f"{number:>10.2e}" for number in numbers))
    return "\n".join(lines)


def _save(path: Path, L: Objective, w: np.ndarray, s: np.ndarray) -> None:
    parts = L.network.layout.unflatten(s)
    arrays: dict[str, Any] = {"saliency": s, "w": w} | {f"saliency.{name}": part for name, part in parts.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _draw(path: Path, L: Objective, s: np.ndarray) -> None:
    layout = L.network.layout
    plots.save(plots.by_layer({name: s[layout[name]] for name in layout if name.endswith("weight")}), path)
