"""Tests of somebody's criteria on the vectors, one for each vector that a module claims.

A module claims the criteria after which its functions are named, or those in its dictionary ORACLE, where it has one.
A function takes (description, arrays): the JSON of the vector, and x, y and the parameters by name as float64 (labels
int64), with trajectory.* for movement. It returns scores by the names of the parameters. NotImplementedError skips: a
criterion need not know every layer.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from pruning.oracle.vector_files import load, vector_names
from pruning.oracle.verification import check

Candidate = Callable[[dict[str, Any], dict[str, Any]], Mapping[str, Any]]
_CLAIMS = pytest.StashKey[dict[str, dict[str, Candidate]]]()


class Mismatch(Exception):
    """Scores that are not those of the vector; the message is the diagnosis."""


def pytest_configure(config: pytest.Config) -> None:
    """Import the modules and read what they claim; UsageError where there is nothing to test."""
    folder = str(config.invocation_params.dir)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    config.stash[_CLAIMS] = {name: claims(_imported(name)) for name in config.getoption("pruning_oracle")}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Add a test for every vector of every claim."""
    for module, candidates in session.config.stash[_CLAIMS].items():
        for criterion, candidate in candidates.items():
            items += [VectorItem.of(session, module, name, candidate) for name in vector_names(criterion)]


def claims(module: ModuleType) -> dict[str, Candidate]:
    """Return the functions of a module by the criterion each claims; UsageError for none or an unknown one."""
    known = dict.fromkeys(name.rpartition(".")[2] for name in vector_names())
    named = {name: getattr(module, name, None) for name in known}
    found = getattr(module, "ORACLE", {name: f for name, f in named.items() if callable(f)})
    if not isinstance(found, Mapping) or not found or not all(callable(f) for f in found.values()):
        raise pytest.UsageError(
            f"--pruning-oracle: expected functions in {module.__name__} named like criteria, or a dictionary ORACLE of "
            f"them; criteria are {', '.join(known)}"
        )
    if unknown := sorted(str(name) for name in found if name not in known):
        raise pytest.UsageError(
            f"--pruning-oracle: {module.__name__}.ORACLE names {', '.join(unknown)}; expected one of {', '.join(known)}"
        )
    return dict(found)


def _imported(name: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:  # whatever somebody's module raises
        raise pytest.UsageError(f"--pruning-oracle: {name} cannot be imported: {error!r}") from error


class VectorItem(pytest.Item):
    """A candidate on one vector."""

    candidate: Candidate
    vector: str

    @classmethod
    def of(cls, session: pytest.Session, module: str, vector: str, candidate: Candidate) -> VectorItem:
        """Return the test of a module's function on a vector, as module::vector."""
        item: VectorItem = cls.from_parent(session, name=vector, nodeid=f"{module}::{vector}")
        item.candidate, item.vector = candidate, vector
        return item

    def runtest(self) -> None:
        """Call the candidate and compare."""
        vector = load(self.vector)
        description = {key: copy.deepcopy(value) for key, value in vector.document.items() if key != "plain"}
        try:
            scores = self.candidate(description, {name: a.copy() for name, a in vector.inputs.items()})
        except NotImplementedError as error:
            pytest.skip(str(error) or "not implemented")
        try:
            verdict = check(vector, scores)
        except ValueError as error:
            raise Mismatch(str(error)) from None
        if verdict.status != "pass":
            raise Mismatch(verdict.text)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the diagnosis alone; the traceback where the candidate raised."""
        if isinstance(excinfo.value, Mismatch):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, int | None, str]:
        """Return where the candidate stands, and a headline."""
        code = getattr(self.candidate, "__code__", None)
        headline = f"{self.vector} by {getattr(self.candidate, '__name__', self.candidate)}"
        return (code.co_filename, code.co_firstlineno - 1, headline) if code else (self.nodeid, None, headline)
