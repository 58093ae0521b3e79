"""The audited libraries, skipped where they are missing or of another version than the audited one."""

from __future__ import annotations

import importlib.util

import pytest
import threadpoolctl

from tests.interop.audit.subjects import NotAudited, audited


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "audit":
            item.add_marker(pytest.mark.filterwarnings("default"))  # what the libraries warn of is theirs


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Compute on one thread: the matrices are small, and other workers take the other cores."""
    if importlib.util.find_spec("torch") is None:
        with threadpoolctl.threadpool_limits(1):
            yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def library(distribution, module, *needs):
    @pytest.fixture(scope="session", name=module.replace(".", "_"))
    def found():
        try:
            for need in needs:
                audited(need, need)
            return audited(distribution, module)
        except NotAudited as reason:
            pytest.skip(str(reason))

    return found


torch = library("torch", "torch")
torch_pruning = library("torch-pruning", "torch_pruning", "torch")
torchao = library("torchao", "torchao", "torch")
nni = library("nni", "nni", "torch")
curvlinops = library("curvlinops-for-pytorch", "curvlinops", "torch")
backpack = library("backpack-for-pytorch", "backpack", "torch")
