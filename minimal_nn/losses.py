"""Losses: for each example a value, and its gradient and Hessian in the network's outputs z.

Everything here is per example; the mean over examples is taken by the Objective. `scale` multiplies the loss, to
match the reductions of other frameworks (torch's MSELoss over C outputs is SquaredError(scale=2/C)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minimal_nn import checks
from minimal_nn.layers.activations import sigmoid


@dataclass(frozen=True)
class Loss:
    """A loss ℓ(z, y) of outputs z (..., N, C) and targets y; subclasses give the formulas."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        if checks.number("scale", self.scale) <= 0:
            raise ValueError(f"scale: expected a positive number, got {self.scale!r}")

    def targets(self, y: np.ndarray, n_outputs: int) -> np.ndarray:
        """Return y in the form that the other methods take; ValueError where it cannot be a target."""
        raise checks.undefined(self, Loss, "targets")

    def value(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return ℓ (..., N)."""
        raise checks.undefined(self, Loss, "value")

    def gradient(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return ∂ℓ/∂z (..., N, C)."""
        raise checks.undefined(self, Loss, "gradient")

    def hessian(self, z: np.ndarray) -> np.ndarray:
        """Return ∂²ℓ/∂z² (N, C, C); it depends on the target for neither of our losses."""
        raise checks.undefined(self, Loss, "hessian")

    def hessian_product(self, z: np.ndarray, dz: np.ndarray) -> np.ndarray:
        """Return ∂²ℓ/∂z² ż for tangents ż (K, N, C), without forming the Hessian."""
        raise checks.undefined(self, Loss, "hessian_product")

    def sample(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw one target for each example from the model p(y|z) whose −log is the unscaled loss."""
        raise checks.undefined(self, Loss, "sample")

    def expectation(self, z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return pairs (probability (N,), targets) whose weighted sum of score products is the exact expectation.

        For M pairs, Σ_m probability_m s_m s_mᵀ with the score s_m = ∂ log p(targets_m|z)/∂z is E_{y~p(·|z)}[s sᵀ].
        """
        raise checks.undefined(self, Loss, "expectation")


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """ℓ = −log softmax(z)_y, or −Σ_c y_c log softmax(z)_c when y holds probabilities (N, C).

        ∂ℓ/∂z = p − y,    ∂²ℓ/∂z² = diag(p) − p pᵀ,    p = softmax(z)

    1 − p_c is computed as q_c = Σ_{k≠c} p_k and log Σ exp(z_k − z_max) as a log1p, since p − p², p_y − 1 and
    logsumexp(z) − z_y lose every digit when one logit dominates.
    """

    def targets(self, y: np.ndarray, n_outputs: int) -> np.ndarray:
        y = np.asarray(y)
        if y.ndim == 2:
            y = checks.array("y", y, (None, n_outputs))
            if (y < 0).any() or not np.allclose(y.sum(axis=1), 1, rtol=0, atol=1e-6):
                raise ValueError("y: expected rows of probabilities that are >= 0 and sum to 1")
            return y
        y = checks.array("y", y, (None,), kinds="iu")
        if y.size and (y.min() < 0 or y.max() >= n_outputs):
            bad = y[(y < 0) | (y >= n_outputs)][0]
            raise ValueError(f"y: expected labels in 0..{n_outputs - 1} for {n_outputs} outputs, got {bad}")
        return y.astype(np.intp)

    def value(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        z, largest = _below_largest(z)
        e = np.exp(z)
        np.put_along_axis(e, largest, 0, axis=-1)
        log_normaliser = np.log1p(e.sum(axis=-1))
        if y.ndim == 1:
            return self.scale * (log_normaliser - z[..., np.arange(len(y)), y])
        return self.scale * (y.sum(axis=-1) * log_normaliser - (y * z).sum(axis=-1))

    def gradient(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        p, q = _softmax_and_complement(z)
        if y.ndim == 1:
            n = np.arange(len(y))
            p[..., n, y] = -q[..., n, y]
            return self.scale * p
        return self.scale * (p * (y.sum(axis=-1, keepdims=True) - y) - q * y)

    def hessian(self, z: np.ndarray) -> np.ndarray:
        p, q = _softmax_and_complement(z)
        h = -p[:, :, None] * p[:, None, :]
        c = np.arange(p.shape[-1])
        h[:, c, c] = p * q
        return self.scale * h

    def hessian_product(self, z: np.ndarray, dz: np.ndarray) -> np.ndarray:
        p, q = _softmax_and_complement(z)
        return self.scale * p * (q * dz - (p * dz) @ _all_but_self(p))

    def sample(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        p, _ = _softmax_and_complement(z)
        u = rng.random((len(z), 1)) * p.sum(axis=1, keepdims=True)
        return np.minimum((p.cumsum(axis=1) < u).sum(axis=1), z.shape[1] - 1)

    def expectation(self, z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        p, _ = _softmax_and_complement(z)
        return [(p[:, c], np.full(len(z), c)) for c in range(z.shape[1])]


@dataclass(frozen=True)
class BinaryCrossEntropy(Loss):
    """ℓ = Σ_c softplus(z_c) − y_c z_c: −log of C independent Bernoulli labels with logits z and y (N, C) in [0, 1].

        ∂ℓ/∂z_c = σ(z_c) − y_c,    ∂²ℓ/∂z_c² = σ(z_c) σ(−z_c)

    For one output, y may be integer labels (N,), 0 or 1. torch's BCEWithLogitsLoss averages over outputs too:
    scale=1/C.
    """

    def targets(self, y: np.ndarray, n_outputs: int) -> np.ndarray:
        y = np.asarray(y)
        if y.ndim == 1 and n_outputs == 1:
            y = checks.array("y", y, (None,), kinds="iu")[:, None].astype(np.float64)
        y = checks.array("y", y, (None, n_outputs))
        if y.size and (y.min() < 0 or y.max() > 1):
            raise ValueError(f"y: expected probabilities or labels in [0, 1], got {y[(y < 0) | (y > 1)][0]:g}")
        return y

    def value(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        positive = z.real > 0
        kept, turned = np.where(positive, (1 - y) * z, -y * z), np.where(positive, -z, z)
        return self.scale * (kept + np.log1p(np.exp(turned))).sum(axis=-1)

    def gradient(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.scale * ((1 - y) * sigmoid(z) - y * sigmoid(-z))

    def hessian(self, z: np.ndarray) -> np.ndarray:
        return (self.scale * sigmoid(z) * sigmoid(-z))[..., None] * np.eye(z.shape[-1], dtype=z.real.dtype)

    def hessian_product(self, z: np.ndarray, dz: np.ndarray) -> np.ndarray:
        return self.scale * sigmoid(z) * sigmoid(-z) * dz

    def sample(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (rng.random(z.shape) < sigmoid(z)).astype(z.dtype)

    def expectation(self, z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """One output at a time: its two labels with their probabilities; the other targets at σ(z), of score 0."""
        pairs = []
        for c in range(z.shape[1]):
            for label, probability in ((1.0, sigmoid(z[:, c])), (0.0, sigmoid(-z[:, c]))):
                y = sigmoid(z)
                y[:, c] = label
                pairs.append((probability, y))
        return pairs


@dataclass(frozen=True)
class SquaredError(Loss):
    """ℓ = ½ ‖z − y‖² with y (N, C) float: −log of a Gaussian of unit variance, without its constant.

    ∂ℓ/∂z = z − y,    ∂²ℓ/∂z² = I
    """

    def targets(self, y: np.ndarray, n_outputs: int) -> np.ndarray:
        return checks.array("y", y, (None, n_outputs))

    def value(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.scale * 0.5 * ((z - y) ** 2).sum(axis=-1)

    def gradient(self, z: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self.scale * (z - y)

    def hessian(self, z: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.scale * np.eye(z.shape[-1], dtype=z.dtype), (*z.shape, z.shape[-1]))

    def hessian_product(self, z: np.ndarray, dz: np.ndarray) -> np.ndarray:
        return self.scale * dz

    def sample(self, z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return z + rng.standard_normal(z.shape)

    def expectation(self, z: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The 2C points z ± √C e_c with weight 1/(2C) have exactly the second moments of a standard Gaussian."""
        C = z.shape[1]
        weight = np.full(len(z), 1 / (2 * C))
        return [(weight, z + sign * np.sqrt(C) * e) for e in np.eye(C, dtype=z.dtype) for sign in (1, -1)]


def _below_largest(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return z minus the largest entry of each row, a shift that the softmax does not see, and where that entry is."""
    largest = z.real.argmax(axis=-1)[..., None]
    return z - np.take_along_axis(z, largest, axis=-1), largest


def _all_but_self(p: np.ndarray) -> np.ndarray:
    """Return the matrix with 0 on the diagonal and 1 elsewhere: (a @ it)_c = Σ_{k≠c} a_k, with no subtraction."""
    return 1 - np.eye(p.shape[-1], dtype=p.real.dtype)


def _softmax_and_complement(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return p = softmax(z) and q_c = 1 − p_c = Σ_{k≠c} p_k, both to full relative precision."""
    e = np.exp(_below_largest(z)[0])
    p = e / e.sum(axis=-1, keepdims=True)
    return p, p @ _all_but_self(p)
