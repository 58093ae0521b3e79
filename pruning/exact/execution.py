"""Many tasks, in any executor, each tried twice at most, with finished ones kept in a file."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

#: errors of the computation, not of the machine it ran on: to try again would give the same
CERTAIN = (ArithmeticError, NotImplementedError, TypeError, ValueError)
IN_FLIGHT = 64  #: tasks that an executor holds at once: what they carry stays within bounds


@dataclass(frozen=True)
class Task:
    """Some examples by some channels of a layer (or groups, or gates): first <= n < last, start <= channel < stop."""

    first: int
    last: int
    kind: str
    layer: int
    start: int
    stop: int

    def __str__(self) -> str:
        what = "groups" if self.kind == "groups" else f"channels of layers[{self.layer}]"
        return f"examples {self.first} to {self.last - 1}, {what} {self.start} to {self.stop - 1} ({self.kind})"


@contextmanager
def threads() -> Iterator[Executor]:
    """Give an executor with a thread for each core.

    Meanwhile the BLAS has one thread for each of ours: matrix products are small here, and theirs would get in the way.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with threadpoolctl.threadpool_limits(1, "blas"), ThreadPoolExecutor(cores) as executor:
        try:
            yield executor
        finally:
            executor.shutdown(cancel_futures=True)


def execute(
    function: Callable[..., np.ndarray],
    tasks: list[Task],
    arguments: Callable[[Task], tuple],
    place: Callable[[Task], tuple[slice, np.ndarray]],
    total: np.ndarray,
    *,
    executor: Executor | None,
    checkpoint: Path | None,
    identity: Any,
    progress: bool,
) -> None:
    """Add function(*arguments(task)) to total at place(task) for every task; in this thread without an executor.

    A task that fails, other than by what it computes, is tried once more; RuntimeError that names it where it fails
    again. `identity` is what a
    checkpoint has to belong to.
    """
    kept = None if checkpoint is None else Checkpoint(checkpoint, _digest((identity, tasks)), len(tasks), total)
    waiting = [k for k in range(len(tasks)) if kept is None or not kept.done[k]]
    for k, result in _shown(_results(function, tasks, waiting, arguments, executor), len(tasks), waiting, progress):
        rows, columns = place(tasks[k])
        total[rows, columns] += result
        if kept is not None:
            kept.keep(k)


def _results(
    function: Callable[..., np.ndarray],
    tasks: list[Task],
    waiting: list[int],
    arguments: Callable[[Task], tuple],
    executor: Executor | None,
) -> Iterable[tuple[int, np.ndarray]]:
    """Yield (number, result) of every task as they come."""
    executor = executor or _Here()
    queue, failed, running = iter(waiting), set(), {}  # type: ignore[var-annotated]

    def submit(k: int) -> None:
        try:
            future = executor.submit(function, *arguments(tasks[k]))
        except RuntimeError as error:  # a broken or closed executor refuses
            future = Future()
            future.set_exception(error)
        running[future] = k

    try:
        for k in queue:
            submit(k)
            if len(running) < (1 if isinstance(executor, _Here) else IN_FLIGHT):
                continue
            yield from _finished(running, failed, tasks, submit)
        while running:
            yield from _finished(running, failed, tasks, submit)
    finally:
        for future in running:
            future.cancel()


def _finished(
    running: dict[Future, int], failed: set[int], tasks: list[Task], submit: Callable[[int], None]
) -> Iterable[tuple[int, np.ndarray]]:
    """Wait for at least one task; submit a failed one again, once."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        k = running.pop(future)
        error = future.exception()
        if error is None:
            yield k, future.result()
        elif isinstance(error, CERTAIN):
            raise error
        elif k in failed:
            raise RuntimeError(f"{tasks[k]}: failed twice, at last with {type(error).__name__}: {error}") from error
        else:
            failed.add(k)
            submit(k)


def _shown(results: Iterable, count: int, waiting: list[int], progress: bool) -> Iterable:
    if not progress:
        return results
    from tqdm.auto import tqdm

    return tqdm(results, total=count, initial=count - len(waiting), unit="task", desc="exact saliency")


class _Here(Executor):
    """Runs a task where it is submitted, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Return a future that is done."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Checkpoint:
    """The sums of finished tasks in a file, written whole after every task: an interrupt loses those not yet added."""

    def __init__(self, path: Path, digest: str, count: int, total: np.ndarray) -> None:
        """Read the file, if there is one, into `total`; ValueError where it is another computation's."""
        self.path, self.digest, self.total, self.done = path, digest, total, np.zeros(count, bool)
        if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise ValueError(f"checkpoint: expected a file in an existing folder that can be written to, got {path}")
        if path.exists():
            try:
                with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                    found, done, sums = str(file["digest"]), file["done"], file["total"]
            except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
                raise ValueError(f"checkpoint: expected a file of exact.saliency, got {path} ({error})") from None
            if found != digest:
                raise ValueError(
                    f"checkpoint: {path} belongs to another computation (other examples, weights, network or options); "
                    "choose another path, or remove it"
                )
            self.done, total[...] = done, sums

    def keep(self, k: int) -> None:
        """Write the sums with task k among the finished ones: to a file beside it, which then takes its name."""
        self.done[k] = True
        handle, name = tempfile.mkstemp(suffix=".tmp", dir=self.path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, digest=np.array(self.digest), done=self.done, total=self.total)
            os.replace(name, self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _digest(value: Any) -> str:
    """Return a hash of the content of arrays, objects, and what they are made of."""
    h = hashlib.sha256()
    _feed(h, value)
    return h.hexdigest()


def _feed(h: Any, value: Any) -> None:
    h.update(type(value).__qualname__.encode() + b"(")
    if isinstance(value, np.ndarray):
        h.update(f"{value.dtype}{value.shape}".encode())
        h.update(np.ascontiguousarray(value))
    elif isinstance(value, (tuple, list)):
        for item in value:
            _feed(h, item)
    elif isinstance(value, dict):
        _feed(h, sorted(value.items()))
    elif hasattr(value, "__dict__"):  # networks, layers, losses: whatever makes them what they are
        _feed(h, vars(value))
    else:
        h.update(repr(value).encode())
    h.update(b")")
