"""The exact losses of sets of removed weights: of listed masks, of all pairs, and the best set of a given size.

In a chain of linear layers and activations an output of the first linear layer depends only on that output's column of
the mask. So every different column is answered once, (N,) numbers each, and a mask gathers the answers of its columns;
what lies behind is computed for many masks at once. Masks that the network cannot tell apart are computed once: a
weight at 0 may be on or off, and so may every weight into a unit whose outgoing weights are all off.
"""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from minimal_nn import checks, memory
from minimal_nn.curvature.closed_form import is_chain
from minimal_nn.layers import Linear
from minimal_nn.layers.base import Layer
from minimal_nn.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy
from minimal_nn.objective import Objective
from pruning.exact.execution import threads

#: bytes of the columns' answers that are kept at a time: fresh memory costs more time than to answer a column again
_TABLE = 2**23
#: bytes of the arrays that follow one another from layer to layer; small enough to stay in the processor's cache
_BLOCK = 2**22
#: pieces of masks that the memory budget is shared by, since threads work on one each, and masks in one
AT_ONCE, MASKS = 8, 250


def losses(L: Objective, w: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return L(w ∘ mask_m) (M,), in the units of L, for masks (M, P) bool, True where a weight is kept.

    The penalty (l2/2) ‖w ∘ mask_m‖² is included. The same numbers as a loop over the masks, to 1e-12 of the largest
    |L|; masks that cannot be told apart by the outputs are computed once. In a chain so is every column of the first
    linear layer's mask; other networks take one forward pass for each different mask. Temporaries stay in the memory
    budget, but for what tells equal masks, M·P/2 bytes at most. Raises ValueError for masks of another shape or dtype.

    >>> from minimal_nn import Linear, Network, SquaredError
    >>> x = np.array([[1.0, 0], [1, 1], [2, 1], [0, 1]])
    >>> L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), x, x @ [[1.0], [2]])
    >>> losses(L, np.array([2.0, 1]), np.array([[True, True], [False, True], [True, False], [False, False]]))
    array([0.375, 1.875, 0.75 , 3.75 ])
    """
    w = L.check_w(w)
    masks = checks.array("masks", masks, (None, L.n_parameters), kinds="b")
    bits = np.empty((len(masks), -(-len(w) // 8)), dtype=np.uint8)
    for m in memory.pieces(len(masks), 4 * len(w)):
        bits[m] = np.packbits(seen_by_outputs(L, w, masks[m]), axis=1)
    first, which = _distinct(bits)

    def some(m: slice) -> np.ndarray:
        seen = np.unpackbits(bits[first[m]], axis=1, count=len(w)).view(bool)
        return chain_losses(L, w, seen) if is_chain(L.network) else np.array([L(w * mask) for mask in seen], w.dtype)

    each = bytes_of_a_mask(L, w)
    parts = list(memory.pieces(len(first), each, min(memory.BUDGET / AT_ONCE, MASKS * each)))
    with threads() if len(parts) > 1 else nullcontext() as executor:
        found = list(executor.map(some, parts)) if executor else [some(m) for m in parts]
    out = np.concatenate([np.empty(0, w.dtype), *found])[which]
    if is_chain(L.network) and L.l2:
        for m in memory.pieces(len(masks), 2 * w.nbytes):
            out[m] += 0.5 * w.dtype.type(L.l2) * (masks[m] @ w**2)
    return out


def chain_losses(L: Objective, w: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return (1/N) Σ_n ℓ_n(w ∘ mask_m) (M,), without the penalty, for the masks (M, P) of a chain.

    The caller passes no more masks at once than `bytes_of_a_mask` allows.
    """
    layers, p, kept = L.network.layers, L.network.parameters(w), L.network.parameters(masks)
    i = next(i for i, layer in enumerate(layers) if isinstance(layer, Linear))
    k = next((k for k in range(i + 1, len(layers)) if isinstance(layers[k], Linear)), len(layers))
    columns, shift, ids = _columns(p[i], kept[i])
    width = 2 * sum(layer.outputs for layer in layers if isinstance(layer, Linear))
    behind = 2 * w.itemsize * sum(view.size for own in p[k:] for view in own.values())
    total = np.zeros(len(masks), dtype=w.dtype)
    for n in memory.pieces(L.n_examples, 4 * w.itemsize * (columns.shape[1] + width)):
        x, y = _run(layers[:i], L.x[n].astype(w.dtype, copy=False)).T, L.y[n]
        y = y.astype(w.dtype, copy=False) if y.dtype.kind == "f" else y
        for m in memory.pieces(len(masks), w.itemsize * x.shape[1] * len(columns) / len(masks), _TABLE):
            used, which = np.unique(ids[m], return_inverse=True)
            answers = columns[used] @ x
            answers += shift[used, None]
            answers = _run(layers[i + 1 : k], answers)
            which = which.reshape(ids[m].shape)
            for inner in memory.pieces(len(which), w.itemsize * x.shape[1] * width + behind, _BLOCK):
                z = np.take(answers, which[inner], axis=0)
                for layer, own, on in zip(layers[k:], p[k:], kept[k:], strict=True):
                    z = _masked(own, {name: on[name][m][inner] for name in on}, z) if own else layer.forward(own, z)
                total[m][inner] += _summed(L.loss, z, y)
    total /= L.n_examples
    for overflown in np.flatnonzero(~np.isfinite(total)):
        alone = w * masks[overflown]
        total[overflown] = L(alone) - L.penalty(alone)
    return total


def pairs(L: Objective, w: np.ndarray, among: np.ndarray | None = None) -> np.ndarray:
    """Return the losses (n, n) with weights j and k both removed, for the n candidates in `among` (P,) bool, or all.

    In the units of L, symmetric; the diagonal is the loss with one weight removed, so that with s = diag − L(w) the
    exact saliencies, the interaction of a pair is

        s_jk − s_j − s_k,    s_jk = pairs[j, k] − L(w)

    For a loss that is quadratic in w it is H_jk w_j w_k. Row j belongs to the j-th candidate by index. The result
    takes 8 n² bytes, everything else stays in the memory budget. Raises ValueError for a wrong `among`.
    """
    w = L.check_w(w)
    candidates = candidates_of(L, among)
    n = len(candidates)
    out = np.empty((n, n), dtype=w.dtype)
    for entries in memory.pieces(n * n, 4 * len(w) + 64):
        j, k = np.divmod(np.arange(entries.start, entries.stop), n)
        j, k = j[j <= k], k[j <= k]
        masks = np.ones((len(j), len(w)), dtype=bool)
        masks[np.arange(len(j)), candidates[j]] = masks[np.arange(len(j)), candidates[k]] = False
        out[j, k] = out[k, j] = losses(L, w, masks)
    return out


@dataclass(frozen=True)
class BestSubset:
    """The best way to remove k weights: the mask (P,), False on them, its loss L(w ∘ mask), and of how many masks."""

    mask: np.ndarray
    loss: float
    examined: int


def best_subsets(
    L: Objective, w: np.ndarray, k: int, among: np.ndarray | None = None, limit: int = 5_000_000
) -> BestSubset:
    """Return the mask of least L(w ∘ mask) among all that remove exactly k of the candidates in `among` (P,) bool.

    All C(n, k) masks are computed; of those that tie, to rounding, it is the first in the lexicographic order of the
    removed indices. Raises ValueError with the count where C(n, k) exceeds `limit`, and for k outside 0..n.

    No branch is cut off, since no bound holds in general: the loss does not grow with the set that is removed. One
    example x = (1, 1), y = 0, w = (1, −1) and ½(w·x − y)² give 0 with both weights, ½ with either removed and 0 again
    with both removed: the loss of a partial set bounds nothing that contains it, not even in linear least squares.
    ℓ >= 0 leaves the penalty of the weights that stay, far below the losses that are compared. Where the loss is
    quadratic in the candidates a relaxation of its quadratic form bounds it; that case needs no network.
    """
    w = checks.array("w", w, (L.n_parameters,))
    candidates = candidates_of(L, among)
    k = checks.integer("k", k, 0, len(candidates))
    limit = checks.integer("limit", limit, 1)
    count = math.comb(len(candidates), k)
    if count > limit:
        raise ValueError(f"k: {k} of {len(candidates)} candidates can be removed in {count:,} ways; limit is {limit:,}")
    sets = itertools.combinations(candidates.tolist(), k)
    best, chosen = np.inf, ()
    for piece in memory.pieces(count, 4 * len(w) + 64 * (k + 4)):
        listed = np.array(list(itertools.islice(sets, piece.stop - piece.start)), dtype=np.intp)
        masks = np.ones((len(listed), len(w)), dtype=bool)
        masks[np.arange(len(listed))[:, None], listed] = False
        values = losses(L, w, masks)
        tie = rounding(values)
        if values.min() < best - tie:
            first = np.flatnonzero(values <= values.min() + tie)[0]
            best, chosen = values[first], listed[first]
    mask = np.ones(len(w), dtype=bool)
    mask[list(chosen)] = False
    return BestSubset(mask, float(best), count)


def candidates_of(L: Objective, among: np.ndarray | None) -> np.ndarray:
    """Return the indices (n,) that `among` (P,) bool selects, all of them where it is None."""
    if among is None:
        return np.arange(L.n_parameters)
    return np.flatnonzero(checks.array("among", among, (L.n_parameters,), kinds="b"))


def rounding(values: np.ndarray) -> float:
    """Return the difference below which two losses count as equal: 64 ε of the largest."""
    return float(64 * np.finfo(values.dtype).eps * np.abs(values).max(initial=0))


def seen_by_outputs(L: Objective, w: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the masks (M, P) without the weights that no output can see: those at 0 and those into a unit cut off."""
    seen = masks & (w != 0)
    if is_chain(L.network):
        linear = [own for own in L.network.parameters(seen) if own]
        for before, after in reversed(list(itertools.pairwise(linear))):
            heard = after["weight"].any(axis=-1)
            before["weight"] &= heard[:, None]
            if "bias" in before:
                before["bias"] &= heard
    return seen


def _distinct(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each different row of bits (M, B) uint8 is first (U,), and which of these every row is (M,)."""
    whole = -(-bits.shape[1] // 8) * 8
    keys = np.zeros((len(bits), whole), dtype=np.uint8)
    keys[:, : bits.shape[1]] = bits
    _, first, which = np.unique(
        keys.view(np.uint64 if whole == 8 else f"V{whole}").ravel(), return_index=True, return_inverse=True
    )
    return first, which


def _columns(own: dict[str, np.ndarray], kept: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the different masked columns (U, inputs) of a linear layer, their biases (U,) and which ones a mask has.

    The last is (M, outputs), for `kept`, the layer's masks (M, inputs, outputs) and (M, outputs).
    """
    on = np.ascontiguousarray(kept["weight"].swapaxes(1, 2))
    if "bias" in kept:
        on = np.concatenate([on, kept["bias"][:, :, None]], axis=2)
    bits = np.packbits(on, axis=2)
    columns, ids, found = [], np.empty(on.shape[:2], dtype=np.intp), 0
    rows = np.vstack([own["weight"], own["bias"]]) if "bias" in own else own["weight"]
    for b in range(on.shape[1]):
        first, which = _distinct(bits[:, b])
        columns.append(on[first, b] * rows[:, b])
        ids[:, b] = found + which
        found += len(first)
    stacked = np.concatenate(columns)
    inputs = len(own["weight"])
    return stacked[:, :inputs], stacked[:, inputs:].sum(axis=1), ids


def _run(layers: tuple[Layer, ...], x: np.ndarray) -> np.ndarray:
    for layer in layers:
        x = layer.forward({}, x)
    return x


def _masked(own: dict[str, np.ndarray], on: dict[str, np.ndarray], h: np.ndarray) -> np.ndarray:
    """Return the outputs (m, outputs, N) of a linear layer under m masks, for inputs (m, inputs, N)."""
    z: np.ndarray = (own["weight"] * on["weight"]).swapaxes(1, 2) @ h
    if "bias" in own:
        z += (own["bias"] * on["bias"])[:, :, None]
    return z


def _summed(loss: Loss, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Σ_n ℓ(z_n, y_n) (m,) for outputs (m, C, N), which are overwritten.

    For labels it is log1p Σ_{c≠y} exp(z_c − z_y), which keeps every digit of a small loss; where it overflows the
    result is inf or NaN.
    """
    labels = z.dtype.kind == "f" and isinstance(loss, SoftmaxCrossEntropy) and y.ndim == 1
    binary = z.dtype.kind == "f" and isinstance(loss, BinaryCrossEntropy) and ((y == 0) | (y == 1)).all()
    with np.errstate(over="ignore", invalid="ignore"):
        if labels and z.shape[1] == 2:
            margins = z[:, 1] - z[:, 0]
            margins *= (1 - 2 * y).astype(z.dtype)
        elif labels:
            n = np.arange(len(y))
            z -= z.reshape(len(z), -1).take(y * len(n) + n, axis=1)[:, None]
            z[:, y, n] = -np.inf
            return loss.scale * np.log1p(np.exp(z, out=z).sum(axis=1)).sum(axis=1)
        elif binary:
            margins = np.multiply(z, (1 - 2 * y.T).astype(z.dtype), out=z).reshape(len(z), -1)
        else:
            return loss.value(z.swapaxes(1, 2), y).sum(axis=1)
        return loss.scale * np.log1p(np.exp(margins, out=margins), out=margins).sum(axis=1)


def bytes_of_a_mask(L: Objective, w: np.ndarray) -> float:
    """Return how many bytes one mask and its columns take in `chain_losses`, the listing of the mask included."""
    return 4 * w.nbytes + 64 * len(w)
