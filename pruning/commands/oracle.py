"""`python -m pruning oracle`: the vectors for other implementations, and what their scores are worth."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from minimal_nn.network import Network
from pruning.commands import options as o
from pruning.compare.tables import columns
from pruning.oracle.vector_files import FOLDER, SET, Vector, load, vector_names
from pruning.oracle.verification import Verdict, verify


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command and its own commands."""
    parser = commands.add_parser(
        "oracle",
        help="vectors with the right scores, and verdicts on the scores of other implementations",
        description="Cases with scores that are right for them, as files for any language, and a check of what another "
        "implementation scored.",
    )
    actions = parser.add_subparsers(metavar="action", required=True)
    action = actions.add_parser("list", help="all vectors, one in a line")
    action.set_defaults(run=run_list)
    action = actions.add_parser("show", help="one vector: network, formula, and the scores that are right")
    action.add_argument("case", metavar="CASE", help="its name, such as v1/tanh.obd")
    action.set_defaults(run=run_show)
    action = actions.add_parser("export", help="write the files of all vectors, with a page on how to read them")
    action.add_argument("folder", metavar="DIR", type=new_folder, help="an existing folder, or one to make")
    action.set_defaults(run=run_export)
    action = actions.add_parser(
        "verify",
        help="compare scores with the vectors",
        description="Read the scores of another implementation from DIR/NAME.npz, .safetensors or .json and print for "
        "each vector v1/NAME pass, fail with a diagnosis, or missing. The exit code is 0 where there are any and all "
        "pass.",
    )
    action.add_argument("folder", metavar="RESULTS_DIR", type=Path, help="the folder with the files")
    action.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of text")
    action.set_defaults(run=run_verify)


def run_list(options: argparse.Namespace) -> int:
    """Print a table of all vectors."""
    rows = [["vector", "N", "P", "loss", "network"]]
    for vector in map(load, vector_names()):
        L = vector.case.L
        rows.append([vector.name, str(L.n_examples), str(L.n_parameters), str(L.loss), _chain(L.network)])
    print(columns(rows))
    return 0


def run_show(options: argparse.Namespace) -> int:
    """Print what a vector says, and its scores."""
    print(shown(load(options.case)))
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Copy the files of all vectors, each whole or not there."""
    sources = [path for inside in (FOLDER, FOLDER / SET) for path in sorted(inside.iterdir()) if path.is_file()]
    (options.folder / SET).mkdir(parents=True, exist_ok=True)
    for source in sources:
        o.replace(options.folder / source.relative_to(FOLDER), partial(shutil.copyfile, source))
    o.say(f"{len(vector_names())} vectors: {options.folder / SET}\nhow to read them: {options.folder / 'README.md'}")
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Print a verdict on every vector; returns 1 where one fails or none is there."""
    verdicts = verify(options.folder)
    if options.as_json:
        print(json.dumps([verdict.to_json() for verdict in verdicts], indent=2, allow_nan=False))
    else:
        print(report(verdicts))
    failed = any(verdict.status == "fail" for verdict in verdicts)
    return int(failed or not any(verdict.status == "pass" for verdict in verdicts))


def report(verdicts: Sequence[Verdict]) -> str:
    """Return one line for each verdict, the diagnosis below what fails, and how many there are of each kind."""
    lines = []
    for verdict in verdicts:
        error = f"  relative error {verdict.error:.2g}" if verdict.status == "pass" else ""
        lines.append(f"{verdict.status:<8}{verdict.name}{error}")
        lines += [f"        {line}" for line in verdict.text.splitlines()]
    counts = [(status, sum(verdict.status == status for verdict in verdicts)) for status in ("pass", "fail", "missing")]
    return "\n".join([*lines, ", ".join(f"{count} {status}" for status, count in counts)])


def shown(vector: Vector) -> str:
    """Return what a vector is: one line for each member of its JSON, then the scores that are right."""
    said, L = vector.document, vector.case.L
    facts = {
        "vector": f"{vector.name}: {said['about']}",
        "criterion": f"{vector.criterion}: {said['formula']['words']}",
        "formula": said["formula"]["math"],
        "source": said["paper"],
        "options": ", ".join(f"{key} = {value}" for key, value in said["options"].items()) or "none",
        "damping": said["damping"],
        "Fisher": said["fisher"],
        "ties": said["tie_rule"],
        "network": _chain(L.network),
        "loss": f"{L.loss}, {said['reduction']}, l2 = {L.l2:g}",
        "data": f"{L.n_examples} examples" + (f", in batches of {b}" if (b := said["batch_size"]) else ""),
        "layout": said["layout"],
        "tolerance": ", ".join(f"{value:g} in {dtype}" for dtype, value in said["tolerance"].items()),
    }
    lines = [f"{key + ':':<11}{value}" for key, value in facts.items()]
    for name, scores in vector.expected.items():
        lines.append(f"scores of {name} {scores.shape}:")
        lines.append(np.array2string(scores, precision=17, floatmode="unique", threshold=10**6, max_line_width=120))
    return "\n".join(lines)


def new_folder(text: str) -> Path:
    """Read the path of a folder that is there or can be made."""
    path = Path(text)
    if not (path.is_dir() or (path.parent.is_dir() and not path.exists())):
        raise argparse.ArgumentTypeError(f"expected a folder, or a new one in a folder that exists, got {text!r}")
    return path


def _chain(network: Network) -> str:
    return ", ".join(map(repr, network.layers))
