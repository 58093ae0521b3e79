"""Sums over examples of Kronecker-structured blocks: the matrix products behind every closed form.

Each block couples weight (a, b) of layer l, from its input a to its output b, with weight (c, d) of layer m, and is
a sum over examples of x_{l,a} S_{b,d} x_{m,c}. As a product of two matrices with one column for each example it costs
2N·(a c)·(b d) operations; on the diagonal, where x_a x_c and S_bd are symmetric, the upper triangles are a quarter
of that.

Examples are the last axis, x is (a, N) and S (b, d, N): then W S is one matrix product whatever the batch. The sums
are added straight into the matrix, of which a block is a view (a, b, c, d), in slabs of pairs (a, c) that fit into
the processor's cache: whatever the widths, nothing else is as large as the block itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SLAB = 2 * 2**20  #: bytes of pairs x_a x_c at once
STRIP = 256  #: rows that are mirrored at once


def add_own(block: np.ndarray, x: np.ndarray, S: np.ndarray) -> None:
    """Add Σ_n x_a x_c S_bd to block (a, b, a, b), for x (a, N) and symmetric S (b, b, N); symmetric to the bit."""
    inputs = len(x)
    upper, whole = _triangle(S)
    most = max(inputs, _rows_at_once(x, len(S) ** 2))
    slab = np.empty((min(most, inputs * (inputs + 1) // 2), x.shape[1]), x.dtype)
    start = 0
    while start < inputs:
        stop, filled = start, 0
        while stop < inputs and filled + inputs - stop <= most:
            np.multiply(x[stop:], x[stop], out=slab[filled : filled + inputs - stop])
            stop, filled = stop + 1, filled + inputs - stop
        sums = np.take(slab[:filled] @ upper, whole, axis=1)
        for a in range(start, stop):  # the rows of sums: (a, a), (a, a + 1), ..., (a, inputs − 1), and then a + 1
            row, sums = sums[: inputs - a], sums[inputs - a :]
            block[a, :, a:] += row.swapaxes(0, 1)
            block[a + 1 :, :, a] += row[1:]
        start = stop


def add_cross(block: np.ndarray, x: np.ndarray, S: np.ndarray, x_m: np.ndarray) -> None:
    """Add Σ_n x_a S_bd x_m,c to block (a, b, c, d), for x (a, N), S (b, d, N) and x_m (c, N)."""
    b, d, n = S.shape
    for a, sums in _pair_sums(x, x_m, S.reshape(b * d, n)):
        block[a] += sums.reshape(*sums.shape[:2], b, d).swapaxes(1, 2)


def add_path(block: np.ndarray, x: np.ndarray, R: np.ndarray, delta: np.ndarray) -> None:
    """Add Σ_n x_a R_bc δ_d to block (a, b, c, d), for x (a, N), R (b, c, N) and δ (d, N); R has no row for a bias c.

    R (b, N) stands for the diagonal matrix with these entries.
    """
    if R.ndim == 2:
        units = np.arange(len(R))
        sums = x @ (R[:, None] * delta).reshape(-1, R.shape[1]).T
        block[:, units, units] += sums.reshape(len(x), len(R), len(delta))
        return
    b, c, n = R.shape
    for a, sums in _pair_sums(x, delta, R.reshape(b * c, n)):
        block[a, :, :c] += sums.reshape(*sums.shape[:2], b, c).transpose(0, 2, 3, 1)


def mirror(matrix: np.ndarray) -> None:
    """Copy the upper triangle onto the lower one in place, a strip at a time: symmetric to the bit."""
    for start in range(0, len(matrix), STRIP):
        rows, stop = slice(start, start + STRIP), start + STRIP
        matrix[stop:, rows] = matrix[rows, stop:].T
        corner = matrix[rows, rows]
        corner[...] = np.triu(corner) + np.triu(corner, 1).T


def _pair_sums(x: np.ndarray, y: np.ndarray, factor: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield, slab by slab, rows a of x and Σ_n x_a y_c factor_k (a, c, k), for factor (k, N)."""
    step = max(1, _rows_at_once(x, len(factor)) // len(y))
    slab = np.empty((min(step, len(x)), *y.shape), x.dtype)
    for start in range(0, len(x), step):
        rows = x[start : start + step]
        pairs = np.multiply(rows[:, None], y, out=slab[: len(rows)])
        sums = pairs.reshape(-1, y.shape[1]) @ factor.T
        yield slice(start, start + len(rows)), sums.reshape(len(rows), len(y), -1)


def _rows_at_once(x: np.ndarray, columns: int) -> int:
    """Return how many pairs fit into a slab, and the sums of each with `columns` factors into another."""
    return max(1, SLAB // (x.itemsize * max(x.shape[1], columns)))


def _triangle(S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the upper triangle of S (b, b, N) as columns (N, b(b+1)/2), and where among them each entry stands."""
    i, j = np.triu_indices(len(S))
    place = np.empty((len(S), len(S)), np.intp)
    place[i, j] = place[j, i] = np.arange(len(i))
    return S[i, j].T, place
