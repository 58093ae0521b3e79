"""The losses of other frameworks with their reductions, as ours with a scale."""

from __future__ import annotations

import numpy as np

from minimal_nn import checks
from minimal_nn.losses import BinaryCrossEntropy, Loss, SoftmaxCrossEntropy, SquaredError

LOSSES = ("cross_entropy", "mse", "bce_with_logits")
REDUCTIONS = ("mean", "sum", "none")


def our_loss(kind: str, reduction: str, N: int, C: int) -> Loss:
    """Return our loss, whose mean over the N examples is the foreign loss of outputs (N, C).

    With ℓ_nc = −y_nc log softmax(z_n)_c, softplus(z_nc) − y_nc z_nc or (z_nc − y_nc)², as in torch, "mean" is
    Σ_nc ℓ_nc / N for cross_entropy and Σ_nc ℓ_nc / (N C) for the other two, "sum" is Σ_nc ℓ_nc, and "none" is taken as
    "mean". Ours is (1/N) Σ_n scale · ℓ_n, with ℓ_n = ½ ‖z_n − y_n‖² for the squared error.
    """
    kind = checks.one_of("loss", kind, LOSSES)
    scale = float(N) if checks.one_of("reduction", reduction, REDUCTIONS) == "sum" else 1.0
    if kind == "cross_entropy":
        return SoftmaxCrossEntropy(scale)
    if reduction != "sum":
        scale /= C
    return BinaryCrossEntropy(scale) if kind == "bce_with_logits" else SquaredError(2 * scale)


def our_targets(kind: str, y: np.ndarray, N: int, C: int, smoothing: float = 0.0) -> np.ndarray:
    """Return targets as our loss takes them.

    cross_entropy takes integer labels (N,) or probabilities (N, C) and smooths them to (1 − smoothing) y + smoothing/C;
    the others take numbers of the outputs' shape (N, C).
    """
    if kind != "cross_entropy":
        if y.shape != (N, C):
            raise ValueError(f"y: expected the shape of the outputs, {(N, C)}, got {checks.describe(y)}")
        return y.astype(np.float64)
    y = SoftmaxCrossEntropy().targets(y.astype(np.float64) if y.ndim == 2 and y.dtype.kind == "f" else y, C)
    if not smoothing:
        return y
    return (1 - smoothing) * (np.eye(C)[y] if y.ndim == 1 else y) + smoothing / C
