"""Approximations of curvature that keep one part of it: a Kronecker product by layer, or a diagonal by recursion.

K-FAC replaces the mean of products by a product of means. For a Linear layer with inputs x̃ (1 appended for the bias)
and δ = −∂ log p/∂y, the adjoint of its output y = x̃ W, an example's score of the layer's parameters is x̃ ⊗ δ, so that

    F_l = (1/N) Σ_n x̃_n x̃_nᵀ ⊗ E[δ_n δ_nᵀ]   ≈   A ⊗ B = ((1/N) Σ_n x̃_n x̃_nᵀ) ⊗ ((1/N) Σ_n E[δ_n δ_nᵀ])

with equality where one of the two does not vary over the examples: one example, or a network of linear layers with
SquaredError. The score of a Conv2d is the sum Σ_t x̃_t ⊗ δ_t over its T output positions, whose windows are x̃_t; the
products of different positions are dropped, and what is left is averaged over positions in B. `obd_recursive_diagonal`
is the recursion by which LeCun et al. estimated the diagonal of H, and `gradient_covariance` what is left of the
empirical Fisher when the mean gradient is taken out.
"""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from minimal_nn.curvature.fishers import KINDS, _label_sets
from minimal_nn.curvature.products import PRODUCTS, product_index, product_rows
from minimal_nn.layers import Activation, AvgPool2d, BatchNorm, Flatten, Layer, MaxPool2d
from minimal_nn.layers.base import Parameters
from minimal_nn.network import Network
from minimal_nn.objective import Objective

#: maps linear in x, and in their parameters, that LeCun's recursion passes
SQUARABLE = (*PRODUCTS, BatchNorm, AvgPool2d, MaxPool2d, Flatten)


def kfac(
    L: Objective, w: np.ndarray, kind: str = "true", samples: int = 1, rng: np.random.Generator | None = None
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return the Kronecker factors of the Fisher block of each Linear and Conv2d: index of the layer -> (A, B).

        Linear   A = (1/N) Σ_n x̃_n x̃_nᵀ           (q, q), q = inputs, + 1 with a bias
                 B = (1/N) Σ_n E[δ_n δ_nᵀ]         (outputs, outputs)
        Conv2d   A = (1/N) Σ_n Σ_t x̃_nt x̃_ntᵀ     (q, q), q = inputs·kernel², + 1 with a bias
                 B = (1/(N T)) Σ_n Σ_t E[δ_nt δ_ntᵀ]

    The bias is the last input. The expectation is over the labels that `kind` ("true", "sampled", "empirical"),
    `samples` and `rng` mean in curvature.fisher; the units too are those of its blocks, loss `scale` included, and l2
    is in neither factor. Layers without parameters may be of any kind; ValueError where another layer has parameters.
    Source: Martens and Grosse 2015, section 3; for Conv2d Grosse and Martens 2016, section 3.
    """
    w = L.check_w(w)
    at = _product_layers(L.network)
    label_sets = _label_sets(L, checks.one_of("kind", kind, KINDS), samples, rng)
    sums = {}
    for i, layer in at.items():
        q, outputs = product_index(layer).shape
        sums[i] = np.zeros((q, q), w.dtype), np.zeros((outputs, outputs), w.dtype)
    for trace, y in L.traces(w, extra=3 * _largest_rows(L, at)):
        for i, layer in at.items():
            x = product_rows(layer, trace[i])
            sums[i][0][...] += x.T @ x
        for weight, labels in label_sets(trace[-1], y):
            by = np.sqrt(weight)[:, None] * L.loss.gradient(trace[-1], labels)
            adjoints = L.network.adjoints(w, trace, by.astype(w.dtype, copy=False))
            for i in at:
                delta = np.moveaxis(adjoints[i], 1, -1)  # (n, ..., outputs)
                positions = delta[0, ..., 0].size
                delta = delta.reshape(-1, delta.shape[-1])
                sums[i][1][...] += delta.T @ delta / positions
    return {i: (A / L.n_examples, B / L.n_examples) for i, (A, B) in sums.items()}


def kfac_block(A: np.ndarray, B: np.ndarray, layer: Layer | None = None) -> np.ndarray:
    """Return A ⊗ B, an approximate Fisher block (P_l, P_l) in the order of w: entry [(a, b), (c, d)] is A_ac B_bd.

    Row a·outputs + b belongs to the weight from input a to output b; a bias is one more input, whose rows come last.
    The weights of a Conv2d lie in another order in w: pass the layer. ValueError where A or B is not a square float
    matrix, or not of the size of the layer's factors.
    """
    for name, M in (("A", A), ("B", B)):
        if checks.array(name, M, (None, None)).shape != (len(M), len(M)):
            raise ValueError(f"{name}: expected a square matrix, got {checks.describe(M)}")
    block = np.kron(A, B)
    if layer is None:
        return block
    if not isinstance(layer, PRODUCTS):
        raise ValueError(f"layer: expected Linear or Conv2d, got {checks.describe(layer)}")
    index = product_index(layer)
    for name, M, size in zip("AB", (A, B), index.shape, strict=True):
        checks.array(name, M, (size, size))
    in_order = np.empty_like(block)
    in_order[np.ix_(index.ravel(), index.ravel())] = block
    return in_order


def obd_recursive_diagonal(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return LeCun's estimate h (P,) of the diagonal of H, the l2 penalty included.

    Second derivatives pass back through the layers like first ones, as if those of an example by two different units,
    or positions of an image, were zero. From h_z = the diagonal of ∂²ℓ/∂z² at the outputs, per example,

        activation y = φ(x)       h_x = φ′(x)² h_y + φ″(x) ∂ℓ/∂y
        Linear y = x W + b        h_x,a = Σ_b W_ab² h_y,b,    h_W,ab = x_a² h_y,b,    h_b = h_y
        any map linear in x       h_x = Σ (∂y/∂x)² h_y,       h_θ = Σ (∂y/∂θ)² h_y:  Conv2d, BatchNorm, pooling, Flatten

    and h is the mean over the examples, plus l2. It is exact for the last linear layer, for the last two where the
    output Hessian is diagonal (SquaredError, BinaryCrossEntropy), and in general for no others: what is dropped is
    W_ab W_ad ∂²ℓ/∂y_b∂y_d, b ≠ d, and of a weight that a Conv2d uses at many positions all but the sum over each by
    itself. It may be negative. ValueError where a layer behind the first parameters is of another kind (Residual).
    Source: LeCun, Denker and Solla 1990, section 2; the sign of the φ″ term is that of the chain rule.
    """
    w = L.check_w(w)
    layers, first = L.network.layers, _first_with_parameters(L.network)
    for i in range(first, len(layers)):
        if not isinstance(layers[i], (Activation, *SQUARABLE)):
            known = ", ".join(kind.__name__ for kind in SQUARABLE)
            raise ValueError(
                f"layers[{i}]: LeCun's recursion: expected an elementwise activation or one of {known} after the first "
                f"parameters, got {layers[i]}"
            )
    own = L.network.parameters(w)
    diagonal = np.zeros_like(w)
    views = L.network.parameters(diagonal)
    for trace, y in L.traces(w, extra=L.n_outputs**2):
        adjoints = L.network.adjoints(w, trace, L.loss.gradient(trace[-1], y))
        h = np.einsum("ncc->nc", L.loss.hessian(trace[-1]))
        for i in range(len(layers) - 1, first - 1, -1):
            layer, x, z = layers[i], trace[i], trace[i + 1]
            if isinstance(layer, Activation):
                h = layer.derivative(x, z) ** 2 * h + layer.second_derivative(x, z) * adjoints[i]
                continue
            h_own, h = _pull_back_squared(layer, own[i], x, z, h)
            for name, value in h_own.items():
                views[i][name][...] += value
    return diagonal / L.n_examples + w.dtype.type(L.l2)


def gradient_covariance(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return the covariance (P, P) of the examples' gradients, positive semidefinite, without l2:

        Σ = (1/N) Σ_n (g_n − ḡ)(g_n − ḡ)ᵀ = F_emp − ḡ ḡᵀ,    ḡ = (1/N) Σ_n g_n

    with 1/N, not 1/(N − 1): the examples are the whole distribution. Computed from the differences, so that nothing
    cancels where the gradients are nearly equal; 0 for one example, F_emp at a minimum of the data's loss. The noise
    of a gradient over M examples drawn with replacement has covariance Σ/M. Units: squares of those of g_n, a loss
    scale s enters as s².
    """
    w = L.check_w(w)
    pulled = (L.network.vjp(w, trace, L.loss.gradient(trace[-1], y)) for trace, y in L.traces(w))
    mean = sum(pulled, start=np.zeros_like(w)) / L.n_examples
    covariance = np.zeros((len(w), len(w)), w.dtype)
    for trace, y in L.traces(w, extra=3 * len(w)):
        rows = L.network.per_example_vjp(w, trace, L.loss.gradient(trace[-1], y)) - mean
        covariance += rows.T @ rows
    return covariance / L.n_examples


def _product_layers(network: Network) -> dict[int, Layer]:
    """Return index -> layer of the Linear and Conv2d layers; ValueError where another layer has parameters."""
    at: dict[int, Layer] = {}
    for i, layer in enumerate(network.layers):
        if isinstance(layer, PRODUCTS):
            at[i] = layer
        elif layer.parameter_shapes():
            raise ValueError(
                f"layers[{i}]: K-FAC factors: expected no layer with parameters but Linear and Conv2d, got {layer}"
            )
    return at


def _largest_rows(L: Objective, at: dict[int, Layer]) -> int:
    """Return how many numbers the largest rows of one example hold."""
    shape, most = L.x.shape[1:], 0
    for i, layer in enumerate(L.network.layers):
        shape = layer.output_shape(shape)
        if i in at:
            most = max(most, len(product_index(layer)) * int(np.prod(shape[1:])))
    return most


def _first_with_parameters(network: Network) -> int:
    return next(i for i, layer in enumerate(network.layers) if layer.parameter_shapes())


def _pull_back_squared(
    layer: Layer, p: Parameters, x: np.ndarray, y: np.ndarray, h: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return Σ (∂y/∂θ)² h by parameter and Σ (∂y/∂x)² h, for a map linear in both: its own vjp with squared entries."""
    if isinstance(layer, AvgPool2d):
        return {}, layer.vjp(p, x, y, h) / layer.kernel**2
    if isinstance(layer, BatchNorm):  # γ (x − mean)/σ + β, of which ((x − mean)/σ)² and (γ/σ)² are wanted
        x = x - np.asarray(layer.mean, dtype=x.dtype).reshape(-1, *(1,) * (x.ndim - 2))
        variance = (np.asarray(layer.variance) + layer.epsilon) ** 2
        layer = BatchNorm(layer.channels, variance=tuple(variance.tolist()), epsilon=0.0)
    if layer.parameter_shapes():
        p, x = {name: value**2 for name, value in p.items()}, x**2
    return layer.parameter_vjp(p, x, h), layer.vjp(p, x, y, h)
