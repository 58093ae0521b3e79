"""More than one machine: dask.distributed's workers, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from minimal_nn import Linear, Tanh
from pruning import exact
from pruning.exact import structured
from tests.cases import assert_close, make_case

pytestmark = pytest.mark.filterwarnings("default")  # what dask warns of is dask's


def slow(*arguments):
    """A task that takes long enough to be interrupted."""
    time.sleep(0.15)
    return structured.changes_of_task(*arguments)


@pytest.fixture
def client():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_result_survives_the_death_of_a_worker(client, monkeypatch):
    case = make_case("cluster", Linear(30, 12), Tanh(), Linear(12, 3), n=40, l2=0.1)
    monkeypatch.setattr(structured, "EXAMPLES", 8)
    monkeypatch.setattr(structured, "CHANNELS", dict.fromkeys(structured.CHANNELS, 2))
    tasks = len(list(structured._tasks(case.L, None, None)))
    pids = list(client.run(os.getpid).values())
    assert len(set(pids)) == 2
    executor, finished, at_the_kill = client.get_executor(), [], []

    def count_and_kill():
        while len(finished) < 6:
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)
        at_the_kill.append(len(finished))

    class Counted:
        """The client's executor, with slow tasks that are counted as they finish."""

        def submit(self, function, *arguments):
            future = executor.submit(slow, *arguments)
            future.add_done_callback(finished.append)
            return future

    killer = threading.Thread(target=count_and_kill)
    killer.start()
    found = exact.saliency(case.L, case.w, executor=Counted())
    killer.join()
    assert 6 <= at_the_kill[0] < tasks - 4, "pieces were unfinished at the kill"
    assert_close(found, exact.reference(case.L, case.w), scale=case.L(case.w))
