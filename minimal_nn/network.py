"""Network: layers one after another, whose parameters lie in one flat vector w."""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from minimal_nn.initializers import Initializer, fans, glorot
from minimal_nn.layers import sequence
from minimal_nn.layers.activations import Activation
from minimal_nn.layers.base import Layer
from minimal_nn.layers.sequence import Movements, Trace
from minimal_nn.layout import Layout


class Network:
    """y = f_L(… f_2(f_1(x; w_1); w_2) …; w_L) for layers f_1, …, f_L.

    `layout` names the slices of w (P,). Forward and derivative passes take the *trace* of a forward pass: the list
    [x, y_1, …, y_L] of the input and every layer's output. Nothing is stored on the network.

    >>> from minimal_nn import Linear, Tanh
    >>> net = Network(Linear(4, 3), Tanh(), Linear(3, 2))
    >>> net
    Network(Linear(4, 3), Tanh(), Linear(3, 2))
    >>> net.layout.size
    23
    >>> net.forward(net.init(np.random.default_rng(0)), np.ones((5, 4))).shape
    (5, 2)
    """

    def __init__(self, *layers: Layer) -> None:
        for i, layer in enumerate(layers):
            if not isinstance(layer, Layer):
                described = checks.describe(layer)
                raise ValueError(f"layers[{i}]: expected a layer such as Linear(4, 3) or Tanh(), got {described}")
        self.layers = layers
        self.layout = Layout(sequence.parameter_shapes(layers))
        if not self.layout.size:
            raise ValueError(f"layers: expected at least one layer with parameters, such as Linear(4, 3), got {layers}")
        self._first = next(i for i, layer in enumerate(layers) if layer.parameter_shapes())
        self._check_that_layers_fit()

    def __repr__(self) -> str:
        return f"Network({', '.join(map(repr, self.layers))})"

    def _check_that_layers_fit(self) -> None:
        """Follow the shape of one example from the first layer that fixes its input's."""
        for i, layer in enumerate(self.layers):
            if layer.input_shape is not None:
                sequence.output_shape(self.layers[i:], layer.input_shape)
                return

    def init(
        self, rng: np.random.Generator, initializer: Initializer = glorot, dtype: type[np.floating] = np.float64
    ) -> np.ndarray:
        """Draw a start w (P,): weights from `initializer` (glorot or he of minimal_nn.initializers).

        Biases and the shifts of batch norm start at zero, its scales at one.
        """
        checks.generator("rng", rng)
        w = np.zeros(self.layout.size, dtype=dtype)
        for name, view in self.layout.unflatten(w).items():
            if name.endswith("weight"):
                view[...] = initializer(rng, view.shape, *fans(view.shape))
            elif name.endswith("gamma"):
                view[...] = 1
        return w

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one example's output; ValueError where a layer cannot take its input."""
        return sequence.output_shape(self.layers, shape)

    def forward(self, w: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return the outputs (N, C) for inputs x (N, ...): logits, no softmax is applied."""
        w = checks.array("w", w, (self.layout.size,), kinds="fc")
        x = checks.array("x", x, kinds="fiubc")
        x = x if x.dtype.kind in "fc" else x.astype(np.float64)
        try:
            self.output_shape(x.shape[1:])
        except ValueError as error:
            raise ValueError(f"x: {error}") from None
        return self.trace(w, x)[-1]

    def parameters(self, w: np.ndarray) -> list[dict[str, np.ndarray]]:
        """Return for each layer the mapping from its own parameters' names to views of w (..., P)."""
        return sequence.split(self.layers, self.layout.unflatten(w))

    def gate(self, layer: int, argument: str = "layer") -> int:
        """Return whose outputs the units of a layer are: its own, or those of the last activation right behind it."""
        i = checks.integer(argument, layer, 0)
        if i >= len(self.layers):
            raise ValueError(f"{argument}: expected the index of one of {len(self.layers)} layers, got {layer}")
        while i + 1 < len(self.layers) and isinstance(self.layers[i + 1], Activation):
            i += 1
        return i

    def trace(self, w: np.ndarray, x: np.ndarray) -> Trace:
        """Return [x, y_1, …, y_L]: the input and the output of every layer."""
        return sequence.trace(self.layers, self.parameters(w), x)

    def jvp(self, w: np.ndarray, trace: Trace, v: np.ndarray) -> Movements:
        """Return the tangents [None, ẏ_1, …, ẏ_L], each (K, N, ...), when w moves along v (K, P) and x stays.

        None stands for a tangent of zero: that of the input and of what comes before the first parameter.
        """
        return sequence.tangents(self.layers, self.parameters(w), trace, self.parameters(v), None)

    def adjoints(self, w: np.ndarray, trace: Trace, by: np.ndarray, first: int | None = None) -> Movements:
        """Return the adjoints [ȳ_1, …, ȳ_L] of the layers' outputs, given ȳ_L (..., N, C).

        None stands for those before layer `first`, unless given the first one with parameters.
        """
        first = self._first if first is None else first
        return sequence.adjoints(self.layers, self.parameters(w), trace, by, first)

    def vjp(self, w: np.ndarray, trace: Trace, by: np.ndarray) -> np.ndarray:
        """Return Σ_n J_nᵀ ȳ_n (..., P), given the adjoints ȳ (..., N, C) of the outputs."""
        return self._pull_back("parameter_vjp", w, trace, by, lead=by.shape[:-2])

    def per_example_vjp(self, w: np.ndarray, trace: Trace, by: np.ndarray) -> np.ndarray:
        """Return J_nᵀ ȳ_n for each example (..., N, P), given the adjoints ȳ (..., N, C) of the outputs."""
        return self._pull_back("per_example_vjp", w, trace, by, lead=by.shape[:-1])

    def vjp_tangent(
        self, w: np.ndarray, trace: Trace, by: np.ndarray, v: np.ndarray, tangents: Movements, dby: np.ndarray
    ) -> np.ndarray:
        """Return d/dt Σ_n J_nᵀ ȳ_n (K, P) when w moves along v (K, P) and ȳ (N, C) along ȳ̇ (K, N, C).

        `tangents` is what `jvp` returned for the same v. This is the R-operator of Pearlmutter 1994: with
        ȳ = ∂ℓ/∂z and ȳ̇ = ∂²ℓ/∂z² ż it gives Hessian-vector products.
        """
        p, dp = self.parameters(w), self.parameters(v)
        bars = sequence.adjoints(self.layers, p, trace, by, self._first)
        own, _ = sequence.adjoint_tangents(self.layers, p, trace, bars, dp, tangents, dby, self._first)
        return self._gather(own, v.shape[:-1], np.result_type(w, v, dby))

    def _pull_back(self, method: str, w: np.ndarray, trace: Trace, by: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
        """Return one layer method's adjoints of the parameters as one array (*lead, P)."""
        p = self.parameters(w)
        bars = sequence.adjoints(self.layers, p, trace, by, self._first)
        own = sequence.parameter_adjoints(method, self.layers, p, trace, bars, self._first)
        return self._gather(own, lead, np.result_type(w, by))

    def _gather(self, own: list[dict[str, np.ndarray]], lead: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Write the parameters of all layers into one array (*lead, P)."""
        out = np.empty((*lead, self.layout.size), dtype)
        for view, value in zip(self.layout.unflatten(out).values(), sequence.join(own).values(), strict=True):
            view[...] = value
        return out
