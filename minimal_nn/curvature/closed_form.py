"""The Hessian of a chain of linear layers and activations in closed form: Hessian backpropagation, example by example.

For one example let z_l = x_l W_l be the pre-activations of linear layer l (the bias is a row of W_l, its input a 1
appended to x_l), φ_l what stands between z_l and x_{l+1}, δ_l = ∂ℓ/∂z_l, D_l = diag φ_l′(z_l), and W_l without its
bias row wherever an adjoint passes back through it. Then, from the last layer to the first,

    δ_l     = D_l W_{l+1} δ_{l+1}
    S^{l,l} = ∂δ_l/∂z_l     = D_l W_{l+1} S^{l+1,l+1} W_{l+1}ᵀ D_l + diag(φ_l″(z_l) ∘ W_{l+1} δ_{l+1})
    S^{l,m} = ∂δ_m/∂z_l     = D_l W_{l+1} S^{l+1,m}            for m > l
    R^{l,m} = ∂x_m/∂z_l     = D_l W_{l+1} R^{l+1,m},           R^{l,l+1} = D_l

and the block of H that couples weight (a, b) of layer l with weight (c, d) of layer m ≥ l is a mean over examples:

    H[(a,b),(c,d)] = (1/N) Σ_n x_{l,a} ( S^{l,m}_{b,d} x_{m,c} + [m > l] R^{l,m}_{b,c} δ_{m,d} )

which is one matrix product over n, whose last axis is the examples. Averaging S or x xᵀ over the batch first would be
faster and wrong.

Source: Bishop 1992; Dangel, Harmeling and Hennig 2020 (modular Hessian backpropagation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from minimal_nn.curvature.block_sums import add_cross, add_own, add_path, mirror
from minimal_nn.layers import Activation, Linear
from minimal_nn.network import Network, Trace
from minimal_nn.objective import Objective


def is_chain(network: Network) -> bool:
    """Whether the network consists of Linear layers and activations alone, so that the closed form applies."""
    return all(isinstance(layer, (Linear, Activation)) for layer in network.layers)


@dataclass(frozen=True)
class Stage:
    """What Hessian backpropagation needs of linear layer l, for n examples."""

    parameters: slice  # of w, bias included
    weight: np.ndarray  # W_l without its bias row (inputs, outputs)
    x: np.ndarray  # (inputs + 1, n), or (inputs, n) without a bias
    first: np.ndarray  # φ_l′(z_l) (outputs, n)
    second: np.ndarray  # φ_l″(z_l) (outputs, n)

    @property
    def has_bias(self) -> bool:
        """Whether x carries an appended 1."""
        return len(self.x) > len(self.weight)


LabelSets = Callable[[np.ndarray, np.ndarray], list[tuple[np.ndarray, np.ndarray]]]
View = Callable[[Stage, Stage], np.ndarray]  #: (l, m) -> the block (a, b, c, d) of a matrix


def hessian(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return H (P, P), the penalty included, symmetric to the bit."""
    H = _matrix(L, w, lambda view, stages, z, y: _add_hessian(view, stages, *loss_derivatives(L, z, y)))
    H.flat[:: len(H) + 1] += L.l2
    return H


def gauss_newton(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return G (P, P): the recursion without φ″ and without the second derivatives of the layers' products."""
    return _matrix(L, w, lambda view, stages, z, y: _add_gauss_newton(view, stages, *loss_derivatives(L, z, y)))


def fisher(L: Objective, w: np.ndarray, label_sets: LabelSets) -> np.ndarray:
    """Return (1/N) Σ_n Σ_m weight_mn g_mn g_mnᵀ (P, P) over the label sets m that `label_sets(z, y)` lists.

    A gradient is x ⊗ δ, so that S^{l,m} is a sum of δ_l δ_mᵀ: no row of length P is formed.
    """
    return _matrix(
        L, w, lambda view, stages, z, y: _add_outer(view, stages, *_score_adjoints(L, stages, z, y, label_sets))
    )


def fisher_diagonal(L: Objective, w: np.ndarray, label_sets: LabelSets) -> np.ndarray:
    """Return the diagonal (P,) of `fisher`: (1/N) Σ_n x_a² Σ_m weight_mn δ_{mn,b}²."""
    diagonal = np.zeros(L.n_parameters, dtype=w.dtype)
    for trace, y in L.traces(w, extra=4 * L.n_outputs * sum(layer.outputs for layer in _linear_layers(L.network))):
        stages = stages_of(L.network, w, trace)
        weights, adjoints = _score_adjoints(L, stages, trace[-1], y, label_sets)
        for stage, delta in zip(stages, adjoints, strict=True):
            squares = (weights[:, None] * delta**2).sum(axis=0)
            diagonal[stage.parameters] += (stage.x**2 @ squares.T).ravel()
    return diagonal


def hessian_diagonal(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return diag H (P,): (1/N) Σ_n x_a² S^{l,l}_{b,b} + l2. No matrix of size (P, P) is formed.

    Nor is S: it is kept as a sum of F K Fᵀ, with K the loss's Hessian or a diagonal, of which only the rows' sums
    of squares are needed in the first layer, the widest.
    """
    diagonal = np.zeros(L.n_parameters, dtype=w.dtype)
    behind_first = [layer.inputs * layer.outputs for layer in _linear_layers(L.network)[1:]]
    for trace, y in L.traces(w, extra=4 * sum(behind_first)):
        stages = stages_of(L.network, w, trace)
        for stage, S_diagonal in _diagonals(stages, *loss_derivatives(L, trace[-1], y)):
            diagonal[stage.parameters] += (stage.x**2 @ S_diagonal.T).ravel()
    return diagonal + w.dtype.type(L.l2)


def _matrix(L: Objective, w: np.ndarray, add: Callable[..., None]) -> np.ndarray:
    """Return a symmetric matrix (P, P) of which `add(view, stages, z, y)` adds the blocks on and above the diagonal."""
    matrix = np.zeros((L.n_parameters, L.n_parameters), dtype=w.dtype)

    def view(l: Stage, m: Stage) -> np.ndarray:
        shape = len(l.x), len(l.first), len(m.x), len(m.first)
        return matrix[l.parameters, m.parameters].reshape(shape)  # axes are only split: never a copy

    for trace, y in L.traces(w, extra=numbers_per_example(L.network)):
        add(view, stages_of(L.network, w, trace), trace[-1], y)
    mirror(matrix)
    return matrix


def numbers_per_example(network: Network) -> int:
    """Return a bound on how many numbers Hessian backpropagation keeps for one example."""
    layers = _linear_layers(network)
    units = max(layer.outputs for layer in layers)
    adjoints = sum(max(layer.inputs, layer.outputs) * units for layer in layers[1:])
    return max(layer.inputs for layer in layers) + 4 * (adjoints + units**2)


def loss_derivatives(L: Objective, z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ∂ℓ/∂z (C, n) and ∂²ℓ/∂z² (C, C, n) of n of the N examples, both times 1/N."""
    N = L.n_examples
    return L.loss.gradient(z, y).T / N, np.ascontiguousarray(np.moveaxis(L.loss.hessian(z), 0, -1)) / N


def stages_of(network: Network, w: np.ndarray, trace: Trace) -> list[Stage]:
    """Return the stages of a chain, in the order of its linear layers."""
    at = [i for i, layer in enumerate(network.layers) if isinstance(layer, Linear)]
    stages = []
    for i, following in zip(at, [*at[1:], len(network.layers)], strict=True):
        p = network.parameters(w)[i]
        x = trace[i].T
        x = np.concatenate([x, np.ones_like(x[:1])]) if "bias" in p else np.ascontiguousarray(x)
        start = network.layout[f"{i}.weight"].start
        first, second = _elementwise_derivatives(network, trace, i + 1, following)
        stages.append(Stage(slice(start, start + len(x) * p["weight"].shape[1]), p["weight"], x, first, second))
    return stages


def backward(
    stages: list[Stage], gradient: np.ndarray, curvature: np.ndarray
) -> Iterator[tuple[Stage, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield (stage, δ_l (b, n), S^{l,l} (b, b, n), W_l S^{l,l} (a, b, n)) from the last linear layer to the first.

    gradient (b, n) and curvature (b, b, n) are those of the loss in what comes out behind φ_l; curvature is
    overwritten. The first layer has nothing before it, and None for W_l S^{l,l}.
    """
    for stage in reversed(stages):
        delta = stage.first * gradient
        S = curvature
        S *= stage.first
        S *= stage.first[:, None]
        units = np.arange(len(S))
        S[units, units] += stage.second * gradient
        WS = None if stage is stages[0] else times(stage.weight, S)
        yield stage, delta, S, WS
        if WS is not None:
            gradient = stage.weight @ delta
            curvature = times(stage.weight, WS.swapaxes(0, 1))


def times(W: np.ndarray, S: np.ndarray) -> np.ndarray:
    """Return Σ_b W_ab S_b... (a, ..., n) for S (b, ..., n): one matrix product for all examples."""
    return (W @ S.reshape(len(S), -1)).reshape(len(W), *S.shape[1:])


def _linear_layers(network: Network) -> list[Linear]:
    return [layer for layer in network.layers if isinstance(layer, Linear)]


def _elementwise_derivatives(network: Network, trace: Trace, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Return φ′ and φ″ (outputs, n) of the composition φ of layers[start:stop]: (f∘g)″ = f″ g′² + f′ g″."""
    first, second = np.ones_like(trace[start]), np.zeros_like(trace[start])
    for i in range(start, stop):
        x, y = trace[i], trace[i + 1]
        slope = network.layers[i].derivative(x, y)  # type: ignore[attr-defined]
        second = network.layers[i].second_derivative(x, y) * first**2 + slope * second  # type: ignore[attr-defined]
        first = slope * first
    return np.ascontiguousarray(first.T), np.ascontiguousarray(second.T)


def _add_hessian(view: View, stages: list[Stage], gradient: np.ndarray, curvature: np.ndarray) -> None:
    """Add the blocks (l, m), m >= l, of H."""
    later: list[tuple[Stage, np.ndarray, np.ndarray, np.ndarray | None]] = []
    for stage, delta, S, WS in backward(stages, gradient, curvature):
        add_own(view(stage, stage), stage.x, S)
        D, W = stage.first, stage.weight
        here = []
        for m, delta_m, S_m, R_m in later:  # S_m = ∂δ_m/∂x_{l+1}, R_m = ∂x_m/∂x_{l+1}, None for the identity
            S_m *= D[:, None]
            R_m = D if R_m is None else D[:, None] * R_m
            add_cross(view(stage, m), stage.x, S_m, m.x)
            add_path(view(stage, m), stage.x, R_m, delta_m)
            here.append((m, delta_m, S_m, R_m))
        if WS is not None:
            through = [
                (m, delta_m, times(W, S_m), W[:, :, None] * R_m if R_m.ndim == 2 else times(W, R_m))
                for m, delta_m, S_m, R_m in here
            ]
            later = [(stage, delta, WS, None), *through]


def _add_gauss_newton(view: View, stages: list[Stage], gradient: np.ndarray, curvature: np.ndarray) -> None:
    """Add the blocks (l, m), m >= l, of G."""
    flat = [replace(stage, second=np.zeros_like(stage.second)) for stage in stages]
    later: list[tuple[Stage, np.ndarray]] = []
    for stage, _, S, WS in backward(flat, gradient, curvature):
        add_own(view(stage, stage), stage.x, S)
        for m, S_m in later:
            S_m *= stage.first[:, None]
            add_cross(view(stage, m), stage.x, S_m, m.x)
        if WS is not None:
            later = [(stage, WS), *((m, times(stage.weight, S_m)) for m, S_m in later)]


def _score_adjoints(
    L: Objective, stages: list[Stage], z: np.ndarray, y: np.ndarray, label_sets: LabelSets
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the weights (M, n) of M label sets, over N, and for each linear layer δ_l (M, b, n) under each of them."""
    weights, labels = zip(*label_sets(z, y), strict=True)
    gradient = np.stack([L.loss.gradient(z, y_m).T for y_m in labels]).astype(z.dtype, copy=False)
    adjoints = []
    for stage in reversed(stages):
        adjoints.append(stage.first * gradient)
        gradient = stage.weight @ adjoints[-1]
    return np.stack(weights).astype(z.dtype, copy=False) / L.n_examples, adjoints[::-1]


def _add_outer(view: View, stages: list[Stage], weights: np.ndarray, adjoints: list[np.ndarray]) -> None:
    """Add the blocks (l, m), m >= l, of the Fisher matrix."""
    for i, (stage, delta) in enumerate(zip(stages, adjoints, strict=True)):
        weighted = weights[:, None] * delta
        add_own(view(stage, stage), stage.x, np.einsum("kbn,kdn->bdn", weighted, delta))
        for m, delta_m in zip(stages[i + 1 :], adjoints[i + 1 :], strict=True):
            add_cross(view(stage, m), stage.x, np.einsum("kbn,kdn->bdn", weighted, delta_m), m.x)


def _diagonals(stages: list[Stage], gradient: np.ndarray, curvature: np.ndarray) -> Iterator[tuple[Stage, np.ndarray]]:
    """Yield (stage, diagonal of S^{l,l} (b, n)) from the last linear layer to the first.

    Behind layer l, S is Σ F K Fᵀ + diag(fresh), for pairs (F, K) with K (n, r, r), or (n, r) for a diagonal.
    """
    C, n = gradient.shape
    factors: list[tuple[np.ndarray, np.ndarray]] = [
        (
            np.broadcast_to(np.eye(C, dtype=gradient.dtype), (n, C, C)),
            np.ascontiguousarray(np.moveaxis(curvature, -1, 0)),
        )
    ]
    fresh, previous = None, None
    for stage in reversed(stages):
        D = stage.first
        if previous is not None:
            W = previous.weight
            factors = [(W @ F, K) for F, K in factors]
        diagonal = sum(_quadratic(F, K) for F, K in factors)
        if previous is not None and fresh is not None and fresh.any():
            diagonal = diagonal + W**2 @ fresh
            if stage is not stages[0]:
                factors.append((np.broadcast_to(W, (n, *W.shape)), np.ascontiguousarray(fresh.T)))
        fresh = stage.second * gradient
        yield stage, D**2 * diagonal + fresh
        factors = [(np.ascontiguousarray(D.T)[:, :, None] * F, K) for F, K in factors]
        gradient, previous = stage.weight @ (D * gradient), stage


def _quadratic(F: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Return the diagonal of F K Fᵀ (b, n), for F (n, b, r) and K (n, r, r), or (n, r) for a diagonal K."""
    return ((F @ K if K.ndim == 3 else F * K[:, None, :]) * F).sum(axis=2).T
