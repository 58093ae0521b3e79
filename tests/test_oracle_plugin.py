"""`pytest --pruning-oracle`: one test for each vector, failures that are diagnoses, and nothing loaded too early."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pruning import oracle

pytest_plugins = ["pytester"]
#: how pytest gets the plugin: by its entry point where the package is installed, by name in a mere clone
INSTALLED = any(point.name == "pruning-oracle" for point in entry_points(group="pytest11"))
LOADING = [] if INSTALLED else ["-p", "pruning.pytest_plugin"]
ROOT = Path(__file__).parents[1]

CANDIDATE = """
import numpy as np

def magnitude(description, arrays):
    return {name: abs(a) for name, a in arrays.items() if name not in "xy"}

def lamp(description, arrays):
    if description["layout"] != "torch":
        raise NotImplementedError("the layout " + description["layout"])
    arrays["x"][...] = 0  # an array of its own
    scores = {}
    for name, a in arrays.items():
        if name not in "xy":
            squares = np.sort(a.ravel() ** 2)
            scores[name] = np.array([v / squares[squares >= v].sum() for v in a.ravel() ** 2]).reshape(a.shape)
    return scores

helper = 3
random = np.random.default_rng
"""


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """A diagnosis beforehand: modules that are first imported within pytester are forgotten, and C does not like it."""
    vector = oracle.load("v1/tiny-tanh.obd")
    assert vector.check({name: 2 * a for name, a in vector.expected.items()}).status == "fail"


@pytest.fixture
def plugged(pytester, monkeypatch):
    """Run pytest in a folder with the plugin alone, as its entry point would load it."""
    monkeypatch.syspath_prepend(pytester.path)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(*arguments):
        options = (*LOADING, "-p", "no:xdist", "-p", "no:cacheprovider", "-p", "no:randomly")
        return pytester.runpytest_inprocess(*options, *arguments)

    return run


def test_each_vector_that_is_claimed_is_a_test(pytester, plugged):
    pytester.makepyfile(candidate_right=CANDIDATE)
    ran = plugged("--pruning-oracle", "candidate_right", "-rs", "-v")
    magnitudes, lamps = (len(oracle.vector_names(name)) for name in ("magnitude", "lamp"))
    ran.assert_outcomes(passed=magnitudes + lamps - 1, skipped=1)
    ran.stdout.fnmatch_lines(["candidate_right::v1/tanh.magnitude *PASSED*", "SKIPPED*the layout minimal_nn"])
    assert ran.ret == 0


def test_a_failure_is_the_diagnosis_and_no_traceback(pytester, plugged):
    pytester.makepyfile(
        candidate_wrong="""
        def half(description, arrays):
            return {name: abs(a) / 2 for name, a in arrays.items() if name not in "xy"}

        def less(description, arrays):
            return {}

        def broken(description, arrays):
            return arrays["no such array"]

        ORACLE = {"magnitude": half, "wanda": less, "snip": broken}
        """
    )
    ran = plugged("--pruning-oracle", "candidate_wrong", "-k", "v1/tiny-tanh")
    ran.assert_outcomes(failed=3)
    ran.stdout.fnmatch_lines(
        [
            "*v1/tiny-tanh.magnitude by half*",
            "This is NOT magnitude: relative error 0.5, tolerance 1e-08.",
            "It is magnitude, times ½*",
            "scores: missing ['0.bias', '0.weight', '2.bias', '2.weight'], not expected none",
            "*KeyError: 'no such array'",
        ]
    )
    text = ran.stdout.str()
    assert "def runtest" not in text.split("KeyError")[0].split("This is NOT")[1].split("missing")[0]


def test_own_tests_run_beside_and_get_the_fixture(pytester, plugged):
    pytester.makepyfile(
        candidate_both=CANDIDATE,
        test_own="""
        import pytest

        def test_one(pruning_oracle):
            vector = pruning_oracle.load("v1/tanh.fisher")
            vector.assert_matches(vector.case.scores("fisher"))
            with pytest.raises(AssertionError, match="It is obd"):
                vector.assert_matches(vector.case.scores("obd"))
        """,
    )
    plugged().assert_outcomes(passed=1)
    plugged("--pruning-oracle", "candidate_both", "-k", "one or v1/tanh.").assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "*--pruning-oracle: candidate_bad cannot be imported: ModuleNotFoundError*"),
        ("1 / 0", "*--pruning-oracle: candidate_bad cannot be imported: ZeroDivisionError*"),
        ("def other(): ...", "*expected functions in candidate_bad named like criteria, or a dictionary ORACLE*"),
        ("ORACLE = {}", "*expected functions in candidate_bad named like criteria, or a dictionary ORACLE*"),
        ("ORACLE = {'obd': 3}", "*expected functions in candidate_bad named like criteria, or a dictionary ORACLE*"),
        ("ORACLE = {'odb': print}", "*candidate_bad.ORACLE names odb; expected one of *obd*"),
        ("ORACLE = {'random': print}", "*candidate_bad.ORACLE names random; expected one of *"),
    ],
)
def test_a_module_with_nothing_to_test_is_an_error_of_usage(source, message, pytester, plugged, monkeypatch):
    monkeypatch.delitem(sys.modules, "candidate_bad", raising=False)
    if source is not None:
        pytester.makepyfile(candidate_bad=source)
    ran = plugged("--pruning-oracle", "candidate_bad")
    assert ran.ret == pytest.ExitCode.USAGE_ERROR
    ran.stderr.fnmatch_lines([message])
    monkeypatch.delitem(sys.modules, "candidate_bad", raising=False)


def test_it_works_in_a_process_of_its_own_and_in_workers(pytester):
    pytester.makepyfile(candidate_apart=CANDIDATE)
    options = [*LOADING, "-p", "no:cacheprovider", "--pruning-oracle", "candidate_apart", "-q"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-n", "1"],
        capture_output=True,
        text=True,
        cwd=pytester.path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    count = len(oracle.vector_names("magnitude")) + len(oracle.vector_names("lamp")) - 1
    assert f"{count} passed, 1 skipped" in ran.stdout, ran.stdout + ran.stderr
    assert ran.returncode == 0


def test_loading_the_plugin_imports_nothing_but_pytest():
    code = (
        "import sys, pytest; before = set(sys.modules); import pruning.pytest_plugin; "
        "print(sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "['pruning', 'pruning.pytest_plugin']"


def test_the_plugin_and_the_vectors_need_neither_torch_nor_onnx_nor_the_test_packages():
    code = """
import sys
for name in ("torch", "onnx", "mpmath", "jsonschema", "hypothesis"):
    sys.modules[name] = None
import pruning.oracle.pytest_plugin
from pruning import oracle
from pruning.__main__ import main
vector = oracle.load("v1/tanh.obd")
vector.assert_matches(vector.expected)
assert main(["oracle", "list"]) == 0
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)


def test_the_entry_point_and_the_data_are_packaged():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (name,) = project["project"]["entry-points"]["pytest11"].values()
    assert callable(import_module(name).pytest_addoption)
    data = project["tool"]["setuptools"]["package-data"]["pruning"]
    packaged = {path for pattern in data for path in (ROOT / "pruning").glob(pattern) if path.is_file()}
    assert {path for path in (ROOT / "pruning" / "oracle" / "vectors").rglob("*") if path.is_file()} <= packaged
