"""The Hessian of an objective and its diagonal: in closed form for chains, by Hessian-vector products otherwise."""

from __future__ import annotations

import math

import numpy as np

from minimal_nn import memory
from minimal_nn.curvature import accumulation, closed_form
from minimal_nn.network import Network
from minimal_nn.objective import Objective

LARGEST = 8 * 2**30  #: bytes of the largest Hessian that a criterion or an update asks for


def hessian(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return H = ∇²L(w) (P, P), the l2 penalty included; exact, and symmetric to the bit.

    `hessian_route(L.network)` tells by which of three ways.
    """
    w = L.check_w(w)
    route = hessian_route(L.network)
    if route == "closed form":
        return closed_form.hessian(L, w)
    if route == "accumulation":
        return accumulation.hessian(L, w)
    H = hessian_by_products(L, w)
    return (H + H.T) / 2


def hessian_route(network: Network) -> str:
    """Return how the Hessian of a network is computed, chosen by its layers alone.

    "closed form" for Linear layers and activations (Bishop 1992), "accumulation" of Jacobians where there are also
    convolutions, pooling and Flatten, and "products" H e_j (Pearlmutter 1994) for everything else.
    """
    if closed_form.is_chain(network):
        return "closed form"
    return "accumulation" if accumulation.is_supported(network) else "products"


def hessian_by_products(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return H (P, P) from the products H e_j by the R-operator (Pearlmutter 1994): the slower, independent route."""
    return L.hvp(w, np.eye(L.n_parameters, dtype=np.asarray(w).dtype))


def hessian_among(L: Objective, w: np.ndarray, index: np.ndarray, argument: str) -> np.ndarray:
    """Return the rows and columns `index` (n,) of H, (n, n): of `hessian`, or from products where that is too large.

    A matrix is too large beyond LARGEST bytes. ValueError where that is so of (n, n), which names the caller's
    `argument` that chose the n weights.
    """
    w = L.check_w(w)
    n, P = len(index), L.n_parameters
    most = math.isqrt(LARGEST // w.itemsize)
    if n > most:
        raise ValueError(
            f"{argument}: expected at most {most} weights, whose Hessian takes {LARGEST / 2**30:.3g} GiB, got {n}; "
            f"choose them by {argument} (P,) bool"
        )
    if most >= P:
        H = hessian(L, w)
        return H if n == P else H[np.ix_(index, index)]
    H = np.empty((n, n), w.dtype)
    for k in memory.pieces(n, 3 * w.nbytes):
        units = np.zeros((P, k.stop - k.start), w.dtype)
        units[index[k], np.arange(k.stop - k.start)] = 1
        H[:, k] = L.hvp(w, units)[index]
    return H


def hessian_diagonal(L: Objective, w: np.ndarray) -> np.ndarray:
    """Return diag H (P,), the l2 penalty included; exact, and by the routes of `hessian`.

    Without forming the (P, P) matrix, unless the route is that of the products.
    """
    w = L.check_w(w)
    route = hessian_route(L.network)
    if route == "closed form":
        return closed_form.hessian_diagonal(L, w)
    if route == "accumulation":
        return accumulation.hessian_diagonal(L, w)
    return np.diagonal(hessian_by_products(L, w)).copy()
