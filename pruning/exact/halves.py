"""How much of an exact saliency is noise of the sample: the same on disjoint halves of the examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.products import PRODUCTS, product_rows
from minimal_nn.objective import Objective
from pruning.exact import removals
from pruning.exact.structured import weighted_saliencies


@dataclass(frozen=True)
class Halves:
    """Exact saliencies on M random splits of the examples into two halves, and on all of them.

    first and second (M, P) belong to disjoint halves of ⌊N/2⌋ and ⌈N/2⌉ examples, whole (P,) to all N; dead (P,) bool
    marks weights whose input is 0 for every example. These have s_j = −(l2/2) w_j² on every half, exactly, and a
    correlation that counts them measures how many they are.
    """

    first: np.ndarray
    second: np.ndarray
    whole: np.ndarray
    dead: np.ndarray


def split_half(L: Objective, w: np.ndarray, splits: int = 20, *, rng: np.random.Generator) -> Halves:
    """Return the exact saliencies of every parameter on both halves of `splits` random splits, in the units of L.

    What a criterion's correlation with the truth on one half is to be read beside is that of the two halves with each
    other: a reference, not a ceiling, since a score may have less noise than the truth on a sample. At a minimum of L
    the gradients of two halves of the training examples are opposite, and their saliencies with them: take others.

    The cost is little more than that of one saliency, since the examples' polynomials are the same for all splits.
    Memory: 2 M P numbers. ValueError for fewer than two examples.
    """
    w = L.check_w(w)
    splits, rng = checks.integer("splits", splits, 1), checks.generator("rng", rng)
    N = L.n_examples
    if N < 2:
        raise ValueError(f"L: expected at least 2 examples to split, got {N}")
    n = N // 2
    omega = np.zeros((splits + 1, N))
    omega[-1] = 1 / N
    for row in omega[:-1]:
        row[rng.permutation(N)[:n]] = 1 / n
    s = weighted_saliencies(L, w, omega)
    second = (N * s[-1] - n * s[:-1]) / (N - n)
    penalty, dead = 0.5 * w.dtype.type(L.l2) * w**2, _dead(L, w)
    second[:, dead] = 0
    return Halves(s[:-1] - penalty, second - penalty, s[-1] - penalty, dead)


def _dead(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return which weights of Linear and Conv2d layers multiply nothing but zeros (P,)."""
    dead = np.zeros(L.n_parameters, bool)
    at = {i: removals.index(L.network, i) for i, f in enumerate(L.network.layers) if isinstance(f, PRODUCTS)}
    for index in at.values():
        dead[index] = True
    for trace, _ in L.traces(w, extra=max(len(index) for index in at.values()) * L.x[0].size if at else 0):
        for i, index in at.items():
            dead[index[product_rows(L.network.layers[i], trace[i]).any(axis=0)]] = False
    return dead
