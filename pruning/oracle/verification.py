"""Verification: the scores of another implementation on the vectors, each passed, failed and explained, or missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minimal_nn import checks
from pruning import masks
from pruning.oracle import matching
from pruning.oracle.cases import as_array
from pruning.oracle.vector_files import Vector, load, read_scores, vector_names

SUFFIXES = (".npz", ".safetensors", ".json")


@dataclass(frozen=True)
class Verdict:
    """What was found of one vector: "pass", "fail" or "missing".

    `error` is max |theirs − expected| / max |expected| over all scored entries and `tolerance` what was granted, None
    where nothing could be compared; `text` says what is wrong, and `diagnosis` the same as plain objects.
    """

    name: str
    status: str
    error: float | None = None
    tolerance: float | None = None
    text: str = ""
    diagnosis: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain objects of strict JSON; an error beyond the range of float64 is None."""
        error = self.error if self.error is not None and np.isfinite(self.error) else None
        return vars(self) | {"error": error}


def check(vector: Vector, scores: Mapping[str, Any]) -> Verdict:
    """Return whether scores, by the names of the parameters and in the case's layout, are those of the vector.

    float32 or float64 (a mask: of any kind, 0 or 1), all that are scored and no others. The tolerance is the vector's
    own, for the dtype of the scores. ValueError for a tensor that is missing, extra, of a wrong shape or dtype, or not
    finite.
    """
    given = _checked(vector, scores)
    theirs, ours = (np.concatenate([np.ravel(a[name]) for name in vector.expected]) for a in (given, vector.expected))
    if vector.document["returns"] == "mask":
        return _check_mask(vector, given, theirs, ours)
    dtype = "float32" if any(a.dtype == np.float32 for a in given.values()) else "float64"
    tolerance = vector.document["tolerance"][dtype]
    with np.errstate(over="ignore", invalid="ignore"):  # of scores near the end of the range
        error = matching.relative_error(theirs.astype(np.float64), ours)
        if error <= tolerance:
            return Verdict(vector.name, "pass", error, tolerance)
        options = {"tolerance": tolerance, "batch_size": vector.document["batch_size"], **vector.options}
        found = vector.case.diagnose(given, vector.criterion, **options)
    return Verdict(vector.name, "fail", error, tolerance, str(found), found.to_json())


def verify(folder: Path | str) -> tuple[Verdict, ...]:
    """Return a verdict on every vector, from the files NAME.npz, NAME.safetensors or NAME.json of a folder.

    NAME is that of the vector behind the slash; the folder v1 may stand between. A file that cannot be read, does not
    fit, or bears the name of no vector fails, and so does a vector with two files. Nothing is written. ValueError
    where the folder is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"folder: expected a folder of results, got {str(folder)!r}")
    return tuple(_verdicts(_results(folder)))


def _results(folder: Path) -> dict[str, list[Path]]:
    """Return the files of results by the vector they name."""
    found: dict[str, list[Path]] = {}
    for inside in (folder, folder / "v1"):
        for path in sorted(inside.iterdir()) if inside.is_dir() else ():
            if path.suffix in SUFFIXES and not path.name.startswith("."):
                found.setdefault(f"v1/{path.stem}", []).append(path)
    return found


def _verdicts(results: dict[str, list[Path]]) -> Iterator[Verdict]:
    for name in vector_names():
        paths = results.pop(name, [])
        yield _of_files(name, paths) if paths else Verdict(name, "missing")
    for name, paths in results.items():
        yield Verdict(name, "fail", text=f"{paths[0]}: no vector has this name")


def _of_files(name: str, paths: list[Path]) -> Verdict:
    if len(paths) > 1:
        return Verdict(name, "fail", text=f"expected one file, got {', '.join(map(str, paths))}")
    try:
        return check(load(name), read_scores(paths[0]))
    except ValueError as error:
        return Verdict(name, "fail", text=f"{paths[0].name}: {error}")


def _checked(vector: Vector, scores: Mapping[str, Any]) -> dict[str, np.ndarray]:
    if not isinstance(scores, Mapping):
        raise ValueError(f"scores: expected a mapping of names to arrays, got {checks.describe(scores)}")
    missing, extra = sorted(set(vector.expected) - set(scores)), sorted(map(str, set(scores) - set(vector.expected)))
    if missing or extra:
        raise ValueError(f"scores: missing {missing or 'none'}, not expected {extra or 'none'}")
    given = {}
    for name, expected in vector.expected.items():
        a = checks.array(f"scores[{name!r}]", as_array(f"scores[{name!r}]", scores[name]), expected.shape, kinds="fiub")
        if vector.document["returns"] == "scores" and a.dtype.name not in ("float32", "float64"):
            raise ValueError(f"scores[{name!r}]: expected float32 or float64, got {checks.describe(a)}")
        given[name] = a
    return given


def _check_mask(vector: Vector, given: dict[str, np.ndarray], theirs: np.ndarray, ours: np.ndarray) -> Verdict:
    if not np.isin(theirs, (0, 1)).all():
        raise ValueError("scores: expected a mask of entries 0 and 1")
    different = int((theirs != ours).sum())
    if not different:
        return Verdict(vector.name, "pass", 0.0, 0.0)
    said = f"{int((theirs == 0).sum())} removed, {int((ours == 0).sum())} expected, {different} entries differ"
    lines = [f"This is NOT the set of {vector.criterion}: {said}.", *_remarks(vector, given)]
    return Verdict(vector.name, "fail", 1.0, 0.0, "\n".join(lines))


def _remarks(vector: Vector, given: dict[str, np.ndarray]) -> Iterator[str]:
    """Say by which scores, one weight at a time, a mask may have been chosen."""
    case, k = vector.case, vector.options["k"]
    kept = case.mask_of(given, "scores")
    if (~kept == case.mask_of(vector.expected)).all():
        yield "It is inverted: 1 where a weight goes."
    for name in ("exact", "magnitude", "taylor_second", "obd", "taylor", "fisher_empirical"):
        scores, _ = case.to_ours(case.scores(name))
        if (masks.smallest(scores, k / len(kept)) == kept).all():
            yield f"It removes the {k} lowest by {name}, one weight at a time."
