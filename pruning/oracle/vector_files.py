"""Vectors: cases with the scores that are right for them, as files that any language can read.

A vector v1/NAME is two files: NAME.json says what the case is and how its scores are defined, NAME.safetensors holds
the numbers, and the first holds the SHA-256 of the second. Nothing is unpickled. What is damaged, or not what
schema.json says, is one ValueError that names the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minimal_nn import checks, memory
from pruning.oracle import schemas
from pruning.oracle.cases import Case
from pruning.oracle.descriptions import from_arrays

if TYPE_CHECKING:
    from pruning.oracle.verification import Verdict

FOLDER = Path(__file__).parent / "vectors"
SET = "v1"
#: what a description of a case consists of, in the JSON of a vector
CASE_FIELDS = ("layers", "loss", "l2", "layout")
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
           "BOOL": "u1"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Vector:
    """A case, the criterion that scores it, and the scores that are right.

    `document` is the JSON; `inputs` are x, y, the parameters and, for movement, trajectory.*, as a foreign
    implementation gets them; `expected` are the scores by the names of the parameters, in the layout of the case.
    """

    document: dict[str, Any]
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    case: Case

    def __repr__(self) -> str:
        return f"Vector({self.name!r}, {self.case.L})"

    @property
    def name(self) -> str:
        """The set, the problem and the criterion: "v1/tanh.obd"."""
        return self.document["name"]

    @property
    def criterion(self) -> str:
        """The criterion's name in pruning.criteria, or "exact"."""
        return self.document["criterion"]

    @property
    def options(self) -> dict[str, Any]:
        """The options with which pruning.criteria gives these scores: damping, k, or the trajectory (T, P)."""
        steps = {key.partition(".")[2]: a for key, a in self.inputs.items() if key.startswith("trajectory.")}
        if not steps:
            return dict(self.document["options"])
        T = len(next(iter(steps.values())))
        rows = [self.case.to_ours({name: a[t] for name, a in steps.items()})[0] for t in range(T)]
        return self.document["options"] | {"trajectory": np.stack(rows)}

    def check(self, scores: Mapping[str, Any]) -> Verdict:
        """Return whether the scores of another implementation are right: see oracle.verification.check."""
        from pruning.oracle.verification import check

        return check(self, scores)

    def assert_matches(self, scores: Mapping[str, Any]) -> None:
        """Raise AssertionError with the diagnosis unless the scores are right; ValueErrors as of `check`."""
        verdict = self.check(scores)
        if verdict.status != "pass":
            raise AssertionError(f"{self.name}\n{verdict.text}")


def vector_names(criterion: str | None = None) -> tuple[str, ...]:
    """Return the names of all vectors, or of those of one criterion, for `load`. ValueError for an unknown one."""
    stems = sorted(path.stem for path in (FOLDER / SET).glob("*.safetensors"))
    if criterion is not None:
        known = dict.fromkeys(stem.rpartition(".")[2] for stem in stems)
        checks.one_of("criterion", criterion, known)
        stems = [stem for stem in stems if stem.rpartition(".")[2] == criterion]
    return tuple(f"{SET}/{stem}" for stem in stems)


def load(name: str) -> Vector:
    """Return the vector of that name, such as "v1/tanh.obd". ValueError for an unknown name or a damaged file."""
    if name not in vector_names():
        raise ValueError(f"name: expected one of vector_names(), such as 'v1/tanh.obd', got {checks.describe(name)}")
    return read_vector(FOLDER / f"{name}.json")


@cache
def separating(one: str, other: str) -> str | None:
    """Return the name of a vector of criterion `one` on a problem where `other` is not a multiple of it, or None."""
    names = set(vector_names())
    for name in sorted((n for n in names if n.endswith(f".{one}")), key=lambda n: (n != f"{SET}/tanh.{one}", n)):
        rival = f"{name.rpartition('.')[0]}.{other}"
        if rival not in names:
            continue
        a, b = (np.concatenate([np.ravel(v) for v in load(n).expected.values()]) for n in (name, rival))
        a, b = a.astype(np.float64), b.astype(np.float64)
        if a.any() and np.abs(b - (a @ b) / (a @ a) * a).max() > 1e-3 * np.abs(b).max():
            return name
    return None


def read_vector(path: Path) -> Vector:
    """Return the vector of a JSON file and the safetensors file beside it, both checked; ValueError as above."""
    path = Path(path)
    document = parse_json(str(path), _bytes_of(path))
    _within_depth(str(path), lambda: schemas.validate(str(path), document, _schema()))
    beside = path.with_suffix(".safetensors")
    data = _bytes_of(beside)
    if (digest := hashlib.sha256(data).hexdigest()) != document["sha256"]:
        raise ValueError(f"{beside}: expected the SHA-256 {document['sha256']} of {path.name}, got {digest}")
    tensors = parse_safetensors(str(beside), data)
    return vector_of(str(path), document, tensors)


def vector_of(where: str, document: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> Vector:
    """Return the vector of a document that fits the schema and of its tensors; ValueError where these do not fit."""
    listed: dict[str, Any] = {one["name"]: one for one in document["tensors"]}
    if set(listed) != set(tensors) or len(listed) < len(document["tensors"]):
        raise ValueError(f"{where}: expected the tensors {sorted(listed)}, once each, got {sorted(tensors)}")
    for name, one in listed.items():
        a = tensors[name]
        if a.dtype != _DTYPES[one["dtype"]] or list(a.shape) != one["shape"]:
            expected = f"{one['dtype']} of shape {tuple(one['shape'])}"
            raise ValueError(f"{where}: expected tensor {name} as {expected}, got {checks.describe(a)}")
        if not np.isfinite(a).all():
            raise ValueError(f"{where}: expected finite numbers in tensor {name}")
    for name, one in listed.items():
        if one["role"] != role_of(name):
            raise ValueError(f"{where}: expected tensor {name} in the role {role_of(name)}, got {one['role']}")
    description = {key: document[key] for key in CASE_FIELDS}
    try:
        given = {name: tensors[name] for name in listed if role_of(name) in ("input", "parameter")}
        case = from_arrays(description, given, document["name"])
        scores = {name.partition(".")[2]: tensors[name] for name in listed if role_of(name) == "scores"}
        case.to_ours(scores, "scores")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
    inputs = {name: tensors[name] for name in listed if role_of(name) != "scores"}
    return Vector(document, inputs, scores, case)


def role_of(name: str) -> str:
    """Return what a tensor of that name is: "input", "trajectory", "scores" or "parameter"."""
    first = name.partition(".")[0]
    return "input" if name in ("x", "y") else first if first in ("trajectory", "scores") else "parameter"


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """Return the scores of a file .npz, .safetensors or .json as arrays by name; ValueError for a damaged file.

    JSON holds an object of nested lists of numbers; with "dtype": "float32" beside them they are what was computed in
    that precision.
    """
    path = Path(path)
    read = {".npz": parse_npz, ".safetensors": parse_safetensors, ".json": _parse_lists}
    checks.one_of(f"{path}: suffix", path.suffix, read)
    return read[path.suffix](str(path), _bytes_of(path))


def parse_json(where: str, data: bytes) -> dict[str, Any]:
    """Return the object of strict JSON in UTF-8: no NaN, no infinity, no name twice, integers of 64 bits."""

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is not a number of JSON")

    def integer(text: str) -> int:
        return int(text) if len(text) < 19 else refuse(text[:30])

    def real(text: str) -> float:
        value = float(text)
        return value if np.isfinite(value) else refuse(text[:30])

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name comes twice in one object")
        return found

    try:
        hooks: dict[str, Any] = {"parse_constant": refuse, "parse_int": integer, "parse_float": real}
        value = _within_depth(where, lambda: json.loads(data.decode(), object_pairs_hook=once, **hooks))
    except ValueError as error:
        raise ValueError(f"{where}: expected JSON, got a damaged or wrong file ({_line(error)})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, got {checks.describe(value)}")
    return value


def parse_safetensors(where: str, data: bytes) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file, read-only; ValueError for a damaged one or an unknown dtype."""
    from safetensors import SafetensorError, deserialize

    try:
        found = deserialize(data)
    except SafetensorError as error:
        raise ValueError(f"{where}: expected a safetensors file, got a damaged one ({_line(error)})") from None
    tensors = {}
    for name, one in found:
        if one["dtype"] not in _DTYPES:
            raise ValueError(f"{where}: expected tensor {name} as one of {', '.join(_DTYPES)}, got {one['dtype']}")
        tensors[name] = np.frombuffer(bytes(one["data"]), _DTYPES[one["dtype"]]).reshape(one["shape"])
        if one["dtype"] == "BOOL":
            tensors[name] = tensors[name] != 0
    return tensors


def parse_npz(where: str, data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an npz archive; ValueError for a damaged one, objects, or more than the memory budget."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > memory.BUDGET:
            raise ValueError(f"unpacks to {size} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return {name: np.asarray(stored[name]) for name in stored.files}
    except Exception as error:  # zipfile, zlib, struct, tokenize and NumPy each have kinds of their own
        raise ValueError(
            f"{where}: expected an npz archive of numbers, got another or a damaged one ({_line(error)})"
        ) from None


def _parse_lists(where: str, data: bytes) -> dict[str, np.ndarray]:
    lists = parse_json(where, data)
    dtype = checks.one_of(f"{where}: dtype", lists.pop("dtype", "float64"), ("float32", "float64"))
    found = {}
    for name, value in lists.items():
        try:
            found[name] = np.asarray(value, np.float64).astype(dtype)
        except (ValueError, TypeError):
            raise ValueError(f"{where}: expected nested lists of numbers, all of one length, in {name}") from None
    return found


def _bytes_of(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > memory.BUDGET:
            raise ValueError(f"{path}: expected a file within the memory budget, got {size} bytes")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from None


def _within_depth(where: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply") from None


def _line(error: Exception) -> str:
    """Return what an error says as one line."""
    return " ".join((str(error) or type(error).__name__).split())[:200]


@cache
def _schema() -> dict[str, Any]:
    return json.loads((FOLDER / SET / "schema.json").read_text(encoding="utf-8"))
