"""The vectors: what they say, whose scores they are, that they tell criteria apart, and that no file does harm."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
import shutil
import subprocess
import zipfile

import jsonschema
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimal_nn import ReLU, curvature
from pruning import criteria
from pruning.oracle import generator, schemas, vector_files
from pruning.oracle.formulas import FORMULAS
from pruning.oracle.matching import relative_error
from pruning.oracle.problems import PROBLEMS
from pruning.oracle.vector_files import (
    FOLDER,
    load,
    parse_json,
    parse_npz,
    parse_safetensors,
    read_scores,
    read_vector,
    vector_names,
    vector_of,
)
from pruning.oracle.verification import check, verify
from tests.cases import assert_close

V1 = FOLDER / "v1"
NAMES = vector_names()
SCHEMA = json.loads((V1 / "schema.json").read_text())
#: of every file of v1 but for line ends, in order of their names: a released set never changes
RELEASED = "a4a15c89fe016f62e3f232bf52e1a37413ff658395a3d11fd34de14086b13e3c"
#: the criteria that return the same with the same arguments
DETERMINISTIC = {"exact", *criteria.REGISTRY} - {"random", "fisher_sampled"}
#: pairs that only a factor tells apart, on every case
IDENTITIES = {frozenset(("taylor_squared", "fisher_empirical")), frozenset(("taylor", "snip"))}


@pytest.fixture(scope="module")
def every():
    return {name: load(name) for name in NAMES}


def flat(scores):
    return np.concatenate([np.ravel(a) for a in scores.values()])


def ours(vector, dtype=np.float64):
    """The scores of this package on the vector, in the layout of the case."""
    case = vector.case
    if vector.criterion == "exact":
        found = case.exact()
    else:
        function = criteria.REGISTRY[vector.criterion].function
        options = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in vector.options.items()}
        found = case.to_foreign(function(case.L, case.w.astype(dtype), **options))
    return {name: found[name].astype(dtype) for name in vector.expected}


def test_a_released_set_never_changes():
    digest = hashlib.sha256()
    for path in sorted(V1.iterdir()):
        content = path.read_bytes()
        content = content.replace(b"\r\n", b"\n") if path.suffix == ".json" else content
        digest.update(f"{path.name} {hashlib.sha256(content).hexdigest()}\n".encode())
    assert digest.hexdigest() == RELEASED, "v1 is released: put what is new into v2"


def test_the_set_is_what_its_page_says(every):
    page = (FOLDER / "README.md").read_text()
    vectors, problems, many = map(
        int, re.search(r"(\d+) vectors, that is (\d+) small .* by (\d+) criteria", page).groups()
    )
    assert (vectors, problems, many) == (len(NAMES), len(PROBLEMS), len({v.criterion for v in every.values()}))
    assert vectors >= 60
    assert {v.criterion for v in every.values()} == set(FORMULAS) == DETERMINISTIC
    names = {f"v1/{p.name}.{c}" for p in PROBLEMS for c in p.criteria}
    assert set(NAMES) == names
    assert {path.name for path in V1.iterdir()} == {"schema.json"} | {
        f"{name.removeprefix('v1/')}{suffix}" for name in names for suffix in (".json", ".safetensors")
    }
    (odd,) = re.findall(r"something odd: ([^#]+)#", page)
    assert set(re.findall(r"`([a-z-]+)`", odd)) <= {p.name for p in PROBLEMS}
    assert sum(path.stat().st_size for path in V1.iterdir()) < 1_500_000


def test_every_description_fits_the_schema_and_the_tensors_are_what_it_says(every):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    validator = jsonschema.Draft202012Validator(SCHEMA)
    for name, vector in every.items():
        path = FOLDER / f"{name}.json"
        document = json.loads(path.read_text())
        validator.validate(document)
        data = path.with_suffix(".safetensors").read_bytes()
        assert hashlib.sha256(data).hexdigest() == document["sha256"]
        stored = safetensors.numpy.load(data)
        assert [*vector.inputs, *(f"scores.{k}" for k in vector.expected)] == [t["name"] for t in document["tensors"]]
        start = 8 + int.from_bytes(data[:8], "little")
        for one in document["tensors"]:  # one behind the other, as the page promises to readers without a JSON parser
            a = stored[one["name"]]
            assert data[start : start + a.nbytes] == a.tobytes()
            start += a.nbytes
            assert (a == (vector.inputs | {f"scores.{k}": v for k, v in vector.expected.items()})[one["name"]]).all()
        assert start == len(data)
        assert ("plain" in document) == name.startswith("v1/tiny-")
        for key, lists in document.get("plain", {}).items():
            assert (np.array(lists) == stored[key]).all()
            assert np.shape(lists) == stored[key].shape
        assert {route["within"] for route in document["provenance"][1:]} <= {1e-12, 1e-11, 1e-10}
        assert len(document["provenance"]) >= 2


def test_this_package_gives_every_score(every):
    for vector in every.values():
        within = document_within(vector)
        assert_close(flat(ours(vector)), flat(vector.expected), within, scale=1e-3 * within)
        assert check(vector, ours(vector)).status == "pass"


def document_within(vector):
    return vector.document["provenance"][1]["within"]


def test_right_scores_in_float32_pass(every):
    """By the package's own float32 path, and by rounding what is right; movement's gradients are taken in float64."""
    for vector in every.values():
        if vector.document["returns"] == "scores":
            rounded = {name: a.astype(np.float32) for name, a in vector.expected.items()}
            assert check(vector, rounded).status == "pass", vector
            verdict = check(vector, ours(vector, np.float32))
            assert verdict.status == "pass", (vector, verdict.error)
            assert verdict.tolerance == vector.document["tolerance"]["float32"]


def test_the_generator_writes_the_same_bytes_again():
    """The tiny problems here; python -m pruning.oracle.generator does all of them."""
    for problem in PROBLEMS:
        if problem.plain:
            for name, content in generator.files(problem):
                assert (V1 / name).read_bytes() == content


def test_every_pair_of_criteria_is_separated_by_some_case(every):
    by_problem = {}
    for name, vector in every.items():
        whole = vector.case.to_ours(vector.expected)  # unscored tensors count as 0 for this
        by_problem.setdefault(name.rpartition(".")[0], {})[vector.criterion] = whole[0]
    apart, by_value = set(), set()
    for scores in by_problem.values():
        for a, b in itertools.combinations(scores, 2):
            x, y = scores[a], scores[b]
            factor = x @ y / (y @ y) if y.any() else 0.0
            pair = frozenset((a, b))
            if min(relative_error(factor * y, x), relative_error(x, y)) > 1e-3:
                apart.add(pair)
            if relative_error(x, y) > 1e-3:
                by_value.add(pair)
    pairs = {frozenset(pair) for pair in itertools.combinations(DETERMINISTIC, 2)}
    assert pairs - apart == IDENTITIES, "a factor apart on every case"
    assert pairs == by_value


def test_the_odd_problems_are_as_odd_as_they_say(every):
    kinks = {}
    for problem in PROBLEMS:
        L, w = problem.objective()
        trace = L.network.trace(w, L.x)
        relu = [np.abs(before).min() for layer, before in zip(L.network.layers, trace, strict=False) if layer == ReLU()]
        kinks |= {problem.name: min(relu)} if relu else {}
        sizes = [np.sort(np.abs(w[L.network.layout[name]])) for name in L.network.layout]
        tied = min((np.diff(a).min() for a in sizes if len(a) > 1), default=1)
        assert (tied == 0) == (problem.name in ("tiny-ties", "tiny-relu-at-zero")), problem.name
        assert (L.x.astype(np.float32) == L.x).all()
        assert (w.astype(np.float32) == w).all()
        if problem.name == "overflowing":
            with np.errstate(over="ignore"):
                assert np.isinf(np.exp(trace[-1])).any()
        if problem.name == "relu-dead-unit":
            assert (trace[1][:, 0] < 0).all()
        if problem.name == "tiny-near-singular":
            assert np.linalg.cond(curvature.hessian(L, w)) > 1e4
        if problem.name == "unequal-batches":
            b, rows = problem.batch_size, L.per_example_gradients(w)
            means = np.mean([rows[s : s + b].mean(axis=0) for s in range(0, problem.n, b)], axis=0)
            assert np.abs(means - rows.mean(axis=0)).max() > 0.1 * np.abs(rows.mean(axis=0)).max()
    assert kinks.pop("tiny-relu-at-zero") == 0
    assert min(kinks.values()) > 1e-3
    obd, fisher = (flat(every[f"v1/relu.{name}"].expected) for name in ("obd", "fisher"))
    assert_close(obd, fisher, 1e-15)
    assert relative_error(*(flat(every[f"v1/tanh.{name}"].expected) for name in ("obd", "fisher"))) > 0.1


SLIPS = {
    "half of it": lambda v: {k: a / 2 for k, a in v.expected.items()},
    "the other sign": lambda v: {k: -a for k, a in v.expected.items()},
    "one entry off by a thousandth": lambda v: {
        k: np.where(np.abs(a) == np.abs(flat(v.expected)).max(), 1.001 * a, a) for k, a in v.expected.items()
    },
    "float32 said to be float64": lambda v: {k: a.astype(np.float32).astype(float) for k, a in v.expected.items()},
}


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("name", ["v1/tiny-tanh.fisher", "v1/tanh.movement", "v1/batch-norm.wanda"])
def test_wrong_scores_fail_with_a_diagnosis(name, slip, every):
    vector = every[name]
    verdict = check(vector, SLIPS[slip](vector))
    assert verdict.status == "fail"
    assert verdict.text.startswith(f"This is NOT {vector.criterion}")
    assert verdict.diagnosis["claims"].startswith(vector.criterion)
    if slip == "half of it":
        assert f"It is {vector.criterion}, times ½" in verdict.text
        with pytest.raises(AssertionError, match=rf"(?s){name}.*This is NOT {vector.criterion}"):
            vector.assert_matches(SLIPS[slip](vector))


def test_batches_that_are_averaged_unequally_are_named(every):
    vector = every["v1/unequal-batches.taylor"]
    case, b = vector.case, vector.document["batch_size"]
    means = [case.L.subset(slice(s, s + b)).gradient(case.w) for s in range(0, 7, b)]
    verdict = check(vector, case.to_foreign(np.abs(np.mean(means, axis=0) * case.w)))
    assert "It is taylor averaged over batches of unequal size as if they were equal (3)" in verdict.text


def test_a_wrong_history_is_named(every):
    vector = every["v1/tanh.movement"]
    case, steps = vector.case, vector.options["trajectory"]
    last = case.to_foreign(-steps[-1] * case.L.gradient(steps[-1]))
    assert "It is −g_j w_j of the last step only" in check(vector, last).text


def test_scores_at_the_ends_of_the_range_fail_quietly(every):
    vector = every["v1/tiny-interpolated.fisher_empirical"]
    mixed = [0, 1.7e308, -1.7e308, 5e-324, 1, 1e-200]
    for values in ([0.5], [1.7e308], [5e-324], mixed):
        scores = {k: np.resize(values, a.shape) for k, a in vector.expected.items()}
        verdict = check(vector, scores)
        assert verdict.status == "fail"
        json.dumps(verdict.to_json(), allow_nan=False)


def test_masks_are_judged_as_sets(every):
    vector = every["v1/tanh.combinatorial"]
    for dtype in (bool, np.uint8, np.float32):
        assert check(vector, {k: a.astype(dtype) for k, a in vector.expected.items()}).status == "pass"
    inverted = check(vector, {k: 1 - a for k, a in vector.expected.items()})
    assert inverted.status == "fail"
    assert "28 removed, 3 expected, 31 entries differ" in inverted.text
    assert "It is inverted" in inverted.text
    alone = vector.case.to_foreign(np.ones(31))
    smallest = np.argsort(np.abs(vector.case.w))[:3]
    for name in alone:
        alone[name][np.isin(vector.case.index_of(name), smallest)] = 0
    assert "It removes the 3 lowest by magnitude, one weight at a time" in check(vector, alone).text
    with pytest.raises(ValueError, match="scores: expected a mask of entries 0 and 1"):
        check(vector, {k: a / 2 for k, a in vector.expected.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("2.bias"), r"scores: missing \['2.bias'\], not expected none"),
        (lambda s: s.update(more=np.ones(2)), r"scores: missing none, not expected \['more'\]"),
        (lambda s: s.update({"2.bias": np.ones(3)}), r"scores\['2.bias'\]: expected shape \(2,\), got .* \(3,\)"),
        (
            lambda s: s.update({"2.bias": np.array([1, np.nan])}),
            r"scores\['2.bias'\]: expected finite numbers, got nan",
        ),
        (
            lambda s: s.update({"2.bias": np.array([1, np.inf])}),
            r"scores\['2.bias'\]: expected finite numbers, got inf",
        ),
        (lambda s: s.update({"2.bias": np.ones(2, np.float16)}), r"expected float32 or float64, got float16"),
        (lambda s: s.update({"2.bias": np.ones(2, int)}), r"expected float32 or float64, got int64"),
        (lambda s: s.update({"2.bias": np.ones(2, complex)}), r"scores\['2.bias'\]: expected an array of numbers"),
        (lambda s: s.update({"2.bias": ["a", "b"]}), r"scores\['2.bias'\]: expected an array of numbers"),
    ],
)
def test_scores_that_do_not_fit_are_one_clear_error(change, message, every):
    vector = every["v1/tiny-tanh.obd"]
    scores = dict(vector.expected)
    change(scores)
    with pytest.raises(ValueError, match=message) as error:
        check(vector, scores)
    assert "\n" not in str(error.value)


def test_names_are_checked():
    with pytest.raises(ValueError, match="name: expected one of vector_names"):
        load("v1/tanh")
    with pytest.raises(ValueError, match="name: expected one of vector_names"):
        load("../v1/tanh.obd")
    with pytest.raises(ValueError, match="criterion: expected one of"):
        vector_names("random")
    assert vector_names("combinatorial") == tuple(n for n in NAMES if n.endswith(".combinatorial"))
    with pytest.raises(ValueError, match="scores: expected a mapping"):
        check(load("v1/tanh.obd"), [1.0])


# damaged files


@pytest.fixture
def copied(tmp_path):
    for suffix in (".json", ".safetensors"):
        shutil.copy(V1 / f"tiny-tanh.obd{suffix}", tmp_path)
    return tmp_path / "tiny-tanh.obd.json"


def with_member(document, value, *path):
    changed = copy.deepcopy(document)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return changed


DOCUMENT = json.loads((V1 / "tiny-tanh.obd.json").read_text())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[" * 100_000, "nested too deeply|expected JSON"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'{"a": -Infinity}', "-Infinity is not a number of JSON"),
        (b'{"a": 1e999}', "1e999 is not a number of JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not a number of JSON"),
        (b'{"a": 1, "a": 2}', "a name comes twice"),
        (b"[1, 2]", r"expected a JSON object, got \[1, 2\]"),
        (b"{}", "missing .*'format'"),
        ({**DOCUMENT, "more": 1}, r"not expected \['more'\]"),
        (with_member(DOCUMENT, "obdd", "criterion"), r"\['criterion'\]: expected one of exact.*got 'obdd'"),
        (with_member(DOCUMENT, -1, "l2"), r"\['l2'\]: expected at least 0, got -1"),
        (with_member(DOCUMENT, True, "l2"), r"\['l2'\]: expected number, got True"),
        (with_member(DOCUMENT, 0, "loss", "scale"), r"\['scale'\]: expected more than 0, got 0"),
        (with_member(DOCUMENT, 10**9, "layers", 0, "inputs"), r"\['layers'\]\[0\]\['inputs'\]: expected at most 1024"),
        (with_member(DOCUMENT, "v2/a.b", "name"), r"\['name'\]: expected a match of"),
        (with_member(DOCUMENT, 2.5, "batch_size"), r"\['batch_size'\]: expected null, got 2.5; or expected integer"),
        (with_member(DOCUMENT, 3, "layers", 0, "inputs"), "expected inputs of shape|expected shape"),
        (with_member(DOCUMENT, "0" * 64, "sha256"), "expected the SHA-256 0000"),
        (with_member(DOCUMENT, [4, 2], "tensors", 0, "shape"), r"expected tensor x as F64 of shape \(4, 2\)"),
        (with_member(DOCUMENT, DOCUMENT["tensors"][1:], "tensors"), r"expected the tensors \['0.bias'.*once each, got"),
        (
            with_member(DOCUMENT, "input", "tensors", 2, "role"),
            r"expected tensor 0.weight in the role parameter, got input",
        ),
    ],
)
def test_a_description_that_is_damaged_or_wrong_is_one_clear_error(damage, message, copied):
    copied.write_bytes(damage if isinstance(damage, bytes) else json.dumps(damage).encode())
    with pytest.raises(ValueError, match=message) as error:
        read_vector(copied)
    assert "\n" not in str(error.value)
    assert str(copied.with_suffix("")) in str(error.value)


def test_a_damaged_safetensors_file_is_one_clear_error(copied):
    tensors = copied.with_suffix(".safetensors")
    whole = tensors.read_bytes()
    for damaged in (whole[:-8], whole[:100], whole[:4], b"", whole + b"\0", whole.replace(b"F64", b"F32", 1)):
        tensors.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"safetensors: expected the SHA-256"):
            read_vector(copied)
        if damaged != whole:
            with pytest.raises(
                ValueError, match=r"results.safetensors: expected a safetensors file, got a damaged one"
            ):
                parse_safetensors("results.safetensors", damaged)
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    with pytest.raises(ValueError, match=r"expected tensor a as one of F64, .*, got BF16"):
        parse_safetensors("it", len(header).to_bytes(8, "little") + header + b"abcd")
    tensors.unlink()
    with pytest.raises(ValueError, match=r"safetensors: cannot be read \(No such file"):
        read_vector(copied)
    with pytest.raises(ValueError, match=r"cannot be read"):
        read_vector(copied.parent)


def test_archives_never_unpickle_and_never_unpack_to_more_than_the_budget(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.array([{"danger": 1}], object))
    with pytest.raises(ValueError, match=r"a.npz: expected an npz archive of numbers.*allow_pickle=False"):
        read_scores(path)
    np.save(tmp_path / "b.npy", np.ones(3))
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"b.npz: expected an npz archive"):
        read_scores(tmp_path / "b.npz")
    np.savez_compressed(path, a=np.zeros(10**6))
    assert read_scores(path)["a"].shape == (10**6,)
    monkeypatch.setattr(vector_files.memory, "BUDGET", 10**6)
    with pytest.raises(ValueError, match=r"unpacks to 8\d+ bytes"):
        read_scores(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no array")
    with pytest.raises(ValueError, match=r"a.txt|not expected"):
        check(load("v1/tanh.obd"), read_scores(path))
    with pytest.raises(ValueError, match=r"suffix: expected one of .npz, .safetensors, .json, got '.pkl'"):
        read_scores(tmp_path / "a.pkl")


def test_the_same_scores_are_read_from_every_format(tmp_path, every):
    expected = every["v1/tiny-tanh.obd"].expected
    np.savez(tmp_path / "a.npz", **expected)
    np.savez_compressed(tmp_path / "b.npz", **{k: np.asfortranarray(a) for k, a in expected.items()})
    safetensors.numpy.save_file({k: np.ascontiguousarray(a) for k, a in expected.items()}, tmp_path / "c.safetensors")
    (tmp_path / "d.json").write_text(json.dumps({k: a.tolist() for k, a in expected.items()}))
    for path in tmp_path.iterdir():
        found = read_scores(path)
        assert {k: a.tolist() for k, a in found.items()} == {k: a.tolist() for k, a in expected.items()}
    (tmp_path / "e.json").write_text(json.dumps({"dtype": "float32", "a": [1, 2.5]}))
    assert read_scores(tmp_path / "e.json")["a"].dtype == np.float32
    for wrong in ({"a": [[1], [2, 3]]}, {"a": "x"}, {"a": {"b": 1}}, {"a": None}):
        (tmp_path / "e.json").write_text(json.dumps(wrong))
        with pytest.raises(ValueError, match=r"expected nested lists of numbers, all of one length, in a|missing"):
            check(every["v1/tiny-tanh.obd"], read_scores(tmp_path / "e.json") | {"2.bias": np.ones(2)})


# fuzz


def one_error(read, *arguments):
    """Whatever comes in, read returns or raises one ValueError of one line."""
    try:
        return read(*arguments)
    except ValueError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return None


@st.composite
def damaged(draw, contents):
    """Bytes of a good file with some of them changed, cut, doubled or put in."""
    data = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "drop", "double"]))
        if kind == "change" or not data:
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=9) | st.sampled_from([b"NaN", b"1e999", b"-", b"{", b"]", b"9" * 30]))
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "cut":
            data = data[:at]
        else:
            data[at:at] = data[at : at + 20]
    return bytes(data)


GOOD_JSON = [(V1 / f"{name}.json").read_bytes() for name in ("tiny-tanh.movement", "residual.obd", "batch-norm.wanda")]
GOOD_TENSORS = [(V1 / f"{name}.safetensors").read_bytes() for name in ("tiny-tanh.obd", "tiny-tanh.movement")]
FUZZ = settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
VECTOR = load("v1/tiny-tanh.obd")
TENSORS = parse_safetensors("it", GOOD_TENSORS[0])


def places_in(value, within=()):
    """The path of every member of nested objects and lists."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, member in members for place in [(*within, key), *places_in(member, (*within, key))]]


REPLACED = st.sampled_from(places_in(DOCUMENT))
BY = ANYTHING | st.sampled_from([0, 1, -1, 2, 3, 2.0, 1024, 1.5, 1e300, "torch", "Conv2d", "Residual", [], {}])


def rewritten(changes):
    """The description with some of its members replaced, as long as they are there."""
    document = DOCUMENT
    for place, value in changes:
        try:
            document = with_member(document, value, *place)
        except (KeyError, IndexError, TypeError):
            continue
    return document


@FUZZ
@given(damaged(GOOD_JSON))
def test_no_damage_to_json_is_more_than_one_error(data):
    document = one_error(parse_json, "it", data)
    if document is not None:
        one_error(schemas.validate, "it", document, SCHEMA)
        if valid(document):
            one_error(vector_of, "it", document, TENSORS)


def valid(document):
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


@settings(FUZZ, max_examples=300)
@given(st.lists(st.tuples(REPLACED, BY), min_size=1, max_size=3))
def test_no_description_is_more_than_one_error_and_the_schema_is_jsonschemas(changes):
    text = json.dumps(rewritten(changes)).encode()
    found = one_error(parse_json, "it", text)
    if found is None:
        return
    try:
        schemas.validate("it", found, SCHEMA)
        fits = True
    except ValueError:
        fits = False
    assert fits == valid(found)
    if fits:
        one_error(vector_of, "it", found, TENSORS)


@FUZZ
@given(damaged([*GOOD_TENSORS, b""]), st.sampled_from([".npz", ".safetensors", ".json"]))
def test_no_damage_to_results_is_more_than_one_error(data, suffix):
    read = {".npz": parse_npz, ".safetensors": parse_safetensors, ".json": vector_files._parse_lists}[suffix]
    found = one_error(read, "it", data)
    if found is not None:
        one_error(vector_files_check, found)


def vector_files_check(found):
    """As check, without the diagnosis, which is slow."""
    from pruning.oracle.verification import _checked

    return _checked(VECTOR, found)


def npz(tmp, compressed):
    path = tmp / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, **VECTOR.expected)
    return path.read_bytes()


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    return [npz(tmp_path_factory.mktemp("npz"), compressed) for compressed in (False, True)]


@FUZZ
@given(st.data())
def test_no_damage_to_archives_is_more_than_one_error(archives, data):
    found = one_error(parse_npz, "it", data.draw(damaged(archives)))
    if found is not None:
        one_error(vector_files_check, found)


@settings(FUZZ, max_examples=25)
@given(st.data())
def test_verify_survives_every_damaged_result_and_writes_nothing(tmp_path_factory, archives, data):
    folder = tmp_path_factory.mktemp("results")
    contents = {
        "tiny-quadratic.obd.npz": data.draw(damaged(archives)),
        "tiny-tanh.obd.safetensors": data.draw(damaged(GOOD_TENSORS)),
        "tiny-ties.lamp.json": data.draw(damaged([b'{"0.weight": [[1, 2], [3, 4]], "0.bias": [1, 2]}'])),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    verdicts = {verdict.name: verdict for verdict in verify(folder) if verdict.status != "missing"}
    assert set(verdicts) == {"v1/tiny-quadratic.obd", "v1/tiny-tanh.obd", "v1/tiny-ties.lamp"}
    json.dumps([verdict.to_json() for verdict in verdicts.values()], allow_nan=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents


def test_a_schema_with_an_unknown_keyword_is_an_error():
    with pytest.raises(ValueError, match="schema: expected keywords that are known, got maxLength"):
        schemas.validate("it", "a", {"type": "string", "maxLength": 3})


def test_the_example_in_javascript_agrees_with_the_vectors(tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    example = [node, str(FOLDER / "example.mjs"), str(V1), str(tmp_path / "results")]
    ran = subprocess.run(example, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    written = {f"v1/{path.stem}" for path in (tmp_path / "results").iterdir()}
    assert len(written) >= 60
    verdicts = [verdict for verdict in verify(tmp_path / "results") if verdict.status != "missing"]
    assert {verdict.name for verdict in verdicts} == written
    assert {verdict.status for verdict in verdicts} == {"pass"}
    damaged = json.loads((tmp_path / "results" / "tanh.exact.json").read_text())
    damaged["0.bias"][0] += 1e-3
    (tmp_path / "results" / "tanh.exact.json").write_text(json.dumps(damaged))
    assert {v.name for v in verify(tmp_path / "results") if v.status == "fail"} == {"v1/tanh.exact"}
