"""What a layer is: a map with no parameters of its own, its derivatives, and the derivatives of those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minimal_nn import checks

Parameters = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Layer:
    """A map y = f(x; θ) that holds no parameters: θ comes as a mapping from names to arrays.

    Written for one example: x is the input, y the output. A dot marks a tangent (ẋ = dx/dt), a bar an adjoint
    (x̄ = ∂ℓ/∂x). With K tangents or adjoints at once they carry a leading axis: x is (N, ...), ẋ is (K, N, ...).

        forward                 y
        jvp                     ẏ   = ∂f/∂x ẋ + ∂f/∂θ θ̇
        vjp                     x̄   = (∂f/∂x)ᵀ ȳ
        vjp_tangent             x̄̇   = d/dt of vjp, when x, θ and ȳ move
        parameter_vjp           θ̄   = Σ_n (∂f/∂θ)ᵀ ȳ_n
        parameter_vjp_tangent   θ̄̇   = d/dt of parameter_vjp
        per_example_vjp         θ̄_n, without the sum

    Each derivative receives x and y, so that nothing has to be stored on the layer. The four that concern θ are
    needed only where `parameter_shapes` is not empty.
    """

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The shape of one example's input where the layer fixes it, otherwise None."""
        return None

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return name -> shape of the parameters, in the order in which they lie in w."""
        return {}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one example's output; ValueError where the layer cannot take that input."""
        return shape

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        """Return y = f(x; θ)."""
        raise checks.undefined(self, Layer, "forward")

    def jvp(self, p: Parameters, x: np.ndarray, y: np.ndarray, dp: Parameters, dx: np.ndarray | None) -> np.ndarray:
        """Return ẏ; dx None stands for an input that does not move."""
        raise checks.undefined(self, Layer, "jvp")

    def vjp(self, p: Parameters, x: np.ndarray, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        """Return x̄."""
        raise checks.undefined(self, Layer, "vjp")

    def vjp_tangent(
        self,
        p: Parameters,
        x: np.ndarray,
        y: np.ndarray,
        by: np.ndarray,
        dp: Parameters,
        dx: np.ndarray | None,
        dby: np.ndarray,
    ) -> np.ndarray:
        """Return x̄̇."""
        raise checks.undefined(self, Layer, "vjp_tangent")

    def parameter_vjp(self, p: Parameters, x: np.ndarray, by: np.ndarray) -> dict[str, np.ndarray]:
        """Return θ̄, summed over the examples: name -> (..., *shape)."""
        return self._without_parameters("parameter_vjp")

    def parameter_vjp_tangent(
        self, p: Parameters, x: np.ndarray, by: np.ndarray, dp: Parameters, dx: np.ndarray | None, dby: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Return θ̄̇, summed over the examples: name -> (K, *shape)."""
        return self._without_parameters("parameter_vjp_tangent")

    def per_example_vjp(self, p: Parameters, x: np.ndarray, by: np.ndarray) -> dict[str, np.ndarray]:
        """Return θ̄_n for each example: name -> (..., N, *shape)."""
        return self._without_parameters("per_example_vjp")

    def _without_parameters(self, method: str) -> dict[str, np.ndarray]:
        """Return no derivative, for no parameters; NotImplementedError where there are some."""
        if self.parameter_shapes():
            raise checks.undefined(self, Layer, method)
        return {}
