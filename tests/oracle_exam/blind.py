"""Implementations of published criteria, wrong in the ways in which people's code is wrong, and right in other ways.

They are written from the papers and from released code, and know nothing of the packages that judge them. Each is a
function `(network, loss, x, y, w) -> scores`: w and the scores are dicts "0.weight", "0.bias", "2.weight", ... of
arrays in torch's layout, weights (out, in), as of torch.nn.Sequential(Linear, activation, Linear, ...). The loss is
"cross_entropy" (labels y (N,)) or "squared_error" (½‖z − y‖², y (N, C)), a mean over the N examples, with no penalty.
A `Wrong` one computes its `truth` and not its `claim`, on some networks at least: a slip in the derivative of tanh, in
a softmax or in a label is none where the network or the loss has no such thing. A `Right` one computes its claim.
`OPTIONS` are the options with which a claim is made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Named = dict[str, np.ndarray]
OPTIONS = {
    "obs": {"damping": 0.5},
    "obs_gradient": {"damping": 0.5},
    "obs_layerwise": {"damping": 0.1},
    "woodfisher": {"damping": 0.01},
}
BATCH, RATE, STEP = 4, 0.1, 1e-20  #: examples of a batch, learning rate, complex step


@dataclass(frozen=True)
class MLP:
    """Linear layers of sizes[l] inputs and sizes[l + 1] outputs, "tanh" or "relu" between them."""

    sizes: tuple[int, ...]
    activation: str

    @property
    def names(self) -> list[str]:
        return [f"{2 * layer}" for layer in range(len(self.sizes) - 1)]


Scores = Callable[[MLP, str, np.ndarray, np.ndarray, Named], Named]


@dataclass(frozen=True)
class Wrong:
    """Scores that are claimed to be the criterion `claim`, the slip in them, and what they are instead."""

    name: str
    claim: str
    slip: str
    truth: str
    scores: Scores


@dataclass(frozen=True)
class Right:
    """Scores that are the criterion `claim`, how they are computed, and the relative error that this brings."""

    name: str
    claim: str
    how: str
    tolerance: float
    scores: Scores


BLIND: list[Wrong] = []
CORRECT: list[Right] = []


def wrong(claim: str, slip: str, truth: str) -> Callable[[Scores], Scores]:
    def register(scores: Scores) -> Scores:
        BLIND.append(Wrong(scores.__name__, claim, slip, truth, scores))
        return scores

    return register


def right(claim: str, how: str, tolerance: float = 1e-8) -> Callable[[Scores], Scores]:
    def register(scores: Scores) -> Scores:
        CORRECT.append(Right(scores.__name__, claim, how, tolerance, scores))
        return scores

    return register


def draw(seed: int) -> tuple[MLP, str, np.ndarray, np.ndarray, Named]:
    """Draw the five arguments: four seeds give each activation with each loss; BATCH leaves a rest, H + 0.3 I > 0."""
    rng = np.random.default_rng([seed, 62])
    net = MLP([(3, 4, 4, 2), (4, 5, 3), (3, 3, 3), (2, 5, 3, 3)][rng.integers(4)], ("tanh", "relu")[seed % 2])
    loss = ("cross_entropy", "squared_error")[seed // 2 % 2]
    while True:
        w: Named = {}
        for name, inputs, outputs in zip(net.names, net.sizes, net.sizes[1:], strict=False):
            w[f"{name}.weight"] = rng.standard_normal((outputs, inputs)) + 0.2
            w[f"{name}.bias"] = 0.4 * rng.standard_normal(outputs)
        x = rng.standard_normal((int(rng.choice([9, 11, 14])), net.sizes[0])) + 0.5
        z = outputs_of(net, w, x)
        if loss == "cross_entropy":
            y = np.array([rng.choice(len(p), p=p) for p in softmax(z)])
        else:
            y = z + 0.3 * rng.standard_normal(z.shape)
        if np.linalg.eigvalsh(hessian(net, loss, x, y, w))[0] > -0.3:
            return net, loss, x, y, w


# ---------------------------------------------------------------------------------------- the network, by hand


def phi(net: MLP, z: np.ndarray) -> np.ndarray:
    return np.tanh(z) if net.activation == "tanh" else np.where(z.real > 0, z, z.dtype.type(0))


def dphi(net: MLP, z: np.ndarray) -> np.ndarray:
    return 1 - np.tanh(z) ** 2 if net.activation == "tanh" else (z.real > 0).astype(z.dtype)


def ddphi(net: MLP, z: np.ndarray) -> np.ndarray:
    return -2 * np.tanh(z) * (1 - np.tanh(z) ** 2) if net.activation == "tanh" else np.zeros_like(z)


def forward(net: MLP, w: Named, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the inputs (N, in) and the outputs before the activation (N, out) of every Linear."""
    X, Z = [x], []
    for name in net.names:
        Z.append(X[-1] @ w[f"{name}.weight"].T + w[f"{name}.bias"])
        X.append(phi(net, Z[-1]))
    return X[:-1], Z


def outputs_of(net: MLP, w: Named, x: np.ndarray) -> np.ndarray:
    return forward(net, w, x)[1][-1]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.real.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def losses(loss: str, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ℓ_n (N,)."""
    if loss == "squared_error":
        return 0.5 * ((z - y) ** 2).sum(axis=1)
    return -np.log(softmax(z)[np.arange(len(y)), y])


def output_gradient(loss: str, z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ∂ℓ_n/∂z (N, C)."""
    return z - y if loss == "squared_error" else softmax(z) - np.eye(z.shape[1], dtype=z.dtype)[y]


def output_hessian(loss: str, z: np.ndarray) -> np.ndarray:
    """Return ∂²ℓ_n/∂z² (N, C, C)."""
    p, eye = softmax(z), np.eye(z.shape[1])
    return np.stack([eye if loss == "squared_error" else np.diag(q) - np.outer(q, q) for q in p])


def deltas(net: MLP, w: Named, Z: list[np.ndarray], dz: np.ndarray) -> list[np.ndarray]:
    """Return ∂ℓ_n/∂Z of every Linear, from that of the last."""
    D = [dz]
    for name, z in zip(net.names[:0:-1], Z[-2::-1], strict=True):
        D.insert(0, D[0] @ w[f"{name}.weight"] * dphi(net, z))
    return D


def pulled_back(net: MLP, w: Named, x: np.ndarray, dz: np.ndarray) -> Named:
    """Return the gradients of every example alone, with a leading axis N, from ∂ℓ_n/∂z."""
    X, Z = forward(net, w, x)
    g: Named = {}
    for name, inputs, d in zip(net.names, X, deltas(net, w, Z, dz), strict=True):
        g[f"{name}.weight"], g[f"{name}.bias"] = d[:, :, None] * inputs[:, None, :], d
    return g


def example_gradients(net: MLP, loss: str, x: np.ndarray, y: np.ndarray, w: Named) -> Named:
    return pulled_back(net, w, x, output_gradient(loss, outputs_of(net, w, x), y))


def gradient(net: MLP, loss: str, x: np.ndarray, y: np.ndarray, w: Named) -> Named:
    return {k: v.mean(axis=0) for k, v in example_gradients(net, loss, x, y, w).items()}


def mean_loss(net: MLP, loss: str, x: np.ndarray, y: np.ndarray, w: Named) -> float:
    return losses(loss, outputs_of(net, w, x), y).mean()


def flat(a: Named) -> np.ndarray:
    return np.concatenate([v.ravel() for v in a.values()])


def named(v: np.ndarray, like: Named) -> Named:
    ends = np.cumsum([a.size for a in like.values()])
    return {k: p.reshape(like[k].shape) for k, p in zip(like, np.split(v, ends[:-1]), strict=True)}


def hvp(net: MLP, loss: str, x: np.ndarray, y: np.ndarray, w: Named, v: Named) -> Named:
    """Return H v by the complex step."""
    g = gradient(net, loss, x, y, {k: w[k] + 1j * STEP * v[k] for k in w})
    return {k: g[k].imag / STEP for k in w}


def hessian(net: MLP, loss: str, x: np.ndarray, y: np.ndarray, w: Named) -> np.ndarray:
    """Return H (P, P) in the order of `flat`."""
    unit = np.eye(flat(w).size)
    return np.stack([flat(hvp(net, loss, x, y, w, named(e, w))) for e in unit])


def gauss_newton(net: MLP, loss: str, x: np.ndarray, w: Named) -> np.ndarray:
    """Return G (P, P), from the Jacobians of the outputs."""
    J, Q = jacobian(net, w, x), output_hessian(loss, outputs_of(net, w, x))
    return np.einsum("ncp,ncd,ndq->pq", J, Q, J) / len(x)


def jacobian(net: MLP, w: Named, x: np.ndarray) -> np.ndarray:
    """Return ∂z_nc/∂w (N, C, P)."""
    C = net.sizes[-1]
    rows = [pulled_back(net, w, x, np.tile(e, (len(x), 1))) for e in np.eye(C)]
    return np.stack([np.concatenate([v.reshape(len(x), -1) for v in g.values()], axis=1) for g in rows], axis=1)


def rows_of(net: MLP, loss: str, x: np.ndarray, y: np.ndarray, w: Named) -> np.ndarray:
    """Return the gradients of every example (N, P)."""
    return np.concatenate([g.reshape(len(x), -1) for g in example_gradients(net, loss, x, y, w).values()], axis=1)


def batches(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(x), BATCH):
        yield x[start : start + BATCH], y[start : start + BATCH]


def after_step(net: MLP, loss: str, x: np.ndarray, y: np.ndarray, w: Named) -> Named:
    g = gradient(net, loss, x, y, w)
    return {k: w[k] - RATE * g[k] for k in w}


def layer_inputs(net: MLP, w: Named, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return each Linear's inputs with a column of ones for its bias, by its name."""
    return {k: np.column_stack([a, np.ones(len(a))]) for k, a in zip(net.names, forward(net, w, x)[0], strict=True)}


def by_inputs(net: MLP, w: Named, rule: Callable[[str, np.ndarray], np.ndarray]) -> Named:
    """Return rule(layer, [W b]) of every layer, cut into weights and biases again, in the order of w."""
    scores: Named = {}
    for name in net.names:
        s = rule(name, np.column_stack([w[f"{name}.weight"], w[f"{name}.bias"]]))
        scores[f"{name}.weight"], scores[f"{name}.bias"] = s[:, :-1], s[:, -1]
    return scores


def flow(net: MLP, w: Named, x: np.ndarray, biases: bool, linear: bool) -> tuple[float, Named]:
    """Return R, the sum of the outputs of the network w for x, and w ∂R/∂w."""
    w = {k: v if biases or k.endswith("weight") else np.zeros_like(v) for k, v in w.items()}
    net = MLP(net.sizes, "relu") if linear else net  # the identity for what is positive
    g = pulled_back(net, w, x, np.ones((len(x), len(w[f"{net.names[-1]}.bias"]))))
    return outputs_of(net, w, x).sum(), {k: w[k] * g[k].sum(axis=0) for k in w}


# ---------------------------------------------------------------------------------------- wrong: weights alone


@wrong("magnitude", "the absolute value is forgotten", "the signed weight: the most negative goes first")
def magnitude_signed(net, loss, x, y, w):
    return {k: v.copy() for k, v in w.items()}


@wrong("magnitude", "min-max normalised within each tensor", "(|w| − min |w|) / (max |w| − min |w|) of the tensor")
def magnitude_min_max(net, loss, x, y, w):
    return {k: (abs(v) - abs(v).min()) / np.ptp(abs(v)) for k, v in w.items()}


@wrong("magnitude", "a softmax over the scores of each tensor", "exp |w| / Σ exp |w| over the tensor")
def magnitude_softmaxed(net, loss, x, y, w):
    return {k: np.exp(abs(v)) / np.exp(abs(v)).sum() for k, v in w.items()}


@wrong("magnitude", "L2 scores, squared and never rooted", "w²: the order is right, the scale is not")
def magnitude_squared(net, loss, x, y, w):
    return {k: v**2 for k, v in w.items()}


@wrong("magnitude", "weights centred before the absolute value", "the distance of w from the mean of its tensor")
def magnitude_centred(net, loss, x, y, w):
    return {k: abs(v - v.mean()) for k, v in w.items()}


@wrong("magnitude", "each row divided by its norm", "|w| over the norm of the weights into the same unit; biases 1")
def magnitude_of_unit_rows(net, loss, x, y, w):
    return {
        k: abs(v) / np.linalg.norm(v.reshape(len(v), -1), axis=1).reshape(-1, *[1] * (v.ndim - 1)) for k, v in w.items()
    }


@wrong("magnitude", "weights kept in bfloat16", "|w| with seven bits after the point, cut off")
def magnitude_bfloat16(net, loss, x, y, w):
    return {k: abs((v.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)) for k, v in w.items()}


@wrong("magnitude", "scored after optimizer.step()", "|w − 0.1 g|, the weights one step later")
def magnitude_after_step(net, loss, x, y, w):
    return {k: abs(v) for k, v in after_step(net, loss, x, y, w).items()}


@wrong("magnitude", "the norm of the row, repeated for each of its weights", "the norm of the weights into the unit")
def magnitude_of_the_unit(net, loss, x, y, w):
    return {
        k: np.broadcast_to(np.linalg.norm(v, axis=-1, keepdims=True), v.shape) if v.ndim == 2 else abs(v)
        for k, v in w.items()
    }


@wrong("magnitude_scaled", "torch's std(), with n − 1", "|w| over the unbiased standard deviation: too small")
def scaled_by_unbiased_std(net, loss, x, y, w):
    return {k: abs(v) / v.std(ddof=1) for k, v in w.items()}


@wrong("magnitude_scaled", "root mean square for standard deviation", "|w| / √mean(w²): the mean is not taken out")
def scaled_by_root_mean_square(net, loss, x, y, w):
    return {k: abs(v) / np.sqrt((v**2).mean()) for k, v in w.items()}


@wrong(
    "magnitude_scaled", "axis=0: the deviation of each column", "|w| over the std of the weights from the same input"
)
def scaled_by_columns(net, loss, x, y, w):
    return {k: abs(v) / v.std(axis=0) for k, v in w.items()}


@wrong("magnitude_scaled", "variance for standard deviation", "|w| / σ²")
def scaled_by_variance(net, loss, x, y, w):
    return {k: abs(v) / v.var() for k, v in w.items()}


@wrong("magnitude_scaled", "the deviation is taken after the absolute value", "|w| over the std of |w|")
def scaled_by_std_of_absolute(net, loss, x, y, w):
    return {k: abs(v) / abs(v).std() for k, v in w.items()}


@wrong("magnitude_scaled", "one deviation for the network", "|w| over the std of all parameters together")
def scaled_by_one_std(net, loss, x, y, w):
    return {k: abs(v) / flat(w).std() for k, v in w.items()}


def _lamp(v, key, of=np.square):
    order = np.argsort(key.ravel(), kind="stable")
    sizes = of(v).ravel()[order]
    return sizes / np.cumsum(sizes[::-1])[::-1], order


def _scattered(scores, order, shape):
    result = np.empty(len(scores))
    result[order] = scores
    return result.reshape(shape)


@wrong("lamp", "scores stay in ascending order and are never put back", "LAMP scores of other weights of the tensor")
def lamp_not_unsorted(net, loss, x, y, w):
    return {k: _lamp(v, abs(v))[0].reshape(v.shape) for k, v in w.items()}


@wrong(
    "lamp", "the sum runs over what is smaller", "w² / Σ of the squares up to and with its own: the smallest scores 1"
)
def lamp_from_below(net, loss, x, y, w):
    scores = {}
    for k, v in w.items():
        order = np.argsort(abs(v).ravel())
        squares = v.ravel()[order] ** 2
        scores[k] = _scattered(squares / np.cumsum(squares), order, v.shape)
    return scores


@wrong("lamp", "no sorting", "w² / Σ w² of the whole tensor")
def lamp_unsorted(net, loss, x, y, w):
    return {k: v**2 / (v**2).sum() for k, v in w.items()}


@wrong("lamp", "absolute values for squares", "|w| / Σ |w_k| over what is not smaller")
def lamp_of_absolutes(net, loss, x, y, w):
    return {k: _scattered(*_lamp(v, abs(v), np.abs), v.shape) for k, v in w.items()}


@wrong("lamp", "sorted by the signed weight", "w² / Σ w_k² over weights that are larger with their sign")
def lamp_signed_order(net, loss, x, y, w):
    return {k: _scattered(*_lamp(v, v), v.shape) for k, v in w.items()}


@wrong("lamp", "one order for the network", "w² / Σ w_k² over larger weights of all tensors: the order of |w|")
def lamp_global(net, loss, x, y, w):
    v = flat(w)
    return named(_scattered(*_lamp(v, abs(v)), v.shape), w)


@wrong(
    "lamp", "the sum leaves out the weight itself", "w² / Σ w_k² over strictly larger weights, 1e9 w² for the largest"
)
def lamp_exclusive(net, loss, x, y, w):
    scores = {}
    for k, v in w.items():
        order = np.argsort(abs(v).ravel())
        squares = v.ravel()[order] ** 2
        larger = np.append(np.cumsum(squares[::-1])[::-1][1:], 0)
        scores[k] = _scattered(squares / np.maximum(larger, 1e-9), order, v.shape)
    return scores


# ---------------------------------------------------------------------------------------- wrong: gradients


@wrong("taylor", "abs before the mean over examples", "mean over n of |g_n w|")
def taylor_abs_inside(net, loss, x, y, w):
    return {k: abs(g * w[k]).mean(axis=0) for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong("taylor", "gradients of batch means are added up", "|Σ_b g_b w|: about the number of batches too large")
def taylor_accumulated(net, loss, x, y, w):
    parts = [gradient(net, loss, *part, w) for part in batches(x, y)]
    return {k: abs(sum(g[k] for g in parts) * w[k]) for k in w}


@wrong("taylor", "means of batches averaged, the last one short", "|mean over b of g_b w|: its examples count too much")
def taylor_ragged(net, loss, x, y, w):
    parts = [gradient(net, loss, *part, w) for part in batches(x, y)]
    return {k: abs(sum(g[k] for g in parts) / len(parts) * w[k]) for k in w}


@wrong("taylor", "zero_grad() is missing", "mean over b of |w (g_1 + … + g_b)|")
def taylor_not_zeroed(net, loss, x, y, w):
    scores, running = dict.fromkeys(w, 0), dict.fromkeys(w, 0)
    count = 0
    for part in batches(x, y):
        g, count = gradient(net, loss, *part, w), count + 1
        running = {k: running[k] + g[k] for k in w}
        scores = {k: scores[k] + abs(running[k] * w[k]) for k in w}
    return {k: s / count for k, s in scores.items()}


@wrong("taylor", "abs in every batch, then the mean over batches", "mean over b of |g_b w|")
def taylor_abs_by_batch(net, loss, x, y, w):
    parts = [gradient(net, loss, *part, w) for part in batches(x, y)]
    return {k: np.mean([abs(g[k] * w[k]) for g in parts], axis=0) for k in w}


@wrong("taylor", "drop_last=True", "|g w| without the examples of the last, short batch")
def taylor_drop_last(net, loss, x, y, w):
    n = len(x) // BATCH * BATCH
    return {k: abs(g * w[k]) for k, g in gradient(net, loss, x[:n], y[:n], w).items()}


@wrong("taylor", "the gradient of before the step, the weight of after it", "|g(w) (w − 0.1 g)|")
def taylor_after_step(net, loss, x, y, w):
    g, later = gradient(net, loss, x, y, w), after_step(net, loss, x, y, w)
    return {k: abs(g[k] * later[k]) for k in w}


@wrong("taylor", "the weight is forgotten", "|g|")
def taylor_without_weight(net, loss, x, y, w):
    return {k: abs(g) for k, g in gradient(net, loss, x, y, w).items()}


@wrong(
    "taylor", "the model ends in a softmax and the loss adds one", "|g w| of the cross-entropy of softmax(softmax(z))"
)
def taylor_double_softmax(net, loss, x, y, w):
    z = outputs_of(net, w, x)
    if loss == "squared_error":
        dz = z - y
    else:
        p = softmax(z)
        outer = softmax(p) - np.eye(p.shape[1])[y]
        dz = p * (outer - (p * outer).sum(axis=1, keepdims=True))
    return {k: abs(g.mean(axis=0) * w[k]) for k, g in pulled_back(net, w, x, dz).items()}


@wrong("taylor", "labels shuffled apart from their examples", "|g w| for the targets of other examples")
def taylor_shuffled_labels(net, loss, x, y, w):
    y = y[np.random.default_rng(0).permutation(len(y))]
    return {k: abs(g * w[k]) for k, g in gradient(net, loss, x, y, w).items()}


@wrong("taylor", "the derivative of tanh is taken at its output", "|g w| with 1 − tanh(h)², h = tanh(z), for 1 − h²")
def taylor_derivative_of_output(net, loss, x, y, w):
    X, Z = forward(net, w, x)
    D = deltas(net, w, [phi(net, z) for z in Z], output_gradient(loss, Z[-1], y))
    scores = {}
    for k, a, d in zip(net.names, X, D, strict=True):
        scores[f"{k}.weight"] = abs(d.T @ a / len(x) * w[f"{k}.weight"])
        scores[f"{k}.bias"] = abs(d.mean(axis=0) * w[f"{k}.bias"])
    return scores


@wrong(
    "taylor",
    "every layer is updated before the gradient passes it",
    "|g w| through layers behind that have moved by a step",
)
def taylor_updated_on_the_way(net, loss, x, y, w):
    X, Z = forward(net, w, x)
    scores, d = {}, output_gradient(loss, Z[-1], y) / len(x)
    for layer in reversed(range(len(Z))):
        k = f"{net.names[layer]}"
        g, W = d.T @ X[layer], w[f"{k}.weight"]
        scores[f"{k}.weight"], scores[f"{k}.bias"] = abs(g * W), abs(d.sum(axis=0) * w[f"{k}.bias"])
        if layer:
            d = d @ (W - RATE * g) * dphi(net, Z[layer - 1])
    return {k: scores[k] for k in w}


@wrong(
    "taylor", "the gradient (in, out) reshaped to (out, in)", "|g w| with the gradient of other weights of the layer"
)
def taylor_reshaped(net, loss, x, y, w):
    return {k: abs(g.T.reshape(g.shape) * w[k]) for k, g in gradient(net, loss, x, y, w).items()}


@wrong(
    "taylor", "summed over the unit's weights before the absolute value", "|Σ g w| of the unit, for each of its weights"
)
def taylor_of_the_unit(net, loss, x, y, w):
    g = gradient(net, loss, x, y, w)
    sums = {k: (g[k] * w[k]).sum(axis=1, keepdims=True) if w[k].ndim == 2 else g[k] * w[k] for k in w}
    return {k: abs(np.broadcast_to(s, w[k].shape)) for k, s in sums.items()}


@wrong(
    "taylor", "divided by the norm of its layer", "|g w| / ‖g w‖ of the tensor: Molchanov's normalisation, unannounced"
)
def taylor_normalised_by_layer(net, loss, x, y, w):
    s = {k: abs(g * w[k]) for k, g in gradient(net, loss, x, y, w).items()}
    return {k: v / (np.linalg.norm(v) + 1e-12) for k, v in s.items()}


@wrong("taylor", "the mean loss is divided by N once more", "|g w| / N")
def taylor_mean_of_mean(net, loss, x, y, w):
    return {k: abs(g * w[k]) / len(x) for k, g in gradient(net, loss, x, y, w).items()}


@wrong(
    "taylor_signed", "the sign: what the weight contributes, not what removal costs", "g w, the negative of the score"
)
def taylor_signed_reversed(net, loss, x, y, w):
    return {k: g * w[k] for k, g in gradient(net, loss, x, y, w).items()}


@wrong("taylor_signed", "negative scores are clipped", "max(−g w, 0)")
def taylor_signed_clipped(net, loss, x, y, w):
    return {k: np.maximum(-g * w[k], 0) for k, g in gradient(net, loss, x, y, w).items()}


@wrong("taylor_signed", "reduction='sum'", "−g w of the summed loss, N times too large")
def taylor_signed_sum(net, loss, x, y, w):
    return {k: -g.sum(axis=0) * w[k] for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong("taylor_signed", "the sign of the weight is lost", "−g |w|")
def taylor_signed_of_absolute_weight(net, loss, x, y, w):
    return {k: -g * abs(w[k]) for k, g in gradient(net, loss, x, y, w).items()}


@wrong("taylor_signed", "F.mse_loss: mean over outputs too, and no ½", "for squared error −g w times 2/C")
def taylor_signed_mse_loss(net, loss, x, y, w):
    factor = 2 / net.sizes[-1] if loss == "squared_error" else 1
    return {k: -g * w[k] * factor for k, g in gradient(net, loss, x, y, w).items()}


@wrong("taylor_squared", "the gradient of the whole data squared", "(g w)² with the mean gradient")
def taylor_squared_of_mean(net, loss, x, y, w):
    return {k: (g * w[k]) ** 2 for k, g in gradient(net, loss, x, y, w).items()}


@wrong("taylor_squared", "the gradient of each batch squared", "mean over b of (g_b w)²")
def taylor_squared_by_batch(net, loss, x, y, w):
    parts = [gradient(net, loss, *part, w) for part in batches(x, y)]
    return {k: np.mean([(g[k] * w[k]) ** 2 for g in parts], axis=0) for k in w}


@wrong("taylor_squared", "examples of a mean loss", "(1/N) Σ_n (g_n w / N)²: N² times too small")
def taylor_squared_of_shares(net, loss, x, y, w):
    return {k: ((g / len(x) * w[k]) ** 2).mean(axis=0) for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong("taylor_squared", "the weight is not squared", "(1/N) Σ_n g_n² |w|")
def taylor_squared_gradient_only(net, loss, x, y, w):
    return {k: (g**2).mean(axis=0) * abs(w[k]) for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong("taylor_squared", "variance for second moment", "(1/N) Σ_n (g_n − g)² w²")
def taylor_squared_variance(net, loss, x, y, w):
    return {k: g.var(axis=0) * w[k] ** 2 for k, g in example_gradients(net, loss, x, y, w).items()}


# ---------------------------------------------------------------------------------------- wrong: second order


def _curvature(net, loss, x, y, w):
    return named(np.diag(hessian(net, loss, x, y, w)), w)


@wrong("taylor_second", "the sign of the first order", "g w + ½ H w²: the cost of doubling the weight")
def taylor_second_doubling(net, loss, x, y, w):
    g, h = gradient(net, loss, x, y, w), _curvature(net, loss, x, y, w)
    return {k: g[k] * w[k] + 0.5 * h[k] * w[k] ** 2 for k in w}


@wrong("taylor_second", "the ½ of the second order is missing", "−g w + H w²")
def taylor_second_without_half(net, loss, x, y, w):
    g, h = gradient(net, loss, x, y, w), _curvature(net, loss, x, y, w)
    return {k: -g[k] * w[k] + h[k] * w[k] ** 2 for k in w}


@wrong("taylor_second", "squared gradients of the examples for H", "−g w + ½ w² (1/N) Σ g_n²")
def taylor_second_of_squares(net, loss, x, y, w):
    g = example_gradients(net, loss, x, y, w)
    return {k: -g[k].mean(axis=0) * w[k] + 0.5 * (g[k] ** 2).mean(axis=0) * w[k] ** 2 for k in w}


@wrong("taylor_second", "the absolute value of each term", "|g w| + ½ |H| w²")
def taylor_second_of_absolutes(net, loss, x, y, w):
    g, h = gradient(net, loss, x, y, w), _curvature(net, loss, x, y, w)
    return {k: abs(g[k] * w[k]) + 0.5 * abs(h[k]) * w[k] ** 2 for k in w}


@wrong("taylor_second", "w ∘ (H w) for the diagonal", "−g w + ½ w ∘ (H w): half of every interaction comes in")
def taylor_second_with_interactions(net, loss, x, y, w):
    g, Hw = gradient(net, loss, x, y, w), hvp(net, loss, x, y, w, w)
    return {k: -g[k] * w[k] + 0.5 * w[k] * Hw[k] for k in w}


@wrong("obd", "the ½ is missing", "H_jj w²")
def obd_without_half(net, loss, x, y, w):
    return {k: h * w[k] ** 2 for k, h in _curvature(net, loss, x, y, w).items()}


@wrong("obd", "the gradient of g.sum()", "½ w² times the row sums of H, not its diagonal")
def obd_row_sums(net, loss, x, y, w):
    sums = hvp(net, loss, x, y, w, {k: np.ones_like(v) for k, v in w.items()})
    return {k: 0.5 * sums[k] * w[k] ** 2 for k in w}


@wrong("obd", "w ∘ (H w) for the diagonal", "½ w ∘ (H w), interactions with all other weights included")
def obd_with_interactions(net, loss, x, y, w):
    return {k: 0.5 * w[k] * v for k, v in hvp(net, loss, x, y, w, w).items()}


@wrong("obd", "Hutchinson's estimate with a single probe", "½ w² v ∘ (H v), v of random signs: right only on average")
def obd_one_probe(net, loss, x, y, w):
    rng = np.random.default_rng(0)
    v = {k: rng.choice([-1.0, 1.0], a.shape) for k, a in w.items()}
    return {k: 0.5 * w[k] ** 2 * v[k] * h for k, h in hvp(net, loss, x, y, w, v).items()}


@wrong("obd", "the squared gradient for the curvature", "½ g² w²: zero at a minimum")
def obd_of_squared_gradient(net, loss, x, y, w):
    return {k: 0.5 * (g * w[k]) ** 2 for k, g in gradient(net, loss, x, y, w).items()}


@wrong("obd", "the Hessian of the summed loss", "½ N H_jj w²")
def obd_of_sum(net, loss, x, y, w):
    return {k: 0.5 * len(x) * h * w[k] ** 2 for k, h in _curvature(net, loss, x, y, w).items()}


@wrong("obd", "negative curvature is taken for a mistake", "½ |H_jj| w²")
def obd_absolute(net, loss, x, y, w):
    return {k: 0.5 * abs(h) * w[k] ** 2 for k, h in _curvature(net, loss, x, y, w).items()}


@wrong("obd", "the weight is not squared", "½ H_jj |w|")
def obd_first_power(net, loss, x, y, w):
    return {k: 0.5 * h * abs(w[k]) for k, h in _curvature(net, loss, x, y, w).items()}


@wrong("obd", "w² / 2H⁻¹ read with the diagonal of the inverse", "w² / (2 [(H + 0.5 I)⁻¹]_jj), that is OBS")
def obd_by_inverse(net, loss, x, y, w):
    H = hessian(net, loss, x, y, w)
    return named(flat(w) ** 2 / (2 * np.diag(np.linalg.inv(H + 0.5 * np.eye(len(H))))), w)


@wrong(
    "obd", "second differences in float32 with a step of 1e-3", "½ H_jj w² under rounding noise of more than its size"
)
def obd_float32_differences(net, loss, x, y, w):
    x, y = x.astype(np.float32), y.astype(np.float32) if y.ndim == 2 else y
    v, h = flat(w).astype(np.float32), np.float32(1e-3)
    at = [
        np.array([mean_loss(net, loss, x, y, named(v + s * h * e, w)) for e in np.eye(len(v), dtype=np.float32)])
        for s in (-1, 0, 1)
    ]
    return named(0.5 * (at[2] - 2 * at[1] + at[0]) / h**2 * v**2, w)


@wrong("obd", "the Hessian of the first batch", "½ H_jj w² of four examples")
def obd_first_batch(net, loss, x, y, w):
    return {k: 0.5 * h * w[k] ** 2 for k, h in _curvature(net, loss, x[:BATCH], y[:BATCH], w).items()}


def _recursion(net, loss, x, y, w, *, bend=1, weights=np.square, inputs=np.square):
    X, Z = forward(net, w, x)
    D = deltas(net, w, Z, output_gradient(loss, Z[-1], y))
    h, scores = np.einsum("ncc->nc", output_hessian(loss, Z[-1])), {}
    for layer in reversed(range(len(Z))):
        k = net.names[layer]
        W, b = w[f"{k}.weight"], w[f"{k}.bias"]
        scores[f"{k}.weight"], scores[f"{k}.bias"] = (
            0.5 * h.T @ inputs(X[layer]) / len(x) * W**2,
            0.5 * h.mean(axis=0) * b**2,
        )
        if layer:
            z = Z[layer - 1]
            h = dphi(net, z) ** 2 * (h @ weights(W)) + bend * ddphi(net, z) * (D[layer] @ W)
    return {k: scores[k] for k in w}


@wrong("obd_recursive", "the second derivative of the activation is dropped", "½ h w² with the Levenberg-Marquardt h")
def obd_recursive_without_second_derivative(net, loss, x, y, w):
    return _recursion(net, loss, x, y, w, bend=0)


@wrong("obd_recursive", "weights are not squared on the way back", "½ h w², h passed back by W for W²")
def obd_recursive_plain_weights(net, loss, x, y, w):
    return _recursion(net, loss, x, y, w, weights=np.asarray)


@wrong("obd_recursive", "inputs are not squared", "½ w² (1/N) Σ x h")
def obd_recursive_plain_inputs(net, loss, x, y, w):
    return _recursion(net, loss, x, y, w, inputs=np.asarray)


@wrong("obd_recursive", "the second derivative of tanh has the wrong sign", "½ h w² with φ′² h − φ″ ∂ℓ/∂y for +")
def obd_recursive_sign(net, loss, x, y, w):
    return _recursion(net, loss, x, y, w, bend=-1)


@wrong("obs", "the inverse of the diagonal", "½ w² (H_jj + 0.5), that is OBD with damping")
def obs_inverse_of_diagonal(net, loss, x, y, w):
    return {k: w[k] ** 2 / (2 / (h + 0.5)) for k, h in _curvature(net, loss, x, y, w).items()}


@wrong("obs", "damping relative to the mean of the diagonal", "w² / (2 [(H + 0.5 mean(diag H) I)⁻¹]_jj), as in GPTQ")
def obs_relative_damping(net, loss, x, y, w):
    H = hessian(net, loss, x, y, w)
    return named(flat(w) ** 2 / (2 * np.diag(np.linalg.inv(H + 0.5 * np.diag(H).mean() * np.eye(len(H))))), w)


@wrong("obs", "multiplied by the inverse", "½ w² [(H + 0.5 I)⁻¹]_jj")
def obs_multiplied(net, loss, x, y, w):
    H = hessian(net, loss, x, y, w)
    return named(0.5 * flat(w) ** 2 * np.diag(np.linalg.inv(H + 0.5 * np.eye(len(H)))), w)


@wrong("obs", "the ½ is missing", "w² / [(H + 0.5 I)⁻¹]_jj")
def obs_without_half(net, loss, x, y, w):
    H = hessian(net, loss, x, y, w)
    return named(flat(w) ** 2 / np.diag(np.linalg.inv(H + 0.5 * np.eye(len(H)))), w)


@wrong(
    "obs", "every tensor's own block is inverted", "OBS in which only weights of the same tensor make up for the loss"
)
def obs_by_blocks(net, loss, x, y, w):
    H, scores, start = hessian(net, loss, x, y, w), {}, 0
    for k, v in w.items():
        block = H[start : start + v.size, start : start + v.size] + 0.5 * np.eye(v.size)
        scores[k], start = v**2 / (2 * np.diag(np.linalg.inv(block)).reshape(v.shape)), start + v.size
    return scores


@wrong("obs", "Gauss-Newton for the Hessian", "w² / (2 [(G + 0.5 I)⁻¹]_jj), without the curvature of the network")
def obs_gauss_newton(net, loss, x, y, w):
    G = gauss_newton(net, loss, x, w)
    return named(flat(w) ** 2 / (2 * np.diag(np.linalg.inv(G + 0.5 * np.eye(len(G))))), w)


@wrong("obs", "the Hessian of the summed loss", "w² / (2 [(N H + 0.5 I)⁻¹]_jj)")
def obs_of_sum(net, loss, x, y, w):
    H = len(x) * hessian(net, loss, x, y, w)
    return named(flat(w) ** 2 / (2 * np.diag(np.linalg.inv(H + 0.5 * np.eye(len(H))))), w)


@wrong("obs", "damping of 0.5 both in H and in the solver", "w² / (2 [(H + I)⁻¹]_jj)")
def obs_damped_twice(net, loss, x, y, w):
    H = hessian(net, loss, x, y, w)
    return named(flat(w) ** 2 / (2 * np.diag(np.linalg.inv(H + np.eye(len(H))))), w)


def _model(net, loss, x, y, w):
    H = hessian(net, loss, x, y, w)
    return flat(w), flat(gradient(net, loss, x, y, w)), np.linalg.inv(H + 0.5 * np.eye(len(H)))


@wrong("obs_gradient", "the Newton step has the wrong sign", "(w + M⁻¹g)² / (2 [M⁻¹]_jj) − ½ gᵀM⁻¹g")
def obs_gradient_sign(net, loss, x, y, w):
    v, g, inverse = _model(net, loss, x, y, w)
    return named((v + inverse @ g) ** 2 / (2 * np.diag(inverse)) - 0.5 * g @ inverse @ g, w)


@wrong("obs_gradient", "the gain of the Newton step is left out", "the score plus ½ gᵀM⁻¹g: the order is right")
def obs_gradient_without_gain(net, loss, x, y, w):
    v, g, inverse = _model(net, loss, x, y, w)
    return named((v - inverse @ g) ** 2 / (2 * np.diag(inverse)), w)


@wrong("obs_gradient", "the Taylor term is added to OBS", "w² / (2 [M⁻¹]_jj) − g w: the others move as if g were 0")
def obs_gradient_added(net, loss, x, y, w):
    v, g, inverse = _model(net, loss, x, y, w)
    return named(v**2 / (2 * np.diag(inverse)) - g * v, w)


@wrong("obs_gradient", "a diagonal Newton step", "(w − g / (H_jj + 0.5))² / (2 [M⁻¹]_jj) − ½ gᵀM⁻¹g")
def obs_gradient_diagonal_step(net, loss, x, y, w):
    v, g, inverse = _model(net, loss, x, y, w)
    step = g / np.diag(np.linalg.inv(inverse))
    return named((v - step) ** 2 / (2 * np.diag(inverse)) - 0.5 * g @ inverse @ g, w)


# ---------------------------------------------------------------------------------------- wrong: Fisher matrices


@wrong("fisher", "the labels of the data", "½ w² (1/N) Σ g_n²: the empirical Fisher")
def fisher_with_labels(net, loss, x, y, w):
    return {k: 0.5 * w[k] ** 2 * (g**2).mean(axis=0) for k, g in example_gradients(net, loss, x, y, w).items()}


def _sampled(loss, z, rng):
    if loss == "squared_error":
        return z + rng.standard_normal(z.shape)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z)])


@wrong("fisher", "one label per example drawn from the model", "½ w² of a sampled Fisher: right only on average")
def fisher_one_sample(net, loss, x, y, w):
    drawn = _sampled(loss, outputs_of(net, w, x), np.random.default_rng(0))
    return fisher_with_labels(net, loss, x, drawn, w)


@wrong(
    "fisher", "the most probable label", "½ w² (1/N) Σ g_n² with the model's own answer for the label; 0 for regression"
)
def fisher_of_prediction(net, loss, x, y, w):
    z = outputs_of(net, w, x)
    return fisher_with_labels(net, loss, x, z if loss == "squared_error" else z.argmax(axis=1), w)


@wrong("fisher", "all classes count alike", "½ w² of the mean over classes of squared gradients, not weighted by p")
def fisher_uniform_classes(net, loss, x, y, w):
    if loss == "squared_error":
        return named(0.5 * flat(w) ** 2 * np.diag(gauss_newton(net, loss, x, w)), w)
    C = net.sizes[-1]
    parts = [fisher_with_labels(net, loss, x, np.full(len(x), c), w) for c in range(C)]
    return {k: sum(s[k] for s in parts) / C for k in w}


@wrong("fisher", "squared Jacobians of the logits", "½ w² (1/N) Σ_n Σ_c (∂z_c/∂w)²: right for squared error alone")
def fisher_of_logits(net, loss, x, y, w):
    return named(0.5 * flat(w) ** 2 * (jacobian(net, w, x) ** 2).sum(axis=1).mean(axis=0), w)


@wrong("fisher", "gradient of p for gradient of log p", "½ w² (1/N) Σ_n Σ_c p_c (∂p_c/∂w)², right for squared error")
def fisher_of_probabilities(net, loss, x, y, w):
    J, p = jacobian(net, w, x), softmax(outputs_of(net, w, x))
    if loss == "cross_entropy":
        J = p[:, :, None] * (J - np.einsum("nc,ncp->np", p, J)[:, None])
        J = np.sqrt(p)[:, :, None] * J
    return named(0.5 * flat(w) ** 2 * (J**2).sum(axis=1).mean(axis=0), w)


@wrong("fisher", "the ½ is missing", "w² F_jj")
def fisher_without_half(net, loss, x, y, w):
    return named(flat(w) ** 2 * np.diag(gauss_newton(net, loss, x, w)), w)


@wrong("fisher", "only the diagonal of the output Hessian", "½ w² (1/N) Σ_n Σ_c p_c(1 − p_c) (∂z_c/∂w)²")
def fisher_diagonal_outputs(net, loss, x, y, w):
    q = np.einsum("ncc->nc", output_hessian(loss, outputs_of(net, w, x)))
    return named(0.5 * flat(w) ** 2 * np.einsum("nc,ncp->p", q, jacobian(net, w, x) ** 2) / len(x), w)


@wrong("fisher_empirical", "the mean gradient squared", "½ w² g²")
def fisher_empirical_of_mean(net, loss, x, y, w):
    return {k: 0.5 * (w[k] * g) ** 2 for k, g in gradient(net, loss, x, y, w).items()}


@wrong(
    "fisher_empirical", "gradients of batches squared, times their size", "½ w² (1/N) Σ_b n_b g_b², as in much EWC code"
)
def fisher_empirical_by_batch(net, loss, x, y, w):
    total = dict.fromkeys(w, 0)
    for part in batches(x, y):
        g = gradient(net, loss, *part, w)
        total = {k: total[k] + g[k] ** 2 * len(part[0]) / len(x) for k in w}
    return {k: 0.5 * w[k] ** 2 * total[k] for k in w}


@wrong("fisher_empirical", "the ½ is missing", "w² (1/N) Σ g_n², that is taylor_squared")
def fisher_empirical_without_half(net, loss, x, y, w):
    return {k: w[k] ** 2 * (g**2).mean(axis=0) for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong("fisher_empirical", "the root, as RMSprop and Adam take it", "½ w² √((1/N) Σ g_n²)")
def fisher_empirical_root(net, loss, x, y, w):
    return {k: 0.5 * w[k] ** 2 * np.sqrt((g**2).mean(axis=0)) for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong("fisher_empirical", "Adam's exp_avg_sq, without its correction", "½ w² Σ_n 0.001 · 0.999^(N − n) g_n²")
def fisher_empirical_from_adam(net, loss, x, y, w):
    decay = 0.001 * 0.999 ** np.arange(len(x))[::-1]
    return {k: 0.5 * w[k] ** 2 * np.tensordot(decay, g**2, 1) for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong("fisher_empirical", "summed, not averaged", "½ w² Σ_n g_n²")
def fisher_empirical_sum(net, loss, x, y, w):
    return {k: 0.5 * w[k] ** 2 * (g**2).sum(axis=0) for k, g in example_gradients(net, loss, x, y, w).items()}


@wrong(
    "fisher_empirical", "mean input squared times mean delta squared", "½ w² mean(δ²) mean(x²): the factors of K-FAC"
)
def fisher_empirical_factored(net, loss, x, y, w):
    X, Z = forward(net, w, x)
    scores = {}
    for k, a, d in zip(net.names, X, deltas(net, w, Z, output_gradient(loss, Z[-1], y)), strict=True):
        d = (d**2).mean(axis=0)
        scores[f"{k}.weight"] = 0.5 * w[f"{k}.weight"] ** 2 * np.outer(d, (a**2).mean(axis=0))
        scores[f"{k}.bias"] = 0.5 * w[f"{k}.bias"] ** 2 * d
    return scores


def _woodfisher(w, rows, start, divisor):
    inverse = start * np.eye(rows.shape[1])
    for g in rows:
        v = inverse @ g
        inverse -= np.outer(v, v) / (divisor + g @ v)
    return named(flat(w) ** 2 / (2 * np.diag(inverse)), w)


@wrong("woodfisher", "the recursion starts from the damping, not its inverse", "damping 100 in the place of 0.01")
def woodfisher_wrong_start(net, loss, x, y, w):
    return _woodfisher(w, rows_of(net, loss, x, y, w), 0.01, len(x))


@wrong("woodfisher", "1 for N in the recursion", "w² / (2 [(0.01 I + Σ_n g_n g_nᵀ)⁻¹]_jj): a sum for the mean")
def woodfisher_sum(net, loss, x, y, w):
    return _woodfisher(w, rows_of(net, loss, x, y, w), 100, 1)


@wrong("woodfisher", "gradients of batches", "WoodFisher with the outer products of batch means for those of examples")
def woodfisher_batches(net, loss, x, y, w):
    rows = np.stack([flat(gradient(net, loss, *part, w)) for part in batches(x, y)])
    return _woodfisher(w, rows, 100, len(rows))


@wrong("woodfisher", "the diagonal alone is inverted", "½ w² (0.01 + (1/N) Σ g_n²)")
def woodfisher_diagonal(net, loss, x, y, w):
    return named(0.5 * flat(w) ** 2 * (0.01 + (rows_of(net, loss, x, y, w) ** 2).mean(axis=0)), w)


@wrong("woodfisher", "the weights of each unit are a block", "WoodFisher within the rows of each tensor")
def woodfisher_rows(net, loss, x, y, w):
    def unit(k, o):
        own = w[k][o].ravel()
        return _woodfisher({k: own}, g[k][:, o].reshape(len(x), -1), 100, len(x))[k].reshape(w[k][o].shape)

    g = example_gradients(net, loss, x, y, w)
    return {k: np.stack([unit(k, o) for o in range(len(v))]) for k, v in w.items()}


@wrong("woodfisher", "gradients are centred", "WoodFisher with the covariance of the gradients")
def woodfisher_centred(net, loss, x, y, w):
    rows = rows_of(net, loss, x, y, w)
    return _woodfisher(w, rows - rows.mean(axis=0), 100, len(x))


@wrong(
    "woodfisher",
    "the update of the inverse is added",
    "w² / (2 [M]_jj), M from + v vᵀ / (N + gᵀv): larger with every example",
)
def woodfisher_added(net, loss, x, y, w):
    rows = rows_of(net, loss, x, y, w)
    inverse = 100 * np.eye(rows.shape[1])
    for g in rows:
        v = inverse @ g
        inverse += np.outer(v, v) / (len(x) + g @ v)
    return named(flat(w) ** 2 / (2 * np.diag(inverse)), w)


# ---------------------------------------------------------------------------------------- wrong: at initialisation


def _sensitivity(net, loss, x, y, w):
    return {k: abs(g * w[k]) for k, g in gradient(net, loss, x, y, w).items()}


@wrong("snip", "not normalised", "|g w|, that is taylor: the order is right")
def snip_unnormalised(net, loss, x, y, w):
    return _sensitivity(net, loss, x, y, w)


@wrong("snip", "normalised tensor by tensor", "|g w| / Σ |g w| of the tensor: layers become comparable by size alone")
def snip_by_tensor(net, loss, x, y, w):
    return {k: s / s.sum() for k, s in _sensitivity(net, loss, x, y, w).items()}


@wrong("snip", "divided by the largest", "|g w| / max |g w|: the order is right")
def snip_by_maximum(net, loss, x, y, w):
    s = _sensitivity(net, loss, x, y, w)
    return {k: v / flat(s).max() for k, v in s.items()}


@wrong(
    "snip", "the sum runs over weights, biases are scored all the same", "|g w| / Σ over weights: the order is right"
)
def snip_sum_without_biases(net, loss, x, y, w):
    s = _sensitivity(net, loss, x, y, w)
    total = sum(v.sum() for k, v in s.items() if k.endswith("weight"))
    return {k: v / total for k, v in s.items()}


@wrong("snip", "the gradient in the weight for that in the mask", "|g| / Σ |g|")
def snip_without_weight(net, loss, x, y, w):
    g = gradient(net, loss, x, y, w)
    return {k: abs(v) / abs(flat(g)).sum() for k, v in g.items()}


@wrong("snip", "the absolute value is lost in the normalisation", "g w / Σ |g w|, signed")
def snip_signed(net, loss, x, y, w):
    s = {k: g * w[k] for k, g in gradient(net, loss, x, y, w).items()}
    return {k: v / abs(flat(s)).sum() for k, v in s.items()}


@wrong("snip", "model.train(): dropout of ½ is on", "SNIP of a network thinned at random, its activations doubled")
def snip_dropout(net, loss, x, y, w):
    rng, X, Z, kept = np.random.default_rng(0), [x], [], []
    for k in net.names:
        Z.append(X[-1] @ w[f"{k}.weight"].T + w[f"{k}.bias"])
        kept.append(2.0 * (rng.random(Z[-1].shape) < 0.5))
        X.append(phi(net, Z[-1]) * kept[-1])
    d, s = output_gradient(loss, Z[-1], y) / len(x), {}
    for layer in reversed(range(len(Z))):
        k = net.names[layer]
        s[f"{k}.weight"], s[f"{k}.bias"] = abs(d.T @ X[layer] * w[f"{k}.weight"]), abs(d.sum(axis=0) * w[f"{k}.bias"])
        if layer:
            d = d @ w[f"{k}.weight"] * kept[layer - 1] * dphi(net, Z[layer - 1])
    return {k: s[k] / flat(s).sum() for k in w}


@wrong("snip", "one batch stands for the data", "SNIP of the first four examples")
def snip_first_batch(net, loss, x, y, w):
    s = _sensitivity(net, loss, x[:BATCH], y[:BATCH], w)
    return {k: v / flat(s).sum() for k, v in s.items()}


@wrong("grasp", "the paper's sign, kept for a score where the highest stay", "−w (Hg): keeps what should go")
def grasp_reversed(net, loss, x, y, w):
    return {k: -w[k] * v for k, v in hvp(net, loss, x, y, w, gradient(net, loss, x, y, w)).items()}


@wrong("grasp", "the temperature of 200 of the released code", "w (Hg) of cross-entropy with logits / 200")
def grasp_temperature(net, loss, x, y, w):
    def cooled(a):
        return {k: v / T if k.startswith(f"{net.names[-1]}.") else v for k, v in a.items()}

    T = 200 if loss == "cross_entropy" else 1
    g = cooled(gradient(net, loss, x, y, cooled(w)))
    return {k: w[k] * v for k, v in cooled(hvp(net, loss, x, y, cooled(w), cooled(g))).items()}


@wrong("grasp", "the gradient of ‖g‖², not half of it", "2 w (Hg): the order is right")
def grasp_doubled(net, loss, x, y, w):
    return {k: 2 * w[k] * v for k, v in hvp(net, loss, x, y, w, gradient(net, loss, x, y, w)).items()}


@wrong("grasp", "the absolute value, as other scores have it", "|w (Hg)|")
def grasp_absolute(net, loss, x, y, w):
    return {k: abs(w[k] * v) for k, v in hvp(net, loss, x, y, w, gradient(net, loss, x, y, w)).items()}


@wrong("grasp", "g of the first half of the examples, H of the second", "w (H₂ g₁)")
def grasp_two_halves(net, loss, x, y, w):
    half = len(x) // 2
    g = gradient(net, loss, x[:half], y[:half], w)
    return {k: w[k] * v for k, v in hvp(net, loss, x[half:], y[half:], w, g).items()}


@wrong("grasp", "the Hessian times the weights", "w (Hw)")
def grasp_of_weights(net, loss, x, y, w):
    return {k: w[k] * v for k, v in hvp(net, loss, x, y, w, w).items()}


@wrong("grasp", ".grad still holds g when Hg is added to it", "w (Hg + g)")
def grasp_gradient_left_over(net, loss, x, y, w):
    g = gradient(net, loss, x, y, w)
    return {k: w[k] * (v + g[k]) for k, v in hvp(net, loss, x, y, w, g).items()}


@wrong("grasp", "a mean over batches of each batch's Hg", "mean over b of w (H_b g_b)")
def grasp_by_batch(net, loss, x, y, w):
    parts = [hvp(net, loss, *part, w, gradient(net, loss, *part, w)) for part in batches(x, y)]
    return {k: w[k] * np.mean([v[k] for v in parts], axis=0) for k in w}


def _absolute(w):
    return {k: abs(v) for k, v in w.items()}


@wrong(
    "synflow", "biases take part, as in the released code", "|w ∂R/∂w| with |b| along the way, and scores for biases"
)
def synflow_with_biases(net, loss, x, y, w):
    return flow(net, _absolute(w), np.ones((1, net.sizes[0])), biases=True, linear=True)[1]


@wrong("synflow", "tanh is left on", "|w ∂R/∂w| with saturating units; right for ReLU")
def synflow_with_activations(net, loss, x, y, w):
    return flow(net, _absolute(w), np.ones((1, net.sizes[0])), biases=False, linear=False)[1]


@wrong("synflow", "the data for the ones", "|w ∂R/∂w| of a linear network of |W|, on the absolute examples")
def synflow_on_data(net, loss, x, y, w):
    return flow(net, _absolute(w), abs(x), biases=False, linear=True)[1]


@wrong("synflow", "a batch of ones of the size of the data", "N |w ∂R/∂w|: the order is right")
def synflow_batch_of_ones(net, loss, x, y, w):
    return flow(net, _absolute(w), np.ones(x.shape), biases=False, linear=True)[1]


@wrong("synflow", "the logarithm of R, against overflow", "|w ∂R/∂w| / R: the order is right")
def synflow_of_logarithm(net, loss, x, y, w):
    R, s = flow(net, _absolute(w), np.ones((1, net.sizes[0])), biases=False, linear=True)
    return {k: v / R for k, v in s.items()}


@wrong("synflow", "squared weights for absolute ones", "w² ∂R/∂(w²): the path norm")
def synflow_squared(net, loss, x, y, w):
    squares = {k: v**2 for k, v in w.items()}
    return flow(net, squares, np.ones((1, net.sizes[0])), biases=False, linear=True)[1]


@wrong("synflow", "the absolute value comes at the end only", "|w ∂R/∂w| of the signed linear network: paths cancel")
def synflow_signed_paths(net, loss, x, y, w):
    product, scores = np.eye(net.sizes[-1]), {}
    before = [np.ones(net.sizes[0])]
    for k in net.names:
        before.append(w[f"{k}.weight"] @ before[-1])
    after = np.ones(len(product))
    for layer in reversed(range(len(net.names))):
        k = net.names[layer]
        W = w[f"{k}.weight"]
        scores[f"{k}.weight"], scores[f"{k}.bias"] = abs(W * np.outer(after, before[layer])), np.zeros(len(W))
        after = W.T @ after
    return {k: scores[k] for k in w}


@wrong("synflow", "the mean of the outputs", "|w ∂R/∂w| / C: the order is right")
def synflow_mean_output(net, loss, x, y, w):
    s = flow(net, _absolute(w), np.ones((1, net.sizes[0])), biases=False, linear=True)[1]
    return {k: v / net.sizes[-1] for k, v in s.items()}


# ---------------------------------------------------------------------------------------- wrong: layer by layer


@wrong("wanda", "the root of the mean square, as in the released code", "|W| ‖X‖ / √N: the order is right")
def wanda_mean_square(net, loss, x, y, w):
    X = layer_inputs(net, w, x)
    return by_inputs(net, w, lambda k, W: abs(W) * np.sqrt((X[k] ** 2).mean(axis=0)))


@wrong("wanda", "standard deviation for norm", "|W| √N std(X): 0 for biases")
def wanda_deviation(net, loss, x, y, w):
    X = layer_inputs(net, w, x)
    return by_inputs(net, w, lambda k, W: abs(W) * X[k].std(axis=0) * np.sqrt(len(x)))


@wrong("wanda", "the norm of order 1", "|W| Σ_n |X_n|")
def wanda_first_norm(net, loss, x, y, w):
    X = layer_inputs(net, w, x)
    return by_inputs(net, w, lambda k, W: abs(W) * abs(X[k]).sum(axis=0))


@wrong("wanda", "the weight is squared, the norm is not", "W² ‖X‖")
def wanda_squared_weight(net, loss, x, y, w):
    X = layer_inputs(net, w, x)
    return by_inputs(net, w, lambda k, W: W**2 * np.linalg.norm(X[k], axis=0))


@wrong("wanda", "the root is forgotten", "|W| ‖X‖²")
def wanda_without_root(net, loss, x, y, w):
    X = layer_inputs(net, w, x)
    return by_inputs(net, w, lambda k, W: abs(W) * (X[k] ** 2).sum(axis=0))


@wrong(
    "wanda", "the hook keeps outputs, not inputs", "|W_ij| times the norm of unit i's own output before the activation"
)
def wanda_outputs(net, loss, x, y, w):
    Z = dict(zip(net.names, forward(net, w, x)[1], strict=True))
    return by_inputs(net, w, lambda k, W: abs(W) * np.linalg.norm(Z[k], axis=0)[:, None])


@wrong("wanda", "the hook sits before the activation", "|W| ‖Z‖ with the layer's inputs before tanh or ReLU")
def wanda_before_activation(net, loss, x, y, w):
    before = dict(zip(net.names, [x, *forward(net, w, x)[1][:-1]], strict=True))
    return by_inputs(net, w, lambda k, W: abs(W) * np.append(np.linalg.norm(before[k], axis=0), np.sqrt(len(x))))


@wrong("wanda", "norms of batches are averaged", "|W| times the mean over batches of ‖X_b‖")
def wanda_mean_of_norms(net, loss, x, y, w):
    norms = {
        k: np.mean([np.linalg.norm(b, axis=0) for b, _ in batches(X, y)], axis=0)
        for k, X in layer_inputs(net, w, x).items()
    }
    return by_inputs(net, w, lambda k, W: abs(W) * norms[k])


@wrong("wanda", "axis=1: the norm of each example, then their mean", "|W| times one number for the layer")
def wanda_wrong_axis(net, loss, x, y, w):
    X = layer_inputs(net, w, x)
    return by_inputs(net, w, lambda k, W: abs(W) * np.linalg.norm(X[k], axis=1).mean())


@wrong(
    "wanda",
    "earlier layers are pruned in place, a half of each",
    "|W| ‖X‖ with the inputs that the pruned network gives",
)
def wanda_in_place(net, loss, x, y, w):
    scores, h = {}, x
    for k in net.names:
        W, b = w[f"{k}.weight"], w[f"{k}.bias"]
        scores[f"{k}.weight"], scores[f"{k}.bias"] = abs(W) * np.linalg.norm(h, axis=0), abs(b) * np.sqrt(len(x))
        pruned = np.where(scores[f"{k}.weight"] >= np.median(scores[f"{k}.weight"], axis=1, keepdims=True), W, 0)
        h = phi(net, h @ pruned.T + b)
    return scores


@wrong("wanda", "biases are scored by their size", "|W| ‖X‖ for weights, |b| for biases without √N")
def wanda_bare_biases(net, loss, x, y, w):
    norms = {k: np.append(np.linalg.norm(X[:, :-1], axis=0), 1) for k, X in layer_inputs(net, w, x).items()}
    return by_inputs(net, w, lambda k, W: abs(W) * norms[k])


@wrong("wanda", "inputs are centred, as batch normalisation would", "|W| ‖X − mean X‖; right for biases")
def wanda_centred(net, loss, x, y, w):
    norms = {
        k: np.append(np.linalg.norm((X - X.mean(axis=0))[:, :-1], axis=0), np.sqrt(len(x)))
        for k, X in layer_inputs(net, w, x).items()
    }
    return by_inputs(net, w, lambda k, W: abs(W) * norms[k])


def _layer_obs(net, w, grams):
    def rule(k, W):
        A = grams[k] + 0.1 * np.eye(len(grams[k]))
        return W**2 / (2 * np.diag(np.linalg.inv(A)))

    return by_inputs(net, w, rule)


def _grams(net, w, x):
    return {k: X.T @ X / len(x) for k, X in layer_inputs(net, w, x).items()}


@wrong(
    "obs_layerwise",
    "no column of ones",
    "OBS of the layer in which the bias cannot make up for a weight; biases: ½ b² (1 + 0.1)",
)
def obs_layerwise_without_ones(net, loss, x, y, w):
    grams = _grams(net, w, x)
    for A in grams.values():
        A[-1, :-1] = A[:-1, -1] = 0
    return _layer_obs(net, w, grams)


@wrong("obs_layerwise", "2XᵀX, as in GPTQ, with the damping as it is", "w² / (2 [(2XᵀX + 0.1 I)⁻¹]_ii)")
def obs_layerwise_sum(net, loss, x, y, w):
    return _layer_obs(net, w, {k: 2 * len(x) * A for k, A in _grams(net, w, x).items()})


@wrong("obs_layerwise", "centred inputs", "w² / (2 [(cov X + 0.1 I)⁻¹]_ii); for biases ½ · 0.1 b²")
def obs_layerwise_covariance(net, loss, x, y, w):
    return _layer_obs(net, w, {k: np.cov(X.T, bias=True) for k, X in layer_inputs(net, w, x).items()})


@wrong("obs_layerwise", "damping relative to the mean of the diagonal", "damping 0.1 mean(diag XᵀX/N), as in SparseGPT")
def obs_layerwise_relative_damping(net, loss, x, y, w):
    grams = {k: A + (0.1 * np.diag(A).mean() - 0.1) * np.eye(len(A)) for k, A in _grams(net, w, x).items()}
    return _layer_obs(net, w, grams)


@wrong("obs_layerwise", "inputs before the activation", "OBS of the layer for ZᵀZ/N, Z its inputs before tanh or ReLU")
def obs_layerwise_before_activation(net, loss, x, y, w):
    before = dict(zip(net.names, [x, *forward(net, w, x)[1][:-1]], strict=True))
    X = {k: np.column_stack([v, np.ones(len(x))]) for k, v in before.items()}
    return _layer_obs(net, w, {k: v.T @ v / len(x) for k, v in X.items()})


@wrong("obs_layerwise", "the diagonal of XᵀX is inverted", "½ w² (‖X_i‖²/N + 0.1): no weight makes up for another")
def obs_layerwise_diagonal(net, loss, x, y, w):
    return _layer_obs(net, w, {k: np.diag(np.diag(A)) for k, A in _grams(net, w, x).items()})


@wrong(
    "obs_layerwise",
    "SparseGPT's score: the diagonal of the inverse's Cholesky factor",
    "w² / (2 c_ii²): later inputs alone make up",
)
def obs_layerwise_cholesky(net, loss, x, y, w):
    grams = _grams(net, w, x)

    def rule(k, W):
        upper = np.linalg.cholesky(np.linalg.inv(grams[k] + 0.1 * np.eye(len(grams[k])))).T
        return W**2 / (2 * np.diag(upper) ** 2)

    return by_inputs(net, w, rule)


@wrong("obs_layerwise", "a root too many", "w² / (2 √[A⁻¹]_ii)")
def obs_layerwise_root(net, loss, x, y, w):
    grams = _grams(net, w, x)

    def rule(k, W):
        return W**2 / (2 * np.sqrt(np.diag(np.linalg.inv(grams[k] + 0.1 * np.eye(len(grams[k]))))))

    return by_inputs(net, w, rule)


# ---------------------------------------------------------------------------------------- wrong: the truth itself


def _by_removal(w, rise):
    """Return rise(w without one weight) for every weight."""
    v = flat(w)
    return named(np.array([rise(named(np.where(np.arange(len(v)) == j, 0, v), w)) for j in range(len(v))]), w)


@wrong(
    "exact", "the sign: loss as it is minus loss without", "L(w) − L(w without j), SNIP's ΔL: removes what matters most"
)
def exact_reversed(net, loss, x, y, w):
    full = mean_loss(net, loss, x, y, w)
    return _by_removal(w, lambda v: full - mean_loss(net, loss, x, y, v))


@wrong("exact", "weights are not put back", "the rise over L(w) once this weight and all before it are gone")
def exact_not_restored(net, loss, x, y, w):
    full, left, rises = mean_loss(net, loss, x, y, w), flat(w).copy(), []
    for j in range(len(left)):
        left[j] = 0
        rises.append(mean_loss(net, loss, x, y, named(left, w)) - full)
    return named(np.array(rises), w)


@wrong("exact", "the absolute value", "|L(w without j) − L(w)|: what helps when it goes is kept")
def exact_absolute(net, loss, x, y, w):
    full = mean_loss(net, loss, x, y, w)
    return _by_removal(w, lambda v: abs(mean_loss(net, loss, x, y, v) - full))


@wrong("exact", "negative rises are clipped", "max(L(w without j) − L(w), 0)")
def exact_clipped(net, loss, x, y, w):
    full = mean_loss(net, loss, x, y, w)
    return _by_removal(w, lambda v: max(mean_loss(net, loss, x, y, v) - full, 0))


@wrong("exact", "the sum of the losses", "N times the rise")
def exact_sum(net, loss, x, y, w):
    full = mean_loss(net, loss, x, y, w)
    return _by_removal(w, lambda v: len(x) * (mean_loss(net, loss, x, y, v) - full))


@wrong("exact", "the loop over batches keeps the last loss", "the rise on the last, short batch")
def exact_last_batch(net, loss, x, y, w):
    *_, (x, y) = batches(x, y)
    full = mean_loss(net, loss, x, y, w)
    return _by_removal(w, lambda v: mean_loss(net, loss, x, y, v) - full)


@wrong(
    "exact",
    "the baseline is of the first batch",
    "the rise plus a constant, L(w) − L(w) on four examples: the order is right",
)
def exact_stale_baseline(net, loss, x, y, w):
    full = mean_loss(net, loss, x[:BATCH], y[:BATCH], w)
    return _by_removal(w, lambda v: mean_loss(net, loss, x, y, v) - full)


@wrong("exact", "the loss in half precision", "the rise as a difference of float16 losses: most digits cancel")
def exact_float16(net, loss, x, y, w):
    full = np.float16(mean_loss(net, loss, x, y, w))
    return _by_removal(w, lambda v: float(np.float16(mean_loss(net, loss, x, y, v)) - full))


@wrong("exact", "accuracy for loss", "the fall in accuracy; for regression the rise")
def exact_accuracy(net, loss, x, y, w):
    if loss == "squared_error":
        full = mean_loss(net, loss, x, y, w)
        return _by_removal(w, lambda v: mean_loss(net, loss, x, y, v) - full)
    full = (outputs_of(net, w, x).argmax(axis=1) == y).mean()
    return _by_removal(w, lambda v: full - (outputs_of(net, v, x).argmax(axis=1) == y).mean())


@wrong(
    "exact",
    "the index is off by one",
    "the rise for the weight before, in the order of the flat vector",
)
def exact_off_by_one(net, loss, x, y, w):
    full = mean_loss(net, loss, x, y, w)
    rises = _by_removal(w, lambda v: mean_loss(net, loss, x, y, v) - full)
    return named(np.roll(flat(rises), 1), w)


@wrong("exact", "relative to the loss", "(L(w without j) − L(w)) / L(w): the order is right")
def exact_relative(net, loss, x, y, w):
    full = mean_loss(net, loss, x, y, w)
    return _by_removal(w, lambda v: mean_loss(net, loss, x, y, v) / full - 1)


@wrong("exact", "the loss of the mean output", "the rise in the loss of the outputs averaged over examples first")
def exact_of_mean_output(net, loss, x, y, w):
    y = np.eye(net.sizes[-1])[y] if loss == "cross_entropy" else y

    def value(v):
        z = outputs_of(net, v, x).mean(axis=0, keepdims=True)
        target = y.mean(axis=0, keepdims=True)
        return 0.5 * ((z - target) ** 2).sum() if loss == "squared_error" else -(target * np.log(softmax(z))).sum()

    full = value(w)
    return _by_removal(w, lambda v: value(v) - full)


# ---------------------------------------------------------------------------------------- right, by other ways


def _single(a):
    return {k: v.astype(np.float32) for k, v in a.items()}


@right("magnitude", "roots of squares, one by one")
def magnitude_by_roots(net, loss, x, y, w):
    return {k: np.array([math.sqrt(a * a) for a in v.ravel()]).reshape(v.shape) for k, v in w.items()}


@right("magnitude", "float32", 1e-4)
def magnitude_float32(net, loss, x, y, w):
    return {k: np.maximum(v, -v) for k, v in _single(w).items()}


@right("magnitude_scaled", "two passes of exact sums")
def scaled_by_exact_sums(net, loss, x, y, w):
    def deviation(v):
        mean = math.fsum(v.ravel()) / v.size
        return math.sqrt(math.fsum((a - mean) ** 2 for a in v.ravel()) / v.size)

    return {k: abs(v) / deviation(v) for k, v in w.items()}


@right("lamp", "the definition: for every weight a sum over what is not smaller")
def lamp_by_definition(net, loss, x, y, w):
    return {
        k: np.array([a**2 / sum(b**2 for b in v.ravel() if abs(b) >= abs(a)) for a in v.ravel()]).reshape(v.shape)
        for k, v in w.items()
    }


@right("lamp", "sorted downwards, cumulated, put back by the inverse permutation; float32", 1e-4)
def lamp_downwards(net, loss, x, y, w):
    scores = {}
    for k, v in _single(w).items():
        squares = (v**2).ravel()
        order = np.argsort(-squares)
        scores[k] = (squares[order] / np.cumsum(squares[order]))[np.argsort(order)].reshape(v.shape)
    return scores


@right("taylor", "the complex step in every weight's gate")
def taylor_by_gates(net, loss, x, y, w):
    v = flat(w)
    gates = np.eye(len(v)) * 1j * STEP + 1
    return named(np.array([abs(mean_loss(net, loss, x, y, named(v * m, w)).imag) / STEP for m in gates]), w)


@right("taylor", "batches weighted by their size")
def taylor_weighted_batches(net, loss, x, y, w):
    total = dict.fromkeys(w, 0)
    for part in batches(x, y):
        g = gradient(net, loss, *part, w)
        total = {k: total[k] + g[k] * len(part[0]) / len(x) for k in w}
    return {k: abs(total[k] * w[k]) for k in w}


@right("taylor", "float32 throughout, the reverse order of examples", 1e-4)
def taylor_float32(net, loss, x, y, w):
    x, y = x[::-1].astype(np.float32), y[::-1].astype(np.float32) if y.ndim == 2 else y[::-1]
    return {k: abs(g * w[k]) for k, g in gradient(net, loss, x, y, _single(w)).items()}


@right("taylor_signed", "central differences of sixth order in every weight's gate")
def taylor_signed_by_differences(net, loss, x, y, w):
    v, h = flat(w), 1e-4
    stencil = {1: 45, 2: -9, 3: 1}

    def slope(e):
        return sum(
            c * s * mean_loss(net, loss, x, y, named(v * (1 + s * i * h * e), w))
            for i, c in stencil.items()
            for s in (1, -1)
        )

    return named(np.array([-slope(e) / (60 * h) for e in np.eye(len(v))]), w)


@right("taylor_signed", "weights kept as (in, out) and turned back")
def taylor_signed_transposed(net, loss, x, y, w):
    kept = {k: np.ascontiguousarray(v.T) for k, v in w.items()}
    X, Z = forward(net, w, x)
    d, scores = output_gradient(loss, Z[-1], y) / len(x), {}
    for layer in reversed(range(len(Z))):
        k = net.names[layer]
        scores[f"{k}.weight"] = (-(X[layer].T @ d) * kept[f"{k}.weight"]).T
        scores[f"{k}.bias"] = -d.sum(axis=0) * kept[f"{k}.bias"]
        if layer:
            d = d @ kept[f"{k}.weight"].T * dphi(net, Z[layer - 1])
    return {k: scores[k] for k in w}


@right("taylor_squared", "one example at a time")
def taylor_squared_by_examples(net, loss, x, y, w):
    parts = [gradient(net, loss, x[n : n + 1], y[n : n + 1], w) for n in range(len(x))]
    return {k: sum((g[k] * w[k]) ** 2 for g in parts) / len(x) for k in w}


@right("taylor_squared", "squared inputs times squared deltas, no gradient of an example formed")
def taylor_squared_by_products(net, loss, x, y, w):
    X, Z = forward(net, w, x)
    scores = {}
    for k, a, d in zip(net.names, X, deltas(net, w, Z, output_gradient(loss, Z[-1], y)), strict=True):
        scores[f"{k}.weight"] = (d**2).T @ a**2 / len(x) * w[f"{k}.weight"] ** 2
        scores[f"{k}.bias"] = (d**2).mean(axis=0) * w[f"{k}.bias"] ** 2
    return scores


def _jets(net, loss, x, y, w):
    """Return ∂L/∂w_j and ∂²L/∂w_j² of every weight, pushed forward along that weight alone."""
    X, Z = forward(net, w, x)
    dz, Q = output_gradient(loss, Z[-1], y), output_hessian(loss, Z[-1])
    first, second = {k: np.zeros_like(v) for k, v in w.items()}, {k: np.zeros_like(v) for k, v in w.items()}
    for layer, k in enumerate(net.names):
        for name in (f"{k}.weight", f"{k}.bias"):
            for index in np.ndindex(w[name].shape):
                a, b = np.zeros_like(Z[layer]), np.zeros_like(Z[layer])
                a[:, index[0]] = X[layer][:, index[1]] if len(index) == 2 else 1
                for behind in range(layer, len(Z) - 1):
                    slope, bend, W = dphi(net, Z[behind]), ddphi(net, Z[behind]), w[f"{net.names[behind + 1]}.weight"]
                    a, b = (slope * a) @ W.T, (bend * a**2 + slope * b) @ W.T
                first[name][index] = (dz * a).sum() / len(x)
                second[name][index] = (np.einsum("nc,ncd,nd->", a, Q, a) + (dz * b).sum()) / len(x)
    return first, second


@right("taylor_second", "first and second derivatives pushed forward along every weight")
def taylor_second_forward(net, loss, x, y, w):
    g, h = _jets(net, loss, x, y, w)
    return {k: -g[k] * w[k] + 0.5 * h[k] * w[k] ** 2 for k in w}


@right("obd", "second derivatives pushed forward along every weight")
def obd_forward(net, loss, x, y, w):
    return {k: 0.5 * h * w[k] ** 2 for k, h in _jets(net, loss, x, y, w)[1].items()}


@right("obd", "central differences of sixth order of the gradient")
def obd_by_differences(net, loss, x, y, w):
    v, h = flat(w), 1e-4
    stencil = {1: 45, 2: -9, 3: 1}

    def bend(j):
        e = np.eye(len(v))[j]
        return sum(
            c * s * flat(gradient(net, loss, x, y, named(v + s * i * h * e, w)))[j]
            for i, c in stencil.items()
            for s in (1, -1)
        )

    return named(np.array([0.5 * bend(j) / (60 * h) * v[j] ** 2 for j in range(len(v))]), w)


@right("obd", "all probes of one weight each, batches weighted by their size")
def obd_by_batches(net, loss, x, y, w):
    parts = [(len(part[0]) / len(x), _curvature(net, loss, *part, w)) for part in batches(x, y)]
    return {k: 0.5 * sum(share * h[k] for share, h in parts) * w[k] ** 2 for k in w}


@right("obd_recursive", "loops over examples and units")
def obd_recursive_by_loops(net, loss, x, y, w):
    total = {k: np.zeros_like(v) for k, v in w.items()}
    for n in range(len(x)):
        X, Z = forward(net, w, x[n : n + 1])
        d = output_gradient(loss, Z[-1], y[n : n + 1])[0]
        h = [output_hessian(loss, Z[-1])[0, c, c] for c in range(net.sizes[-1])]
        for layer in reversed(range(len(Z))):
            k, W = net.names[layer], w[f"{net.names[layer]}.weight"]
            for o, i in np.ndindex(W.shape):
                total[f"{k}.weight"][o, i] += X[layer][0, i] ** 2 * h[o]
            for o in range(len(W)):
                total[f"{k}.bias"][o] += h[o]
            if layer:
                z = Z[layer - 1]
                slope, bend = dphi(net, z)[0], ddphi(net, z)[0]
                passed = [sum(W[o, i] * d[o] for o in range(len(W))) for i in range(W.shape[1])]
                h = [
                    slope[i] ** 2 * sum(W[o, i] ** 2 * h[o] for o in range(len(W))) + bend[i] * passed[i]
                    for i in range(W.shape[1])
                ]
                d = np.array([slope[i] * passed[i] for i in range(W.shape[1])])
    return {k: 0.5 * total[k] / len(x) * w[k] ** 2 for k in w}


@right("obs", "Schur complements: what each weight's curvature keeps once the others may move")
def obs_by_schur(net, loss, x, y, w):
    H, v = hessian(net, loss, x, y, w), flat(w)
    A = H + 0.5 * np.eye(len(v))
    scores = []
    for j in range(len(v)):
        rest = np.arange(len(v)) != j
        left = A[j, j] - A[j, rest] @ np.linalg.solve(A[np.ix_(rest, rest)], A[rest, j])
        scores.append(0.5 * v[j] ** 2 * left)
    return named(np.array(scores), w)


@right("obs", "a float32 Hessian and its eigenvectors", 1e-4)
def obs_float32(net, loss, x, y, w):
    values, vectors = np.linalg.eigh(hessian(net, loss, x, y, w).astype(np.float32))
    return named(flat(w).astype(np.float32) ** 2 / (2 * (vectors**2 / (values + np.float32(0.5))).sum(axis=1)), w)


@right("obs_gradient", "the least value of the model under δ_j = −w_j, by its Lagrange system")
def obs_gradient_by_lagrange(net, loss, x, y, w):
    H, v, g = hessian(net, loss, x, y, w), flat(w), flat(gradient(net, loss, x, y, w))
    A, scores = H + 0.5 * np.eye(len(v)), []
    for j, e in enumerate(np.eye(len(v))):
        system = np.block([[A, e[:, None]], [e[None], np.zeros((1, 1))]])
        d = np.linalg.solve(system, np.append(-g, -v[j]))[:-1]
        scores.append(g @ d + 0.5 * d @ A @ d)
    return named(np.array(scores), w)


@right("obs_layerwise", "least squares without each input in turn")
def obs_layerwise_refitted(net, loss, x, y, w):
    inputs = layer_inputs(net, w, x)

    def rule(k, W):
        q = inputs[k].shape[1]
        A, cost = np.concatenate([inputs[k] / np.sqrt(len(x)), np.sqrt(0.1) * np.eye(q)]), np.empty(q)
        for i in range(q):
            rest = np.delete(A, i, axis=1)
            cost[i] = ((A[:, i] - rest @ np.linalg.lstsq(rest, A[:, i], rcond=None)[0]) ** 2).sum()
        return 0.5 * W**2 * cost

    return by_inputs(net, w, rule)


@right("obs_layerwise", "2XᵀX with 2N damping, divided by 4N: the released scale undone")
def obs_layerwise_rescaled(net, loss, x, y, w):
    def rule(k, W):
        X = inputs[k]
        return W**2 / np.diag(np.linalg.inv(2 * X.T @ X + 2 * len(x) * 0.1 * np.eye(X.shape[1]))) / (4 * len(x))

    inputs = layer_inputs(net, w, x)
    return by_inputs(net, w, rule)


@right("fisher", "an average over the model's classes, or over outputs of unit variance")
def fisher_by_expectation(net, loss, x, y, w):
    if loss == "squared_error":
        C = net.sizes[-1]
        z = outputs_of(net, w, x)
        parts = [example_gradients(net, loss, x, z + s * e, w) for e in np.eye(C) for s in (1, -1)]
        return {k: 0.5 * w[k] ** 2 * sum((g[k] ** 2).mean(axis=0) for g in parts) / 2 for k in w}
    p, total = softmax(outputs_of(net, w, x)), {k: np.zeros_like(v) for k, v in w.items()}
    for n, c in np.ndindex(p.shape):
        g = gradient(net, loss, x[n : n + 1], np.array([c]), w)
        total = {k: total[k] + p[n, c] * g[k] ** 2 for k in w}
    return {k: 0.5 * w[k] ** 2 * total[k] / len(x) for k in w}


@right("fisher", "the variance of the Jacobian over the classes")
def fisher_by_jacobian(net, loss, x, y, w):
    J, p = jacobian(net, w, x), softmax(outputs_of(net, w, x))[:, :, None]
    spread = (
        (J**2).sum(axis=1)
        if loss == "squared_error"
        else (p * (J - (p * J).sum(axis=1, keepdims=True)) ** 2).sum(axis=1)
    )
    return named(0.5 * flat(w) ** 2 * spread.mean(axis=0), w)


@right("fisher_empirical", "float32, one example at a time", 1e-4)
def fisher_empirical_float32(net, loss, x, y, w):
    x, y, w = x.astype(np.float32), y.astype(np.float32) if y.ndim == 2 else y, _single(w)
    total = dict.fromkeys(w, np.float32(0))
    for n in range(len(x)):
        g = gradient(net, loss, x[n : n + 1], y[n : n + 1], w)
        total = {k: total[k] + g[k] ** 2 for k in w}
    return {k: w[k] ** 2 * total[k] / np.float32(2 * len(x)) for k in w}


@right("woodfisher", "the recursion of the paper, one example at a time")
def woodfisher_recursion(net, loss, x, y, w):
    return _woodfisher(w, rows_of(net, loss, x, y, w), 1 / 0.01, len(x))


@right("woodfisher", "a dense matrix and its inverse")
def woodfisher_dense(net, loss, x, y, w):
    rows = rows_of(net, loss, x, y, w)
    F = rows.T @ rows / len(x)
    return named(flat(w) ** 2 / (2 * np.diag(np.linalg.inv(0.01 * np.eye(len(F)) + F))), w)


@right("snip", "the complex step in every weight's gate, normalised")
def snip_by_gates(net, loss, x, y, w):
    s = taylor_by_gates(net, loss, x, y, w)
    return {k: v / flat(s).sum() for k, v in s.items()}


@right("snip", "the loss summed and scaled by 1000: the normalisation takes it out")
def snip_of_sum(net, loss, x, y, w):
    s = {k: abs(1000 * g.sum(axis=0) * w[k]) for k, g in example_gradients(net, loss, x, y, w).items()}
    total = sum(v.sum() for v in s.values())
    return {k: v / total for k, v in s.items()}


@right("grasp", "the complex step of ½ ‖g‖² in every weight's gate")
def grasp_by_gates(net, loss, x, y, w):
    v = flat(w)
    gates = np.eye(len(v)) * 1j * STEP + 1
    norms = [0.5 * (flat(gradient(net, loss, x, y, named(v * m, w))) ** 2).sum() for m in gates]
    return named(np.imag(norms) / STEP, w)


@right("grasp", "central differences of the gradient along itself")
def grasp_by_differences(net, loss, x, y, w):
    g, h = gradient(net, loss, x, y, w), 1e-4
    at = {s: gradient(net, loss, x, y, {k: w[k] + s * h * g[k] for k in w}) for s in (-2, -1, 1, 2)}
    return {k: w[k] * (8 * (at[1][k] - at[-1][k]) - (at[2][k] - at[-2][k])) / (12 * h) for k in w}


@right("synflow", "all paths, one by one")
def synflow_by_paths(net, loss, x, y, w):
    scores = {k: np.zeros_like(v) for k, v in w.items()}
    for path in itertools.product(*map(range, net.sizes)):
        steps = [(f"{k}.weight", (path[i + 1], path[i])) for i, k in enumerate(net.names)]
        product = math.prod(abs(w[k][index]) for k, index in steps)
        for k, index in steps:
            scores[k][index] += product
    return scores


@right("synflow", "products of |W|; a batch of ones divided by its size; float32", 1e-4)
def synflow_float32(net, loss, x, y, w):
    s = flow(net, _absolute(_single(w)), np.ones(x.shape, np.float32), biases=False, linear=True)[1]
    return {k: v / np.float32(len(x)) for k, v in s.items()}


@right("wanda", "squares added batch by batch, weights kept as (in, out)")
def wanda_streamed(net, loss, x, y, w):
    scores = {}
    for k in net.names:
        squares, W = 0, w[f"{k}.weight"].T
        for part, _ in batches(x, y):
            squares = squares + (layer_inputs(net, w, part)[k] ** 2).sum(axis=0)
        scores[f"{k}.weight"] = (abs(W) * np.sqrt(squares)[:-1, None]).T
        scores[f"{k}.bias"] = abs(w[f"{k}.bias"]) * math.sqrt(len(x))
    return scores


@right("wanda", "the root of the error that each deletion makes in the layer's output")
def wanda_by_deletion(net, loss, x, y, w):
    inputs = layer_inputs(net, w, x)

    def rule(k, W):
        scores = np.empty_like(W)
        for o, i in np.ndindex(W.shape):
            less = W.copy()
            less[o, i] = 0
            scores[o, i] = np.linalg.norm(inputs[k] @ (W - less).T)
        return scores

    return by_inputs(net, w, rule)


@right("exact", "one weight out at a time and put back, batches weighted by their size")
def exact_in_place(net, loss, x, y, w):
    def value():
        return math.fsum(
            a for part in batches(x, y) for a in losses(loss, outputs_of(net, work, part[0]), part[1])
        ) / len(x)

    work, scores = {k: v.copy() for k, v in w.items()}, {k: np.zeros_like(v) for k, v in w.items()}
    full = value()
    for k, v in work.items():
        for index in np.ndindex(v.shape):
            v[index] = 0
            scores[k][index] = value() - full
            v[index] = w[k][index]
    return scores


@right("exact", "the last layer by its formula, in the change of one output; the others by removal")
def exact_last_layer_by_formula(net, loss, x, y, w):
    full, last = mean_loss(net, loss, x, y, w), net.names[-1]
    scores = _by_removal(w, lambda v: mean_loss(net, loss, x, y, v) - full)
    X, Z = forward(net, w, x)
    inputs = np.column_stack([X[-1], np.ones(len(x))])
    d = -np.column_stack([w[f"{last}.weight"], w[f"{last}.bias"]])[None] * inputs[:, None, :]
    if loss == "squared_error":
        rise = (Z[-1] - y)[:, :, None] * d + 0.5 * d**2
    else:
        rise = np.log1p(softmax(Z[-1])[:, :, None] * np.expm1(d)) - np.eye(net.sizes[-1])[y][:, :, None] * d
    rise = rise.mean(axis=0)
    return {**scores, f"{last}.weight": rise[:, :-1], f"{last}.bias": rise[:, -1]}


@right("exact", "float32 throughout", 1e-4)
def exact_float32(net, loss, x, y, w):
    x, y, w = x.astype(np.float32), y.astype(np.float32) if y.ndim == 2 else y, _single(w)
    full = mean_loss(net, loss, x, y, w)
    return _by_removal(w, lambda v: mean_loss(net, loss, x, y, v) - full)
