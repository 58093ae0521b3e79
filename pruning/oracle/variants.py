"""Further quantities that implementations compute instead: other blocks, other networks, other orders of summing.

Each function takes the Quantities of an objective and yields slips of one family; `of` is the criterion they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from minimal_nn.curvature.blocks import layer_slices
from minimal_nn.curvature.closed_form import is_chain
from minimal_nn.curvature.products import products
from minimal_nn.layers import Activation, Identity, Linear
from minimal_nn.losses import SoftmaxCrossEntropy
from minimal_nn.network import Network
from pruning.oracle.quantities import MOST_FOR_MATRICES, Quantities, Quantity

if TYPE_CHECKING:
    from minimal_nn.objective import Objective

#: logits are divided by this in the authors' code of GraSP
_TEMPERATURE = 200.0


def all_variants(known: Quantities) -> Iterator[Quantity]:
    """Yield every variant that can be computed here."""
    yield from _of_weights(known)
    yield from _of_lamp(known)
    yield from _of_gradients(known)
    yield from _of_batches(known)
    yield from _of_layers(known)
    if len(known.w) <= MOST_FOR_MATRICES:
        yield from _of_outputs(known)
        yield from _of_inverses(known)
    if is_chain(known.L.network):
        yield from _of_recursion(known)
        yield from _of_flow(known)


def _of_weights(known: Quantities) -> Iterator[Quantity]:
    w, layout = known.w, known.L.network.layout
    centred = w.copy()
    for name in layout:
        centred[layout[name]] -= w[layout[name]].mean()
    yield Quantity("|w_j − the mean of its tensor|", np.abs(centred), "magnitude")
    for said, vector, of in (
        ("the norm of the weights into the unit", w**2, "magnitude"),
        ("the sum of |w| into the unit", np.abs(w), "magnitude"),
        ("the sum of g w into the unit", known.g * w, "taylor"),
        ("the sum of |g w| into the unit", np.abs(known.g * w), "taylor"),
    ):
        for bias in (False, True):
            spread = _spread_over_units(known, vector, bias)
            spread = np.sqrt(spread) if "norm" in said else np.abs(spread)
            yield Quantity(f"{said}{', bias too' if bias else ''}, for each of its weights", spread, of)


def _spread_over_units(known: Quantities, vector: np.ndarray, bias: bool) -> np.ndarray:
    """Return for every weight the sum of the vector over its output unit; a bias keeps its own, unless it joins in."""
    out = vector.copy()
    for index, _ in products(known.L.subset(slice(0, 1)), known.w):
        used = index if bias else index[: len(index) - _has_bias(known, index)]  # biases are the last input
        out[used] = vector[used].sum(axis=0)
    return out


def _has_bias(known: Quantities, index: np.ndarray) -> bool:
    layout = known.L.network.layout
    return any(name.endswith("bias") and layout[name].start == index[-1, 0] for name in layout)


def _of_lamp(known: Quantities) -> Iterator[Quantity]:
    w, layout = known.w, known.L.network.layout
    absolute, signed, unsorted, exclusive = (np.zeros_like(w) for _ in range(4))
    for name in layout:
        own = np.arange(layout[name].start, layout[name].stop)
        ascending = own[np.argsort(w[own] ** 2, kind="stable")]
        absolute[ascending] = _share(np.abs(w[ascending]))
        unsorted[own] = _share(w[ascending] ** 2)
        by_sign = own[np.argsort(w[own], kind="stable")]
        signed[by_sign] = _share(w[by_sign] ** 2)
        squares = w[ascending] ** 2
        larger = np.append(np.cumsum(squares[::-1])[::-1][1:], 0)
        exclusive[ascending] = np.divide(squares, larger, out=squares / 1e-9, where=larger > 0)
    yield Quantity("|w_j| over the sum of |w| that are not smaller: lamp without squares", absolute, "lamp")
    yield Quantity("lamp in the order of the signed weights", signed, "lamp")
    yield Quantity("lamp, sorted and not put back in place", unsorted, "lamp")
    yield Quantity("w_j² over the sum of what is larger, without its own", exclusive, "lamp")
    order = np.argsort(w**2, kind="stable")
    together = np.empty_like(w)
    together[order] = _share(w[order] ** 2)
    yield Quantity("lamp over all tensors at once: an increasing function of magnitude", together, "lamp")


def _share(ascending: np.ndarray) -> np.ndarray:
    remaining = np.cumsum(ascending[::-1])[::-1]
    return np.divide(ascending, remaining, out=np.zeros_like(ascending), where=remaining > 0)


def _of_gradients(known: Quantities) -> Iterator[Quantity]:
    L, w, g = known.L, known.w, known.g
    yield Quantity("−g_j |w_j|: the weight without its sign", -g * np.abs(w), "taylor_signed")
    turned = g.copy()
    for name, shape in L.network.layout.shapes.items():
        if len(shape) == 2:
            turned[L.network.layout[name]] = g[L.network.layout[name]].reshape(shape).T.ravel()
    yield Quantity("|g w| with the gradient's matrices transposed", np.abs(turned * w), "taylor")
    third = known.exact - (-g * w) - 0.5 * known.hessian_diagonal * w**2
    yield Quantity("the exact saliency less its two Taylor terms", third, "exact")
    if isinstance(L.loss, SoftmaxCrossEntropy):
        yield Quantity("|g w| of softmax taken twice", np.abs(_double_softmax(known) * w), "taylor")
        last = list(layer_slices(L.network.layout).values())[-1]
        if isinstance(L.network.layers[-1], Linear):
            scale = np.ones_like(w)
            scale[last] = 1 / _TEMPERATURE
            cooled = w * scale
            Hg = scale * L.hvp(cooled, scale**2 * L.gradient(cooled))
            yield Quantity(f"grasp of logits divided by {_TEMPERATURE:g}", w * Hg, "grasp")
    if len(w) <= MOST_FOR_MATRICES:
        rows = 0.5 * w**2 * known.hessian.sum(axis=1)
        yield Quantity("½ w_j² times the sum of row j of H, not its diagonal", rows, "obd")


def _double_softmax(known: Quantities) -> np.ndarray:
    L, w = known.L, known.w
    total = np.zeros_like(w)
    for trace, y in L.traces(w):
        p = _softmax(trace[-1])
        by = L.loss.gradient(p, y)
        total += L.network.vjp(w, trace, p * (by - (p * by).sum(axis=1, keepdims=True)))
    return total / L.n_examples + L.l2 * w


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def _of_batches(known: Quantities) -> Iterator[Quantity]:
    L, w, N = known.L, known.w, known.L.n_examples
    half = L.subset(slice(0, N // 2)) if N > 1 else L
    if N > 1:
        rest = L.subset(slice(N // 2, N))
        yield Quantity(
            "w (H g) with g of the first half and H of the second", w * rest.hvp(w, half.gradient(w)), "grasp"
        )
    for b in known.batches:
        if not 1 < b < N:
            continue
        parts = [slice(s, min(s + b, N)) for s in range(0, N, b)]
        means = np.array([known.rows[part].mean(axis=0) for part in parts])
        counts = np.array([part.stop - part.start for part in parts])
        growing = np.abs(np.cumsum(means, axis=0) * w).mean(axis=0)
        yield Quantity(
            f"the mean of |w (g_1 + … + g_b)| over batches of {b}: gradients not set to zero", growing, "taylor"
        )
        weighted = (counts[:, None] * means**2).sum(axis=0) / N * w**2
        yield Quantity(f"the mean over examples of (w g_b)², g_b of their batch of {b}", weighted, "fisher_empirical")
        yield Quantity(f"w (H_b g_b), the mean over batches of {b}", _grasp_by_batch(L, w, parts), "grasp")
        if N % b:
            full = known.rows[: N - N % b].mean(axis=0) + L.l2 * w
            yield Quantity(f"taylor without the last, short batch of {b}", np.abs(full * w), "taylor")
        if len(w) <= MOST_FOR_MATRICES:
            for damping in known.dampings[:2]:
                found = _inverse_score(means.T @ means / len(means), w, damping)
                said = f"woodfisher(damping={damping:g}) of the mean gradients of batches of {b}"
                yield Quantity(said, found, "woodfisher")


def _grasp_by_batch(L: Objective, w: np.ndarray, parts: list[slice]) -> np.ndarray:
    each = [L.subset(part) for part in parts]
    return np.mean([w * part.hvp(w, part.gradient(w)) for part in each], axis=0)


def _of_layers(known: Quantities) -> Iterator[Quantity]:
    L, w = known.L, known.w
    squares, outputs = np.zeros_like(w), np.zeros_like(w)
    for index, x in products(L, w):
        squares[index] += (x**2).sum(axis=0)[:, None]
        outputs[index] += ((x @ w[index]) ** 2).sum(axis=0)
    yield Quantity("w² ‖X‖₂: the weight squared", w**2 * np.sqrt(squares), "wanda")
    yield Quantity("|w| times the norm of the unit's own output", np.abs(w) * np.sqrt(outputs), "wanda")
    if is_chain(L.network):
        before = np.zeros_like(w)
        views = L.network.parameters(before)
        for trace, _ in L.traces(w):
            for i, layer in enumerate(L.network.layers):
                if isinstance(layer, Linear):
                    z = trace[i - 1] if i and isinstance(L.network.layers[i - 1], Activation) else trace[i]
                    views[i]["weight"][...] += (z**2).sum(axis=0)[:, None]
                    if layer.bias:
                        views[i]["bias"][...] += len(z)
        yield Quantity("|w| ‖Z‖₂, the inputs before their activation", np.abs(w) * np.sqrt(before), "wanda")

    for b in known.batches:
        if 1 < b < L.n_examples:
            norms = np.zeros_like(w)
            parts = range(0, L.n_examples, b)
            for start in parts:
                for index, x in products(L.subset(slice(start, start + b)), w):
                    norms[index] += np.sqrt((x**2).sum(axis=0))[:, None] / len(parts)
            yield Quantity(f"|w| times the mean over batches of {b} of ‖X_b‖₂", np.abs(w) * norms, "wanda")
    yield from _of_layer_inverses(known)


def _of_layer_inverses(known: Quantities) -> Iterator[Quantity]:
    """Yield OBS of the layers' outputs with another matrix, or another reading of its inverse, and Wanda centred."""
    L, w = known.L, known.w
    grams: dict[int, list] = {}
    for index, x in products(L, w):
        kept = grams.setdefault(int(index[0, 0]), [index, 0.0, 0.0, 0])
        kept[1], kept[2], kept[3] = kept[1] + x.T @ x, kept[2] + x.sum(axis=0), kept[3] + len(x)
    centred = np.zeros_like(w)
    for index, gram, total, count in grams.values():
        spread = np.sqrt(np.maximum(np.diag(gram) - total**2 / count, 0))
        if _has_bias(known, index):
            spread[-1] = np.sqrt(count)
        centred[index] = np.abs(w[index]) * spread[:, None]
    yield Quantity("|w| ‖X − mean X‖₂: the inputs centred", centred, "wanda")
    for damping in known.dampings:
        said = f"obs_layerwise(damping={damping:g})"
        made = {name: np.zeros_like(w) for name in _LAYER_INVERSES}
        for index, gram, total, count in grams.values():
            A = gram / L.n_examples
            covariance = A - np.outer(total, total) / (count * L.n_examples)
            bias = _has_bias(known, index)
            for name, pivots in _LAYER_INVERSES.items():
                with np.errstate(divide="ignore", invalid="ignore"):
                    found = np.nan_to_num(pivots(A, covariance, damping, bias), posinf=0.0, neginf=0.0)
                made[name][index] = 0.5 * w[index] ** 2 * found[:, None]
        for name, scores in made.items():
            yield Quantity(f"{said} {name}", scores, "obs_layerwise")


def _pivots(A: np.ndarray, damping: float) -> np.ndarray:
    """Return 1 / [(A + damping·I)⁻¹]_ii (q,)."""
    try:
        return np.asarray(1 / np.diag(np.linalg.inv(A + damping * np.eye(len(A)))))
    except np.linalg.LinAlgError:
        return np.zeros(len(A))


def _without_ones(A: np.ndarray, C: np.ndarray, damping: float, bias: bool) -> np.ndarray:
    if not bias:
        return _pivots(A, damping)
    return np.append(_pivots(A[:-1, :-1], damping), A[-1, -1] + damping)


def _cholesky_pivots(A: np.ndarray, C: np.ndarray, damping: float, bias: bool) -> np.ndarray:
    try:
        inverse = np.linalg.inv(A + damping * np.eye(len(A)))
        return np.asarray(1 / np.diag(np.linalg.cholesky(inverse).T) ** 2)
    except np.linalg.LinAlgError:
        return np.zeros(len(A))


_LAYER_INVERSES = {
    "without the ones of the bias": _without_ones,
    "of the inputs' covariance": lambda A, C, d, bias: _pivots(C, d),
    "by the diagonal alone": lambda A, C, d, bias: np.diag(A) + d,
    "by the Cholesky factor of the inverse: later inputs alone make up": _cholesky_pivots,
    "with the square root of [A⁻¹]_ii": lambda A, C, d, bias: np.sqrt(np.abs(_pivots(A, d))),
}


def _of_outputs(known: Quantities) -> Iterator[Quantity]:
    L, w = known.L, known.w
    plain, diagonal, of_probabilities = (np.zeros_like(w) for _ in range(3))
    for trace, _ in L.traces(w, extra=4 * L.n_outputs * len(w)):
        J, H = L.output_jacobian(w, trace), L.loss.hessian(trace[-1])
        plain += (J**2).sum(axis=(0, 1))
        diagonal += np.einsum("ncj,ncc->j", J**2, H)
        if isinstance(L.loss, SoftmaxCrossEntropy):
            p = _softmax(trace[-1])
            moved = p[:, :, None] * (J - np.einsum("nc,ncj->nj", p, J)[:, None])
            of_probabilities += (p[:, :, None] * moved**2).sum(axis=(0, 1))
    half = 0.5 * w**2 / L.n_examples
    yield Quantity("½ w_j² times the squared slopes of the outputs, without the output Hessian", half * plain, "fisher")
    yield Quantity("½ w_j² with the diagonal of the output Hessian alone", half * diagonal, "fisher")
    if of_probabilities.any():
        yield Quantity("½ w_j² times the squared slopes of the probabilities", half * of_probabilities, "fisher")
    factored = np.zeros_like(w)
    for index, x in products(L, w):
        if len(x) == L.n_examples:
            bias = known.rows[:, index[-1]] if _has_bias(known, index) else None
            if bias is not None:
                factored[index] = (x**2).mean(axis=0)[:, None] * (bias**2).mean(axis=0)
    yield Quantity("½ w_j² mean(x²) mean(δ²): the factors of K-FAC", 0.5 * w**2 * factored, "fisher_empirical")
    root = 0.5 * w**2 * np.sqrt(known.moments[1])
    yield Quantity("½ w_j² times the root of the mean of g_nj²", root, "fisher_empirical")


def _of_inverses(known: Quantities) -> Iterator[Quantity]:
    w, layout = known.w, known.L.network.layout
    g, h = known.g, known.hessian_diagonal
    tensors = [np.arange(layout[name].start, layout[name].stop) for name in layout]
    layers = [np.arange(own.start, own.stop) for own in layer_slices(layout).values()]
    units = [column for index, _ in products(known.L.subset(slice(0, 1)), w) for column in index.T]
    rows = [part for index, _ in products(known.L.subset(slice(0, 1)), w) for part in _rows(known, index)]
    for of, M in (("obs", known.hessian), ("woodfisher", known.empirical)):
        for damping in known.dampings:
            for said, blocks in (
                ("tensor", tensors),
                ("layer", layers),
                ("output unit", units),
                ("row of a matrix", rows),
            ):
                scores = np.zeros_like(w)
                for own in blocks:
                    scores[own] = _inverse_score(M[np.ix_(own, own)], w[own], damping)
                yield Quantity(f"{of}(damping={damping:g}) within every {said}", scores, of)
            mean = np.diag(M).mean()
            for factor, name in (
                (mean, "times the mean of the diagonal"),
                (1 / known.L.n_examples, "over N"),
                (2.0, "twice"),
            ):
                scores = _inverse_score(M, w, damping * factor)
                yield Quantity(f"{of} with damping {damping:g} {name}", scores, of)
    for damping in known.dampings:
        M = known.hessian + damping * np.eye(len(w))
        try:
            inverse = np.linalg.inv(M)
        except np.linalg.LinAlgError:
            continue
        diagonal, step = np.diag(inverse), inverse @ g
        gain, name = 0.5 * g @ step, f"obs_gradient(damping={damping:g})"
        with np.errstate(divide="ignore", invalid="ignore"):
            yield Quantity(f"{name} with w + M⁻¹g", (w + step) ** 2 / (2 * diagonal) - gain, "obs_gradient")
            yield Quantity(
                f"{name} with g_j/M_jj for the step",
                (w - g / (h + damping)) ** 2 / (2 * diagonal) - gain,
                "obs_gradient",
            )
            yield Quantity(f"obs(damping={damping:g}) − g_j w_j", w**2 / (2 * diagonal) - g * w, "obs_gradient")


def _rows(known: Quantities, index: np.ndarray) -> list[np.ndarray]:
    """Return the weights into every output unit, and the biases one by one."""
    bias = _has_bias(known, index)
    weights = index[: len(index) - bias]
    return [*weights.T, *([np.array([j]) for j in index[-1]] if bias else [])]


def _inverse_score(M: np.ndarray, w: np.ndarray, damping: float) -> np.ndarray:
    """Return w_j² / (2 [(M + damping·I)⁻¹]_jj), whatever the signs of the eigenvalues; zeros where it is singular."""
    try:
        diagonal = np.diag(np.linalg.inv(M + damping * np.eye(len(M))))
    except np.linalg.LinAlgError:
        return np.zeros_like(w)
    return np.divide(w**2, 2 * diagonal, out=np.zeros_like(w), where=np.abs(diagonal) > 1e-300)


def _of_recursion(known: Quantities) -> Iterator[Quantity]:
    """Yield LeCun's recursion with its usual slips."""
    for said, bend, power_of_w, power_of_x in (
        ("without the second derivative of the activation (Levenberg-Marquardt)", 0.0, 2, 2),
        ("with the sign of φ″ turned", -1.0, 2, 2),
        ("passed back by W, not W²", 1.0, 1, 2),
        ("with x for x²", 1.0, 2, 1),
    ):
        h = _recursion(known, bend, power_of_w, power_of_x)
        yield Quantity(f"obd_recursive {said}", 0.5 * h * known.w**2, "obd_recursive")


def _recursion(known: Quantities, bend: float, power_of_w: int, power_of_x: int) -> np.ndarray:
    L, w = known.L, known.w
    own, diagonal = L.network.parameters(w), np.zeros_like(w)
    views = L.network.parameters(diagonal)
    for trace, y in L.traces(w, extra=L.n_outputs**2):
        adjoints = L.network.adjoints(w, trace, L.loss.gradient(trace[-1], y))
        h = np.einsum("ncc->nc", L.loss.hessian(trace[-1]))
        for i in range(len(L.network.layers) - 1, -1, -1):
            layer, x, z = L.network.layers[i], trace[i], trace[i + 1]
            if isinstance(layer, Activation):
                if adjoints[i] is None:
                    break
                h = layer.derivative(x, z) ** 2 * h + bend * layer.second_derivative(x, z) * adjoints[i]
                continue
            views[i]["weight"][...] += (x**power_of_x).T @ h
            if "bias" in views[i]:
                views[i]["bias"][...] += h.sum(axis=0)
            h = h @ (own[i]["weight"] ** power_of_w).T
    return diagonal / L.n_examples + L.l2


def _of_flow(known: Quantities) -> Iterator[Quantity]:
    L, w = known.L, known.w
    linear = Network(*(Identity() if isinstance(layer, Activation) else layer for layer in L.network.layers))
    ones = np.ones((1, *L.x.shape[1:]))
    bare = np.where(L.network.layout.select("weight"), w, 0)
    for said, network, at, x in (
        ("with biases on the way", linear, np.abs(w), ones),
        ("with the activations in place", L.network, np.abs(bare), ones),
        ("with biases and activations in place", L.network, np.abs(w), ones),
        ("on the absolute examples", linear, np.abs(bare), np.abs(L.x)),
        ("on the examples", linear, np.abs(bare), L.x),
        ("with signed weights, whose paths cancel", linear, bare, ones),
        ("of squared weights: the path norm", linear, bare**2, ones),
    ):
        with np.errstate(over="ignore", invalid="ignore"):
            trace = network.trace(at, x)
            flow = at * network.vjp(at, trace, np.ones_like(trace[-1]))
        yield Quantity(f"synflow {said}", np.abs(flow), "synflow")
