"""`python -m pruning compare`: every criterion beside the exact saliency of a trained network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from minimal_nn.objective import Objective
from pruning import plots
from pruning.commands import options as o
from pruning.compare.tables import columns
from pruning.criteria.base import REGISTRY
from pruning.criteria.fishers import largest_block
from pruning.models import Recipe, trained
from pruning.scoreboard import (
    STANDARD,
    WITH_INVERSE_HESSIAN,
    Scoreboard,
    chosen_criteria,
    scoreboard,
    sufficient_damping,
    unavailable,
)

LARGEST_FOR_OBS = 5000  #: parameters; the inverse of a larger Hessian takes minutes and gigabytes


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command."""
    default = Recipe()
    parser = commands.add_parser(
        "compare",
        help="every criterion beside the exact saliency of a trained network",
        description="Train a small multilayer perceptron (or read it from the cache), compute the exact saliency of "
        "every weight and the criteria, print a table to standard output and draw a figure.",
    )
    parser.set_defaults(run=run)
    o.add_network(parser, default)
    o.add(parser, "--examples", default.examples, "N", "how many training examples to use, at most", type=o.positive)
    o.add(parser, "--steps", default.steps, "N", "training steps of full-batch Adam", type=o.natural)
    o.add(parser, "--criteria", ",".join(STANDARD), "NAMES", "criteria of --list, with commas", type=criteria)
    parser.add_argument("--list", action="store_true", help="print the table of all criteria and exit")
    o.add(
        parser, "--figure", Path("compare.png"), "PATH", "where to draw the figure: .png, .svg or .pdf", type=o.figure
    )
    o.add(parser, "--json", None, "PATH", "where to write the table as JSON; not written unless given", type=o.file)


def run(options: argparse.Namespace) -> int:
    """Run it; returns the exit code."""
    if options.list:
        print(registry())
        return 0
    recipe = Recipe(options.dataset, options.hidden, options.activation, options.seed, options.examples, options.steps)
    L = recipe.objective()
    w, cached = trained(recipe, L, cache=not options.no_cache)
    o.say(f"{L.network} {'read from the cache' if cached else f'trained for {recipe.steps} steps'}")
    damping, names = None, list(dict.fromkeys(options.criteria))
    damped = [name for name in names if name in WITH_INVERSE_HESSIAN]
    if damped and L.n_parameters <= LARGEST_FOR_OBS:
        damping = sufficient_damping(L, w)
    halves, random = np.random.default_rng(options.seed).spawn(2)
    if damping is None:
        names = [name for name in names if name not in damped]
    most = largest_block(L, w)
    block = most if L.n_parameters > most else None
    scorers = chosen_criteria(names, random, damping or 0.0, block)
    board = scoreboard(L, w, scorers, rng=halves, progress=lambda name: o.say(f"scoring {name}"))
    heading = _heading(board, recipe, L, damped, damping)
    if block and "woodfisher" in names:
        heading += f"\nwoodfisher: blocks of at most {block} weights of a layer"
    print(heading, board, sep="\n\n")
    o.replace(options.figure, lambda path: plots.save(plots.against_exact({"": board}), path))
    o.say(f"figure: {options.figure}")
    if options.json:
        text = json.dumps(board.to_json(), indent=2, allow_nan=False) + "\n"
        o.replace(options.json, lambda path: path.write_text(text))
        o.say(f"table:  {options.json}")
    return 0


def criteria(text: str) -> tuple[str, ...]:
    """Read names of criteria such as obd,magnitude that can be scored from a trained network alone."""
    names = tuple(text.split(","))
    for name in names:
        if reason := unavailable(name):
            raise argparse.ArgumentTypeError(f"{name!r} {reason}")
    return names


def registry() -> str:
    """Return the criteria, one in a line: name, family, cost, what it needs besides w, and why it is not for here."""
    lines = [["name", "family", "cost", "needs", "with --criteria"]]
    for e in REGISTRY.values():
        lines.append([e.name, e.family, e.cost, ", ".join(e.needs) or "–", unavailable(e.name) or "yes"])
    return columns(lines)


def _heading(board: Scoreboard, recipe: Recipe, L: Objective, damped: list[str], damping: float | None) -> str:
    weights = int(L.network.layout.select("weight").sum())
    candidates = int(board.among.sum())
    obs = f"left out above {LARGEST_FOR_OBS} parameters" if damping is None else f"damping {damping:.2g}"
    return (
        f"{recipe.dataset}: {L.network}, N = {L.n_examples}, l2 = {recipe.l2:g}, loss {board.loss:.4g}\n"
        f"{candidates} candidates: {weights} weights without the {weights - candidates} whose input is always zero\n"
        "overlap: share of the lowest 20 % in common with the exact saliency; loss -p: after removing p\n"
        "half_against_half: the exact saliency on one random half of the examples against the other"
    ) + "".join(f"\n{name}: {obs}" for name in damped)
