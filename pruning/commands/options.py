"""What the commands share: options with one-line errors, files that are whole or not there, and a voice."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from pruning.models import ACTIVATIONS, DATASETS, Recipe

FIGURE_FORMATS = (".png", ".svg", ".pdf")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print the message without the usage, and exit with code 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def add(parser: argparse.ArgumentParser, name: str, value: object, metavar: str, meaning: str, **kind: Any) -> None:
    """Add an option whose help names its default."""
    default = "" if value is None else f" (default: {value})"
    parser.add_argument(name, default=value, metavar=metavar, help=meaning + default, **kind)


def add_network(parser: argparse.ArgumentParser, default: Recipe) -> None:
    """Add the options that say what is trained."""
    add(parser, "--dataset", default.dataset, "NAME", f"one of {', '.join(DATASETS)}", choices=DATASETS)
    add(parser, "--hidden", "20", "WIDTHS", "widths of the hidden layers, such as 20 or 30,20", type=widths)
    add(parser, "--activation", default.activation, "NAME", f"one of {', '.join(ACTIVATIONS)}", choices=ACTIVATIONS)
    add(parser, "--seed", default.seed, "N", "seed of the start, of batches and of random halves", type=natural)
    parser.add_argument("--no-cache", action="store_true", help="train anew, and leave the cache alone")


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place: the whole file or none of it."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def say(text: str) -> None:
    """Tell the person at the terminal, not the table."""
    print(text, file=sys.stderr)


def natural(text: str, least: int = 0) -> int:
    """Read an integer that is not below `least`."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected an integer >= {least}, got {text!r}")
    return value


def positive(text: str) -> int:
    """Read an integer >= 1."""
    return natural(text, least=1)


def widths(text: str) -> tuple[int, ...]:
    """Read widths such as 30,20."""
    try:
        return tuple(positive(part) for part in text.split(","))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected widths >= 1 such as 20 or 30,20, got {text!r}") from None


def file(text: str) -> Path:
    """Read the path of a file that can be written."""
    path = Path(text)
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a file in an existing folder that can be written to, got {text!r}")
    return path


def figure(text: str) -> Path:
    """Read the path of a figure that can be written, of a known format."""
    path = file(text)
    if path.suffix.lower() not in FIGURE_FORMATS:
        raise argparse.ArgumentTypeError(f"expected a name that ends in {', '.join(FIGURE_FORMATS)}, got {text!r}")
    return path
