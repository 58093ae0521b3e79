"""Objective: the loss L(w) of a network on given examples, its gradient, Jacobian and Hessian-vector products."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minimal_nn import checks, memory
from minimal_nn.losses import Loss
from minimal_nn.network import Network, Trace

#: tangents are pushed through in pieces small enough for at least so many examples at once
_EXAMPLES_AT_ONCE = 64


class Objective:
    """L(w) = (1/N) Σ_n ℓ(z_n(w), y_n) + (l2/2) ‖w‖².

    Network, loss, x (N, ...) and y are fixed at the start and never change; w (P,) comes with every call and may be
    float64, float32 (all results are then float32) or, for the complex step, complex128. The gradient and the Hessian
    contain the penalty; Jacobians and per-example gradients never do. Sums over examples run in pieces that stay
    within the memory budget. Errors are ValueErrors that name the argument.

    >>> from minimal_nn import Linear, Network, SquaredError
    >>> L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), np.eye(2), np.array([[1.0], [0.0]]))
    >>> w = np.array([3.0, 4.0])
    >>> print(L(w), L.gradient(w), L.hvp(w, w))
    5.0 [1. 2.] [1.5 2. ]
    """

    def __init__(self, network: Network, loss: Loss, x: np.ndarray, y: np.ndarray, l2: float = 0.0) -> None:
        if not isinstance(network, Network):
            raise ValueError(f"network: expected a minimal_nn.Network, got {checks.describe(network)}")
        if not isinstance(loss, Loss):
            raise ValueError(f"loss: expected a loss such as SoftmaxCrossEntropy(), got {checks.describe(loss)}")
        x = checks.array("x", x, kinds="fiub")
        if x.ndim < 2 or not len(x):
            raise ValueError(f"x: expected at least one example, shape (N, ...), got {checks.describe(x)}")
        try:
            output_shape = network.output_shape(x.shape[1:])
        except ValueError as error:
            raise ValueError(f"x: {error}") from None
        if len(output_shape) != 1:
            raise ValueError(f"network: expected outputs of shape (C,) for each example, got {output_shape}")
        y = loss.targets(y, *output_shape)
        if len(y) != len(x):
            raise ValueError(f"y: expected {len(x)} targets for {len(x)} examples, got {len(y)}")
        self.network, self.loss = network, loss
        self.x = x if x.dtype.kind == "f" else x.astype(np.float64)
        self.y = y
        self.l2 = checks.number("l2", l2, 0)
        self.n_outputs = output_shape[0]

    @property
    def n_examples(self) -> int:
        """N, the number of examples."""
        return len(self.x)

    @property
    def n_parameters(self) -> int:
        """P, the length of w."""
        return self.network.layout.size

    def __repr__(self) -> str:
        return f"Objective({self.network}, {self.loss}, N={self.n_examples}, P={self.n_parameters}, l2={self.l2:g})"

    def subset(self, index: np.ndarray | Sequence[int] | slice) -> Objective:
        """Return the same objective on some of the examples: L.subset(slice(0, 100)) is the mean over the first 100."""
        if not isinstance(index, slice):
            index = self._checked_index(index)
        part = copy.copy(self)
        part.x, part.y = self.x[index], self.y[index]
        if not len(part.x):
            raise ValueError(f"index: selects none of the {self.n_examples} examples")
        return part

    def _checked_index(self, index: np.ndarray | Sequence[int]) -> np.ndarray:
        given = np.asarray(index)
        given = checks.array("index", given if given.size else given.astype(np.intp), (None,), kinds="iub")
        if given.dtype.kind == "b":
            return checks.array("index", given, (self.n_examples,), kinds="b")
        if given.size and not -self.n_examples <= given.min() <= given.max() < self.n_examples:
            raise ValueError(f"index: expected examples below {self.n_examples}, got {given.max()}")
        return given

    def __call__(self, w: np.ndarray) -> float:
        """Return L(w)."""
        w = self.check_w(w)
        return _finite(self.per_example_losses(w).mean() + self.penalty(w), w)

    def penalty(self, w: np.ndarray) -> float:
        """Return (l2/2) ‖w‖², written without an absolute value so that it stays analytic."""
        return 0.5 * self.l2 * (w @ w) if self.l2 else 0.0

    def per_example_losses(self, w: np.ndarray) -> np.ndarray:
        """Return ℓ_n (N,), without the penalty."""
        w = self.check_w(w)
        return np.concatenate([self.loss.value(trace[-1], y) for trace, y in self.traces(w)])

    def gradient(self, w: np.ndarray) -> np.ndarray:
        """Return g = ∇L(w) (P,), by backpropagation."""
        return self.value_and_gradient(w)[1]

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        """Return L(w) and ∇L(w) (P,) from one forward and one backward pass."""
        w, N = self.check_w(w), self.n_examples
        value, gradient = 0.0, None
        for trace, y in self.traces(w):
            value += self.loss.value(trace[-1], y).sum() / N
            part = self.network.vjp(w, trace, self.loss.gradient(trace[-1], y) / N)
            gradient = part if gradient is None else np.add(gradient, part, out=part)
        assert gradient is not None  # there is at least one example
        if self.l2:
            gradient += w.dtype.type(self.l2) * w
        return _finite(value + self.penalty(w), w), gradient

    def per_example_gradients(self, w: np.ndarray) -> np.ndarray:
        """Return ∇ℓ_n(w) as rows (N, P), without 1/N and without the penalty."""
        w = self.check_w(w)
        P = self.n_parameters
        rows = [
            self.network.per_example_vjp(w, trace, self.loss.gradient(trace[-1], y))
            for trace, y in self.traces(w, extra=P)
        ]
        return np.concatenate(rows)

    def jacobian(self, w: np.ndarray) -> np.ndarray:
        """Return J = ∂z_n/∂w (N, C, P), the derivatives of the outputs."""
        w = self.check_w(w)
        return np.concatenate(
            [self.output_jacobian(w, trace) for trace, _ in self.traces(w, extra=self.n_outputs * self.n_parameters)]
        )

    def output_jacobian(self, w: np.ndarray, trace: Trace) -> np.ndarray:
        """Return ∂z_n/∂w (n, C, P) of the examples of one trace."""
        n, C = trace[-1].shape
        each_output = np.broadcast_to(np.eye(C, dtype=w.dtype)[:, None, :], (C, n, C))
        return self.network.per_example_vjp(w, trace, each_output).swapaxes(0, 1)

    def hvp(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return H v for v (P,), or H V for K tangents at once, V (P, K), by the R-operator (Pearlmutter 1994)."""
        return self._product(w, v, self._hessian_product, self.l2)

    def gauss_newton_product(self, w: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return G v, G = (1/N) Σ_n J_nᵀ ∂²ℓ_n/∂z² J_n, for v (P,) or (P, K). Without the penalty.

        Source: Schraudolph 2002, section 3: push v forward, apply the output Hessian, pull back.
        """
        return self._product(w, v, self._gauss_newton_product, 0.0)

    def traces(self, w: np.ndarray, extra: float = 0, tangents: int = 0) -> Iterator[tuple[Trace, np.ndarray]]:
        """Yield (trace, y) for pieces of the examples, each within the memory budget.

        `extra` is how many further numbers the caller keeps for one example, `tangents` how many tangents it pushes
        through. FloatingPointError where an output is not finite.
        """
        x, y = self.x, self.y
        if w.dtype == np.float32:
            x = x.astype(np.float32, copy=False)
            y = y.astype(np.float32, copy=False) if y.dtype.kind == "f" else y
        for piece in memory.pieces(len(x), w.itemsize * (extra + 2 * (1 + 2 * tangents) * self._width())):
            trace = self.network.trace(w, x[piece])
            _finite(trace[-1], w)
            yield trace, y[piece]

    def check_w(self, w: np.ndarray) -> np.ndarray:
        """Return w if it is a finite vector of the right length; ValueError otherwise."""
        return checks.array("w", w, (self.n_parameters,), kinds="fc")

    def _width(self) -> int:
        """Return how many numbers the trace of one example holds."""
        shape, width = self.x.shape[1:], int(np.prod(self.x.shape[1:]))
        for layer in self.network.layers:
            shape = layer.output_shape(shape)
            width += int(np.prod(shape))
        return width

    def _product(self, w: np.ndarray, v: np.ndarray, rows: Callable[..., np.ndarray], l2: float) -> np.ndarray:
        """Apply a symmetric matrix to v (P,) or (P, K): `rows` maps tangents (K, P) to products (K, P) of a piece."""
        w = self.check_w(w)
        v = np.asarray(v)
        v = checks.array("v", v, (self.n_parameters,) if v.ndim < 2 else (self.n_parameters, None), kinds="fc")
        dtype = np.result_type(w, np.float32 if w.dtype == np.float32 else v)
        tangents = np.ascontiguousarray(np.atleast_2d(v.T), dtype=dtype)
        out = np.zeros_like(tangents)
        for k in memory.pieces(len(tangents), _EXAMPLES_AT_ONCE * 4 * self._width() * w.itemsize):
            for trace, y in self.traces(w, tangents=k.stop - k.start):
                out[k] += rows(w, trace, y, tangents[k])
        out /= self.n_examples
        out += dtype.type(l2) * tangents
        return out.T if v.ndim == 2 else out[0]

    def _hessian_product(self, w: np.ndarray, trace: Trace, y: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return Σ_n ∇²ℓ_n v for tangents v (K, P)."""
        tangents = self.network.jvp(w, trace, v)
        by = self.loss.gradient(trace[-1], y)
        return self.network.vjp_tangent(w, trace, by, v, tangents, self.loss.hessian_product(trace[-1], tangents[-1]))

    def _gauss_newton_product(self, w: np.ndarray, trace: Trace, y: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return Σ_n J_nᵀ ∂²ℓ_n/∂z² J_n v for tangents v (K, P)."""
        tangents = self.network.jvp(w, trace, v)
        return self.network.vjp(w, trace, self.loss.hessian_product(trace[-1], tangents[-1]))


def _finite(value: Any, w: np.ndarray) -> Any:
    """Return value if it is finite; FloatingPointError otherwise, so that an overflow never passes as a number."""
    if not np.isfinite(value).all():
        raise FloatingPointError(f"outputs or loss are not finite; the largest |w| is {np.abs(w).max():.3g}")
    return value
