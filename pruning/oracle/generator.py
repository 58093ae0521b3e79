"""`python -m pruning.oracle.generator [DIR]`: compute every vector anew, and write it to DIR or compare it with v1.

What is stored comes from 80 digits, so that every machine writes the same bytes. Nothing is written that float64
does not confirm by other routes: the criteria of this package, and derivatives by the complex step.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minimal_nn import differences
from minimal_nn.objective import Objective
from pruning import criteria, exact
from pruning.exact.naive import reference
from pruning.oracle.cases import Case
from pruning.oracle.descriptions import describe, tensors_in
from pruning.oracle.fifty_digits import Definitions, floats
from pruning.oracle.formulas import FORMULAS, REDUCTION
from pruning.oracle.problems import PROBLEMS, Problem, trajectory_of
from pruning.oracle.vector_files import FOLDER, SET, role_of

VERSION = 1
_STORED = "definition in 80 digits: plain loops, central differences, dense inverses (pruning.oracle.fifty_digits)"
_DTYPE_NAMES = {"<f8": "F64", "<i8": "I64"}


def files(problem: Problem) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of both files of every vector of a problem. ArithmeticError where routes disagree."""
    L, w = problem.objective()
    definitions = Definitions(L, w)
    routes = _derivatives_agree(problem, definitions)
    for criterion in problem.criteria:
        options = problem.options(criterion)
        if criterion == "movement":
            options = {"trajectory": trajectory_of(w)}
        scores = floats(getattr(definitions, criterion)(**options))
        confirmed = [*_scores_agree(problem, L, w, criterion, options, scores), *_needed(criterion, routes)]
        arrays = _tensors(problem, L, w, options, scores)
        data = safetensors_bytes(arrays)
        document = _document(problem, criterion, arrays, hashlib.sha256(data).hexdigest(), confirmed)
        stem = f"{problem.name}.{criterion}"
        yield f"{stem}.json", json_bytes(document)
        yield f"{stem}.safetensors", data


def _scores_agree(
    problem: Problem, L: Objective, w: np.ndarray, criterion: str, options: dict[str, Any], scores: np.ndarray
) -> list[dict[str, Any]]:
    if criterion == "exact":
        found = {
            "float64, structured (pruning.exact.saliency)": exact.saliency(L, w),
            "float64, one forward pass for each weight (pruning.exact.naive)": reference(L, w),
        }
    else:
        by = criteria.REGISTRY[criterion].function(L, w, **options)
        found = {f"float64, derivatives by hand (pruning.criteria.{criterion})": by}
    for route, other in found.items():
        _agree(f"{problem.name}, {criterion}, {route}", np.asarray(other, float), scores, problem.within)
    return [{"what": "scores", "route": route, "within": problem.within} for route in found]


def _derivatives_agree(problem: Problem, definitions: Definitions) -> dict[str, dict[str, Any]]:
    """Compare gradients of examples and the Hessian with the complex step; return the routes by what they give."""
    L, w = problem.objective()
    alone = [differences.complex_step_gradient(L.subset([n]), w) - L.l2 * w for n in range(L.n_examples)]
    pairs = {
        "gradients": (np.stack(alone), floats(definitions.rows), "gradient of every example"),
        "Hessian": (differences.complex_step_hessian(L, w), None, "Hessian"),
    }
    needs = {need for criterion in problem.criteria for need in _needs(criterion)}
    routes = {}
    for need, (found, known, said) in pairs.items():
        if need in needs:
            expected = floats(definitions.hessian) if known is None else known
            _agree(f"{problem.name}, {said}", found, expected, 1e-12)
            routes[need] = {"what": said, "route": "float64, complex step", "within": 1e-12}
    return routes


def _needs(criterion: str) -> tuple[str, ...]:
    return () if criterion == "exact" else criteria.REGISTRY[criterion].needs


def _needed(criterion: str, routes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [route for need, route in routes.items() if need in _needs(criterion)]


def _agree(where: str, found: np.ndarray, known: np.ndarray, within: float) -> None:
    finite = np.isfinite(known)
    if not np.array_equal(finite, np.isfinite(found)):
        raise ArithmeticError(f"{where}: not finite in other places")
    error, largest = np.abs(found[finite] - known[finite]).max(), np.abs(known[finite]).max()
    if not error <= within * (largest or 1e-3):
        raise ArithmeticError(f"{where}: differs by {error:.3g} from 80 digits, where the largest is {largest:.3g}")


def _tensors(
    problem: Problem, L: Objective, w: np.ndarray, options: dict[str, Any], scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Return every tensor by its name, little-endian and contiguous."""
    case = Case(L, w, tensors_in(L.network, problem.layout))
    _, arrays = describe(case, problem.layout)
    steps = [case.to_foreign(at) for at in options.get("trajectory", ())]
    for name in case.parameters if steps else ():
        arrays[f"trajectory.{name}"] = np.stack([step[name] for step in steps])
    for name, a in case.to_foreign(scores).items():
        if np.isfinite(a).all():
            arrays[f"scores.{name}"] = a
        elif np.isfinite(a).any():
            raise ArithmeticError(f"{problem.name}: only some entries of {name} have a finite score")
    return {name: np.ascontiguousarray(a, "<i8" if a.dtype.kind == "i" else "<f8") for name, a in arrays.items()}


def _document(
    problem: Problem,
    criterion: str,
    arrays: dict[str, np.ndarray],
    sha256: str,
    confirmed: list[dict[str, Any]],
) -> dict[str, Any]:
    L, w = problem.objective()
    description, _ = describe(Case(L, w, tensors_in(L.network, problem.layout)), problem.layout)
    formula = FORMULAS[criterion]
    document = {
        "format": "pruning-oracle-vector-1",
        "name": f"{SET}/{problem.name}.{criterion}",
        "about": problem.about,
        "criterion": criterion,
        "returns": "mask" if criterion == "combinatorial" else "scores",
        "options": problem.options(criterion),
        **description,
        "batch_size": problem.batch_size,
        "formula": {"words": formula.words, "math": formula.math},
        "paper": formula.paper,
        "reduction": REDUCTION,
        "fisher": formula.fisher,
        "damping": formula.damping,
        "tie_rule": formula.ties,
        "relu_derivative_at_zero": 0,
        "tolerance": dict(zip(("float32", "float64"), problem.tolerance, strict=True)),
        "tensors": [
            {"name": name, "role": role_of(name), "dtype": _DTYPE_NAMES[a.dtype.str], "shape": list(a.shape)}
            for name, a in arrays.items()
        ],
        "sha256": sha256,
        "provenance": [{"what": "scores", "route": _STORED, "within": 0}, *confirmed],
        "generator": {"name": "pruning.oracle.generator", "version": VERSION},
    }
    return document | ({"plain": {name: a.tolist() for name, a in arrays.items()}} if problem.plain else {})


def json_bytes(document: dict[str, Any]) -> bytes:
    """Return an object as strict JSON, one member in a line."""
    members = (f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in document.items())
    return ("{\n" + ",\n".join(members) + "\n}\n").encode()


def safetensors_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """Return a safetensors file: the length of a JSON header as 8 bytes, the header, the numbers, little-endian."""
    header, start = {}, 0
    for name, a in arrays.items():
        stop = start + a.nbytes
        header[name] = {"dtype": _DTYPE_NAMES[a.dtype.str], "shape": list(a.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in arrays.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Compute all vectors; returns 1 where one of v1 is not what is computed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    different = []
    for problem in PROBLEMS:
        for name, content in files(problem):
            path = Path(arguments[0] if arguments else FOLDER / SET, name)
            if arguments:
                path.write_bytes(content)
            elif not path.is_file() or path.read_bytes() != content:
                different.append(name)
        print(problem.name, flush=True)
    print(f"{len(different)} files differ from {SET}: {', '.join(different)}" if different else "done")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
