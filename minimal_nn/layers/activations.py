"""Activations: y = φ(x) entry by entry, with φ′ and φ″ written in the output wherever that is shorter.

All of them are analytic in the real part of x, so that the complex step passes through them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from minimal_nn.layers.base import Layer, Parameters


@dataclass(frozen=True)
class Activation(Layer):
    """An elementwise map; a subclass gives φ, φ′ and φ″.

    ẏ = φ′ẋ,   x̄ = φ′ȳ,   x̄̇ = φ′ȳ̇ + φ″ẋȳ
    """

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return φ′(x), given x and y = φ(x)."""
        raise checks.undefined(self, Activation, "derivative")

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return φ″(x), given x and y = φ(x)."""
        raise checks.undefined(self, Activation, "second_derivative")

    def jvp(self, p: Parameters, x: np.ndarray, y: np.ndarray, dp: Parameters, dx: np.ndarray | None) -> np.ndarray:
        return np.zeros_like(y)[None] if dx is None else self.derivative(x, y) * dx

    def vjp(self, p: Parameters, x: np.ndarray, y: np.ndarray, by: np.ndarray) -> np.ndarray:
        return self.derivative(x, y) * by

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
        dbx = self.derivative(x, y) * dby
        return dbx if dx is None else dbx + self.second_derivative(x, y) * by * dx


@dataclass(frozen=True)
class Identity(Activation):
    """φ(x) = x."""

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return x

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.ones_like(x)

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.zeros_like(x)


@dataclass(frozen=True)
class Tanh(Activation):
    """φ = tanh,  φ′ = 1 − φ²,  φ″ = −2 φ φ′."""

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return np.tanh(x)

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (1 - y) * (1 + y)

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return -2 * y * (1 - y) * (1 + y)


@dataclass(frozen=True)
class ReLU(Activation):
    """φ(x) = max(x, 0),  φ′ = [x > 0],  φ″ = 0. At the kink x = 0 we take φ′(0) = 0, as torch and JAX do."""

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return np.where(x.real > 0, x, np.zeros_like(x))

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x.real > 0).astype(x.dtype)

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.zeros_like(x)


@dataclass(frozen=True)
class Sigmoid(Activation):
    """φ(x) = 1/(1 + e^(−x)),  φ′ = φ(1 − φ),  φ″ = φ′(1 − 2φ), with 1 − φ(x) computed as φ(−x)."""

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return sigmoid(x)

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return y * sigmoid(-x)

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.derivative(x, y) * (1 - 2 * y)


@dataclass(frozen=True)
class Softplus(Activation):
    """φ(x) = log(1 + eˣ),  φ′ = σ(x),  φ″ = σ(x) σ(−x)."""

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        positive = x.real > 0
        return np.log1p(np.exp(np.where(positive, -x, x))) + np.where(positive, x, np.zeros_like(x))

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return sigmoid(x)

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return sigmoid(x) * sigmoid(-x)


@dataclass(frozen=True)
class SiLU(Activation):
    """φ(x) = x σ(x),  φ′ = σ + x σ′,  φ″ = 2σ′ + x σ″, with σ′ = σ(x) σ(−x) and σ″ = σ′ (1 − 2σ)."""

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return x * sigmoid(x)

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        s = sigmoid(x)
        return s + x * s * sigmoid(-x)

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        s = sigmoid(x)
        return s * sigmoid(-x) * (2 + x * (1 - 2 * s))


@dataclass(frozen=True)
class GELU(Activation):
    """φ(x) = x Φ(x) with Φ the standard normal distribution and ϕ its density; φ′ = Φ + x ϕ,  φ″ = (2 − x²) ϕ.

    The exact form by the error function, not its tanh approximation. Source: Hendrycks and Gimpel 2016.
    """

    def forward(self, p: Parameters, x: np.ndarray) -> np.ndarray:
        return x * _normal_distribution(x)

    def derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _normal_distribution(x) + x * _normal_density(x)

    def second_derivative(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (2 - x * x) * _normal_density(x)


def _normal_distribution(x: np.ndarray) -> np.ndarray:
    """Φ(x) = erfc(−x/√2)/2, which keeps its digits in the left tail; for complex x too."""
    from scipy.special import erfc

    return 0.5 * erfc(-x * np.sqrt(0.5).astype(x.real.dtype))


def _normal_density(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * x * x) * np.sqrt(0.5 / np.pi).astype(x.real.dtype)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1/(1 + e^(−x)) without overflow, for real and complex x: scipy's expit refuses complex numbers."""
    e = np.exp(np.where(x.real > 0, -x, x))
    return np.where(x.real > 0, 1 / (1 + e), e / (1 + e))
