"""Criteria for units: `(objective, w, *, layer, **options) -> (U,)`, one score for each unit, higher = keep.

The units of a layer are its outputs behind the activations that directly follow it: h (N, U), or (N, U, H, W) for maps.
To remove unit i is to set h_i to 0, a gate at 0; the exact cost of that is exact.saliency(L, w, units=layer).
`aggregate` makes scores of units from scores of weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.products import PRODUCTS, product_index
from minimal_nn.layers import Activation
from minimal_nn.objective import Objective
from pruning.criteria.base import checked, published
from pruning.criteria.information import discrete, noisy

#: every criterion of units by its name
REGISTRY: dict[str, Callable[..., np.ndarray]] = {}


def _of_units(formula: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Turn a formula `(L, w, i, **options) -> (U,)` for the gated layer i into a criterion."""

    def scores(objective: Objective, w: np.ndarray, *, layer: int, **options: Any) -> np.ndarray:
        return formula(objective, checked(objective, w), layer, **options)

    REGISTRY[formula.__name__] = published(scores, formula)
    return scores


@_of_units
def random(L: Objective, w: np.ndarray, layer: int, *, rng: np.random.Generator) -> np.ndarray:
    """Score uniformly at random in [0, 1), drawn by `rng`."""
    return checks.generator("rng", rng).random(len(_gate_sums(L, w, layer, _zeros)))


@_of_units
def magnitude(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """‖W_i‖₂ of the weights into unit i, without its bias. Source: Li et al. 2017 (there ℓ1, `aggregate` gives it)."""
    return np.sqrt((_rows_of(L, w, layer) ** 2).sum(axis=1))


@_of_units
def geometric_median(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """Σ_k ‖W_i − W_k‖₂ over the units k of the layer: how far from all others. Source: He et al. 2019 (FPGM).

    What scores lowest is nearest to the geometric median of the layer's filters, and the others can stand for it.
    Without biases. It asks nothing of the data, and nothing of how large a filter is.
    """
    rows = _rows_of(L, w, layer)
    return np.sqrt(((rows[:, None] - rows) ** 2).sum(axis=2)).sum(axis=1)


@_of_units
def mean(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """The mean of |h_i| over examples and positions. Source: Molchanov et al. 2017, section 2.2 (activation)."""
    return _moments(L, w, layer)[0]


@_of_units
def std(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """The standard deviation of h_i over examples and positions, with 1/n. Source: Molchanov et al. 2017."""
    return _moments(L, w, layer)[1]


@_of_units
def apoz(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """1 − the share of examples and positions at which h_i is 0. Source: Hu et al. 2016 (APoZ is that share).

    Made for ReLU: an activation that is never exactly 0 gives 1 for every unit.
    """
    return 1 - _moments(L, w, layer)[2]


@_of_units
def taylor(
    L: Objective, w: np.ndarray, layer: int, *, mean_first: bool = False, by_position: bool = False
) -> np.ndarray:
    """(1/N) Σ_n |Σ_positions h_ni ∂ℓ_n/∂h_ni|: first-order change of each example's loss.

    Source: Molchanov et al. 2017. The sum over positions is ∂ℓ_n by the unit's gate. With mean_first it is
    |(1/N) Σ_n …| instead, the first-order term of the exact saliency's size, which vanishes where examples cancel. With
    by_position each unit is divided by its number of positions, as in the paper's equation 8: that changes no order
    within a layer, and the order across layers. Not an information, though it stands under that name in places. l2 does
    not enter.
    """
    sums = functools.partial(_gate_sums, L, w, layer)
    scores = np.abs(sums(lambda g: g)) if mean_first else sums(np.abs)
    return scores / (_positions(L, layer) if by_position else 1)


@_of_units
def taylor_signed(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """−(1/N) Σ_n Σ_positions h_ni ∂ℓ_n/∂h_ni: the first-order term of the exact saliency of the unit, with its sign.

    The relevance of Mozer and Smolensky 1989.
    """
    return -_gate_sums(L, w, layer, lambda g: g)


@_of_units
def fisher(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """(1/2N) Σ_n (Σ_positions h_ni ∂ℓ_n/∂h_ni)²: the empirical Fisher of the unit's gate. Source: Theis et al. 2018.

    The squares are of the examples' own gradients; squared batch gradients are another score.
    """
    return 0.5 * _gate_sums(L, w, layer, np.square)


@_of_units
def mutual_information(
    L: Objective, w: np.ndarray, layer: int, *, sigma: float | None = None, bins: int | None = None
) -> np.ndarray:
    """I(h_i; Y) in nats, of T = h_i + σε with the labels by quadrature, or of h_i in `bins` of equal width.

    Exactly one of sigma and bins. Maps enter by their mean over positions. How much a unit says of the label by itself;
    labels that are carried by pairs of units (XOR) give 0. ValueError for targets that are no labels.
    """
    h, y = _activations(L, w, layer), _labels(L)
    if (sigma is None) == (bins is None):
        raise ValueError(f"sigma: expected one of sigma and bins, got sigma={sigma!r} and bins={bins!r}")
    if sigma is not None:
        return np.array([noisy.mutual_information(unit, y, sigma) for unit in h.T])
    assert bins is not None
    return np.array([discrete.mutual_information(unit, y) for unit in discrete.quantized(h, bins).T])


@_of_units
def conditional_information(L: Objective, w: np.ndarray, layer: int, *, bins: int) -> np.ndarray:
    """I(h_i; Y | all other units of the layer) in nats, units in `bins` of equal width: what only this unit says.

    0 for a copy of another unit. On a finite sample the others soon tell every example from every other, and nothing
    is left to say: count how many different rows of bins there are before reading it.
    """
    b, y = discrete.quantized(_activations(L, w, layer), bins), _labels(L)
    others = [np.delete(b, i, axis=1) for i in range(b.shape[1])]
    return np.array(
        [
            discrete.mutual_information(b[:, i], y, given=rest if rest.shape[1] else None)
            for i, rest in enumerate(others)
        ]
    )


@_of_units
def relevance_minus_redundancy(
    L: Objective, w: np.ndarray, layer: int, *, sigma: float | None = None, bins: int | None = None
) -> np.ndarray:
    """I(h_i; Y) − the mean over other units k of I(h_i; h_k), in nats. Source: Peng, Long and Ding 2005 (mRMR).

    With sigma the pairs are T_i, T_k with independent noise, by quadrature on a plane.
    """
    relevance = mutual_information(L, w, layer=layer, sigma=sigma, bins=bins)
    h = _activations(L, w, layer)
    U = h.shape[1]
    shared = np.zeros((U, U))
    for i in range(U):
        for k in range(i):
            if sigma is not None:
                shared[i, k] = shared[k, i] = noisy.between(h[:, [i, k]], sigma)
            else:
                assert bins is not None
                pair = discrete.quantized(h[:, [i, k]], bins)
                shared[i, k] = shared[k, i] = discrete.mutual_information(pair[:, 0], pair[:, 1])
    return relevance - shared.sum(axis=1) / max(U - 1, 1)


HOWS: dict[str, Callable[[np.ndarray], float]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "l1": lambda v: np.abs(v).sum(),
    "l2": lambda v: np.sqrt((v**2).sum()),
}


def aggregate(scores: np.ndarray, groups: np.ndarray, how: str = "sum") -> np.ndarray:
    """Return one score for each group (G,) from scores of weights (P,); groups (P,) int as in exact.saliency, −1: none.

    `how` is sum, mean, max, l1 (the sum of absolute values) or l2. Sums of signed scores cancel, sums of absolute ones
    do not: abs before or after the sum are two criteria. −inf, the score of what is gone, counts as 0 in all but max.
    """
    scores = np.asarray(scores)
    groups = checks.array("groups", groups, scores.shape, kinds="iu")
    combine = HOWS[checks.one_of("how", how, HOWS)]
    if scores.ndim != 1 or scores.dtype.kind not in "fiu" or np.isnan(scores).any():
        raise ValueError(f"scores: expected real numbers of shape (P,) without NaN, got {checks.describe(scores)}")
    values = scores if how == "max" else np.where(np.isneginf(scores), 0, scores)
    ids = np.unique(groups[groups >= 0])
    gaps = np.flatnonzero(ids != np.arange(len(ids)))
    if len(gaps) or not len(ids):
        missing = f"[{gaps[0]}]" if len(gaps) else "any"
        raise ValueError(f"groups: expected ids 0..G-1, each with at least one member, got none for {missing}")
    return np.array([combine(values[groups == g]) for g in ids])


def _rows_of(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """Return the weights into each unit (U, q), without biases, of the Linear or Conv2d whose units they are."""
    layers = L.network.layers
    gate = L.network.gate(layer)
    i = next((i for i in range(gate, -1, -1) if not isinstance(layers[i], Activation)), 0)
    if not isinstance(layers[i], PRODUCTS):
        raise ValueError(
            f"layer: expected a Linear or Conv2d, or an activation behind one, got {layers[layer]}, whose units are "
            f"the outputs of {layers[i]}"
        )
    own = np.concatenate([np.ravel(v) for v in L.network.parameters(w)[i].values()])
    index = product_index(layers[i])
    return own[index[: len(index) - bool(layers[i].bias)]].T  # type: ignore[attr-defined]


def _gate_sums(L: Objective, w: np.ndarray, layer: int, f: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return (1/N) Σ_n f(Σ_positions h ∂ℓ_n/∂h) (U,), from one pass forward and back."""
    gate, total = L.network.gate(layer), None
    for trace, y in L.traces(w):
        h = trace[gate + 1]
        if gate == len(L.network.layers) - 1:
            back = L.loss.gradient(trace[-1], y)
        else:
            back = L.network.adjoints(w, trace, L.loss.gradient(trace[-1], y), first=gate)[gate]
        each = f((h * back).reshape(*h.shape[:2], -1).sum(axis=2)).sum(axis=0)
        total = each if total is None else total + each
    assert total is not None
    return np.asarray(total / L.n_examples, dtype=w.dtype)


def _zeros(g: np.ndarray) -> np.ndarray:
    return np.zeros_like(g)


def _moments(L: Objective, w: np.ndarray, layer: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean of |h|, the standard deviation of h and the share of zeros, each (U,)."""
    gate = L.network.gate(layer)
    traces = [np.moveaxis(trace[gate + 1], 1, -1) for trace, _ in L.traces(w)]
    h = np.concatenate([t.reshape(-1, t.shape[-1]) for t in traces])
    return np.abs(h).mean(axis=0), h.std(axis=0), (h == 0).mean(axis=0)


def _activations(L: Objective, w: np.ndarray, layer: int) -> np.ndarray:
    """Return h (N, U), maps by their mean over positions."""
    gate = L.network.gate(layer)
    each = [trace[gate + 1].reshape(*trace[gate + 1].shape[:2], -1).mean(axis=2) for trace, _ in L.traces(w)]
    return np.concatenate(each)


def _positions(L: Objective, layer: int) -> int:
    shape = L.x.shape[1:]
    for one in L.network.layers[: L.network.gate(layer) + 1]:
        shape = one.output_shape(shape)
    return int(np.prod(shape[1:]))


def _labels(L: Objective) -> np.ndarray:
    """Return the labels (N,): classes, or a single output of 0 and 1."""
    if L.y.ndim == 1:
        return L.y
    if L.y.shape[1] == 1 and np.isin(L.y, (0, 1)).all():
        return L.y[:, 0].astype(np.intp)
    raise ValueError("objective: expected labels, or one output that is 0 or 1, for an information about them")
