"""The memory budget: long sums run over pieces whose temporaries stay below it, whatever N and P."""

from __future__ import annotations

from collections.abc import Iterator

BUDGET = 512 * 2**20  #: bytes that the temporaries of one computation may take


def pieces(total: int, bytes_each: float, budget: float | None = None) -> Iterator[slice]:
    """Cut range(total) into the fewest slices of equal length such that length · bytes_each <= budget (BUDGET).

    A slice holds at least one item, even if that one exceeds the budget.

    >>> list(pieces(5, bytes_each=1, budget=2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    most = max(1, int((BUDGET if budget is None else budget) // max(1, bytes_each)))
    count = -(-total // most)
    length = -(-total // max(1, count))
    for start in range(0, total, max(1, length)):
        yield slice(start, min(total, start + length))
