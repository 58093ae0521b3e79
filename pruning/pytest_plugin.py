"""The pytest plugin as pytest finds it: an option and a fixture, and nothing imported until one of them is used.

    pytest --pruning-oracle my_module

calls the functions of my_module on every vector that they claim, one test each (see pruning.oracle.pytest_plugin).
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("pruning oracle").addoption(
        "--pruning-oracle",
        action="append",
        default=[],
        metavar="MODULE",
        help="test the pruning criteria of this module on the oracle's vectors: functions (description, arrays) -> "
        "scores named like the criteria, or a dictionary ORACLE of them; may be given more than once",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Load the rest where the option asks for it."""
    if config.getoption("pruning_oracle"):
        config.pluginmanager.register(import_module("pruning.oracle.pytest_plugin"), "pruning-oracle-vectors")


@pytest.fixture(scope="session")
def pruning_oracle() -> ModuleType:
    """The module pruning.oracle: `pruning_oracle.from_torch(...)`, `pruning_oracle.load("v1/tanh.obd")`."""
    return import_module("pruning.oracle")
