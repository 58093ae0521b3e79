"""Tasks in executors: the same result however they are cut and wherever they run, after failures, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from minimal_nn import Linear, Network, Objective, ReLU, SoftmaxCrossEntropy, Tanh
from pruning import exact
from pruning.exact import structured
from tests.cases import CASES, assert_close, make_case


@pytest.fixture
def cut(monkeypatch):
    """Small tasks, so that there are many."""
    monkeypatch.setattr(structured, "EXAMPLES", 4)
    monkeypatch.setattr(structured, "CHANNELS", dict.fromkeys(structured.CHANNELS, 2))


def problem():
    case = make_case("tasks", Linear(30, 7), Tanh(), Linear(7, 6), ReLU(), Linear(6, 3), n=21, l2=0.1)
    return case.L, case.w


class Here(Executor):
    """Runs a task where it is submitted, and fails as often as it is told to."""

    def __init__(self, fails=lambda k, attempt: False):
        self.fails, self.attempts = fails, {}

    def submit(self, fn, *args):
        future, task = Future(), args[2]
        self.attempts[task] = self.attempts.get(task, 0) + 1
        if self.fails(len(self.attempts), self.attempts[task]):
            future.set_exception(OSError("the machine is gone"))
        else:
            future.set_result(fn(*args))
        return future


def test_threads_processes_and_one_thread_give_the_same(cut):
    L, w = problem()
    reference = exact.reference(L, w)
    with ThreadPoolExecutor(3) as threads, ProcessPoolExecutor(2) as processes:
        for executor in (None, threads, processes, Here()):
            assert_close(exact.saliency(L, w, executor=executor), reference, scale=L(w))
        ids = np.arange(len(w)) % 5
        for options in ({"groups": ids}, {"units": 0}, {"per_example": True}):
            there = exact.saliency(L, w, executor=processes, **options)
            assert_close(there, exact.saliency(L, w, **options), scale=L(w))


def test_the_cut_changes_nothing(monkeypatch):
    L, w = problem()
    whole = exact.saliency(L, w)
    for examples, channels in ((1, 1), (5, 3), (1000, 4)):
        monkeypatch.setattr(structured, "EXAMPLES", examples)
        monkeypatch.setattr(structured, "CHANNELS", dict.fromkeys(structured.CHANNELS, channels))
        assert_close(exact.saliency(L, w), whole, scale=L(w))


def test_a_large_problem_runs_in_threads(cut, monkeypatch):
    L, w = problem()
    expected = exact.saliency(L, w)
    monkeypatch.setattr(structured, "SMALL", 0)
    assert_close(exact.saliency(L, w), expected, scale=L(w))


def test_a_failed_task_is_tried_once_more_and_then_named(cut):
    L, w = problem()
    once = Here(fails=lambda k, attempt: k % 3 == 0 and attempt == 1)
    assert_close(exact.saliency(L, w, executor=once), exact.reference(L, w), scale=L(w))
    assert sorted(set(once.attempts.values())) == [1, 2]
    always = Here(fails=lambda k, attempt: k >= 5)
    named = r"examples \d+ to \d+, channels of layers\[\d\] \d to \d \(\w+\): failed twice, at last with OSError: the"
    with pytest.raises(RuntimeError, match=named):
        exact.saliency(L, w, executor=always)


def test_in_one_thread_too_a_failed_task_is_tried_once_more(monkeypatch):
    L, w = problem()
    failures, real = [], structured.changes_of_task

    def flaky(*arguments):
        failures.append(1)
        if len(failures) == 1:
            raise OSError("the disk is gone")
        return real(*arguments)

    monkeypatch.setattr(structured, "changes_of_task", flaky)
    assert_close(exact.saliency(L, w), exact.reference(L, w), scale=L(w))
    assert len(failures) == 1 + len(list(structured._tasks(L, None, None)))


class Scaled(Tanh):
    """A user's layer, with a state that its repr does not show."""

    def __init__(self, factor):
        object.__setattr__(self, "factor", factor)

    def forward(self, p, x):
        return np.tanh(self.factor * x)


def test_a_checkpoint_knows_a_layer_by_all_that_it_holds(tmp_path):
    L, w = problem()
    layers = L.network.layers
    nets = [Network(layers[0], Scaled(factor), *layers[2:]) for factor in (1.0, 2.0)]
    first, second = (Objective(net, L.loss, L.x, L.y) for net in nets)
    exact.saliency(first, w, checkpoint=tmp_path / "s.npz")
    with pytest.raises(ValueError, match="belongs to another computation"):
        exact.saliency(second, w, checkpoint=tmp_path / "s.npz")


def test_a_checkpoint_needs_a_folder(tmp_path):
    L, w = problem()
    for path in (tmp_path / "none" / "s.npz", tmp_path):
        with pytest.raises(
            ValueError, match="checkpoint: expected a file in an existing folder that can be written to"
        ):
            exact.saliency(L, w, checkpoint=path)
    np.save(tmp_path / "s.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"checkpoint: expected a file of exact\.saliency"):
        exact.saliency(L, w, checkpoint=tmp_path / "s.npy")


def test_a_closed_executor_is_one_clear_error():
    L, w = problem()
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    with pytest.raises(RuntimeError, match="failed twice, at last with RuntimeError: cannot schedule"):
        exact.saliency(L, w, executor=closed)


def test_a_checkpoint_goes_on_where_it_stopped(cut, tmp_path, monkeypatch):
    L, w = problem()
    path, expected = tmp_path / "s.npz", exact.saliency(L, w)
    calls = []

    def interrupted(*arguments):
        calls.append(arguments[2])
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)

    real = structured.changes_of_task
    monkeypatch.setattr(structured, "changes_of_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exact.saliency(L, w, checkpoint=path)
    assert_close(exact.saliency(L, w, checkpoint=path), expected, scale=L(w))
    done, again = calls[:5], calls[6:]
    assert not set(done) & set(again)
    assert len(done) + len(again) == len(list(structured._tasks(L, None, None))) > 20
    before = len(calls)
    assert_close(exact.saliency(L, w, checkpoint=path), expected, scale=L(w))
    assert len(calls) == before, "a finished computation is read back"
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_a_checkpoint_of_another_computation_is_refused(tmp_path):
    L, w = problem()
    path = tmp_path / "s.npz"
    exact.saliency(L, w, checkpoint=path)
    kept = path.read_bytes()
    others = [
        (L, w + 1e-9, {}),
        (L.subset(slice(0, 20)), w, {}),
        (Objective(L.network, L.loss, L.x, L.y, l2=0.2), w, {}),
        (Objective(L.network, SoftmaxCrossEntropy(2.0), L.x, L.y, l2=0.1), w, {}),
        (Objective(Network(*L.network.layers[:3], Tanh(), L.network.layers[4]), L.loss, L.x, L.y, l2=0.1), w, {}),
        (L, w, {"units": 0}),
        (L, w, {"groups": np.zeros(len(w), int)}),
        (L, w, {"per_example": True}),
        (L, w.astype(np.float32), {}),
    ]
    for objective, v, options in others:
        with pytest.raises(ValueError, match=r"checkpoint: .*s\.npz belongs to another computation"):
            exact.saliency(objective, v, checkpoint=path, **options)
    assert path.read_bytes() == kept
    for content in (b"", b"not a file of numpy", kept[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint: expected a file of exact\.saliency, got .*s\.npz"):
            exact.saliency(L, w, checkpoint=path)


SLOW = """
import sys, time
from pathlib import Path
from pruning import exact
from pruning.exact import structured
from tests.test_execution import problem

structured.EXAMPLES = 4
structured.CHANNELS = dict.fromkeys(structured.CHANNELS, 2)
real = structured.changes_of_task

def slow(*arguments):
    result = real(*arguments)
    time.sleep(0.1)
    with open(sys.argv[2], "a") as log:
        log.write("finished\\n")
    return result

structured.changes_of_task = slow
exact.saliency(*problem(), checkpoint=Path(sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_loses_at_most_one_piece(cut, tmp_path, monkeypatch):
    path, log = tmp_path / "s.npz", tmp_path / "log"
    command = [sys.executable, "-c", SLOW, str(path), str(log)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    child = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (log.exists() and len(log.read_text().split()) >= 4):
            assert child.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.kill()
        child.wait()
    L, w = problem()
    tasks = len(list(structured._tasks(L, None, None)))
    finished = len(log.read_text().split())
    done = int(np.load(path)["done"].sum())
    assert finished - 1 <= done <= finished < tasks, "unfinished pieces at the kill, and at most one lost"
    calls, real = [], structured.changes_of_task
    monkeypatch.setattr(structured, "changes_of_task", lambda *a: calls.append(a[2]) or real(*a))
    assert_close(exact.saliency(L, w, checkpoint=path), exact.reference(L, w), scale=L(w))
    assert len(calls) == tasks - done


def test_progress_shows_a_bar(capsys):
    exact.saliency(CASES[0].L, CASES[0].w, progress=True)
    assert "exact saliency" in capsys.readouterr().err
