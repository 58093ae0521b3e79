"""The Hessian of an objective and its diagonal: in closed form for chains, by Hessian-vector products otherwise."""

from __future__ import annotations

import numpy as np

from minimal_nn.curvature import accumulation, closed_form
from minimal_nn.network import Network
from minimal_nn.objective import Objective


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
