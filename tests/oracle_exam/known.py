"""Wrong implementations whose kind the diagnosis was built for: what each claims, computes, and must be called.

`named` are fragments of which the best explanation, or one that the case cannot tell from it, must contain one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from minimal_nn import curvature
from pruning import criteria, exact
from tests.cases import make_case


@dataclass(frozen=True)
class Wrong:
    """A slip: the claim, options of the claim, and what is computed as a vector over w, for an objective L at w."""

    name: str
    claims: str
    compute: Callable
    named: tuple[str, ...]
    options: dict = field(default_factory=dict)


def rows(L, w):
    return L.per_example_gradients(w)


def diagonal(L, w):
    return np.diag(curvature.hessian(L, w))


def by_layer(L, v, norm):
    out = v.copy()
    for name in L.network.layout:
        own = L.network.layout[name]
        out[own] = v[own] / norm(v[own])
    return out


def transposed(L, v):
    out = v.copy()
    for name, shape in L.network.layout.shapes.items():
        if len(shape) == 2:  # a C-ordered (in, out) buffer read as (out, in)
            out[L.network.layout[name]] = v[L.network.layout[name]].reshape(shape[::-1]).T.ravel()
    return out


def batches(L, w, b):
    return [rows(L, w)[s : s + b] for s in range(0, L.n_examples, b)]


def inverse(M, damping):
    return np.diag(np.linalg.inv(M + damping * np.eye(len(M))))


D = {"damping": 2.0}

KNOWN = [
    Wrong("obd twice", "obd", lambda L, w: diagonal(L, w) * w**2, ("obd, times 2",)),
    Wrong("obd summed over examples", "obd", lambda L, w: 0.5 * L.n_examples * diagonal(L, w) * w**2, ("obd, times N",)),
    Wrong("obd summed, without ½", "obd", lambda L, w: L.n_examples * diagonal(L, w) * w**2, ("obd, times 2N",)),
    Wrong("obd without the weight", "obd", diagonal, ("H_jj, without the weight",)),
    Wrong("obd with |w|", "obd", lambda L, w: 0.5 * diagonal(L, w) * np.abs(w), ("H_jj |w_j|",)),
    Wrong("obd reversed", "obd", lambda L, w: -0.5 * diagonal(L, w) * w**2, ("obd, with the sign reversed",)),
    Wrong("obd clipped by abs", "obd", lambda L, w: np.abs(0.5 * diagonal(L, w) * w**2), ("|obd|",)),
    Wrong("obd from Gauss-Newton", "obd", lambda L, w: 0.5 * np.diag(curvature.gauss_newton(L, w)) * w**2, ("Gauss-Newton", "fisher")),
    Wrong("obd from the empirical Fisher", "obd", lambda L, w: 0.5 * (rows(L, w) ** 2).mean(0) * w**2, ("fisher_empirical", "taylor_squared")),
    Wrong("obd by the recursion", "obd", criteria.obd_recursive, ("obd_recursive",)),
    Wrong("obd is obs", "obd", lambda L, w: 0.5 * w**2 / inverse(curvature.hessian(L, w), 1.0), ("obs(damping=1)",)),
    Wrong("obd row of H", "obd", lambda L, w: w * (curvature.hessian(L, w) @ w), ("w_j (Hw)_j",)),
    Wrong("obd of the last example", "obd", lambda L, w: criteria.obd(L.subset([-1]), w), ("obd of the last example",)),
    Wrong("obd of the last batch", "obd", lambda L, w: criteria.obd(L.subset(slice(20, 23)), w), ("obd of the last batch of",)),
    Wrong("obd transposed", "obd", lambda L, w: transposed(L, criteria.obd(L, w)), ("obd, its matrices written transposed",)),
    Wrong("obd over the layer's maximum", "obd", lambda L, w: by_layer(L, criteria.obd(L, w), lambda v: np.abs(v).max()), ("obd, every tensor with a factor",)),
    Wrong("obs without ½", "obs", lambda L, w: w**2 / inverse(curvature.hessian(L, w), 2.0), ("obs(damping=2), times 2",), D),
    Wrong("obs with the inverse of the diagonal", "obs", lambda L, w: 0.5 * w**2 * (diagonal(L, w) + 2.0), ("inverse of the diagonal",), D),
    Wrong("obs of the empirical Fisher", "obs", lambda L, w: 0.5 * w**2 / inverse(curvature.fisher(L, w, "empirical"), 2.0), ("woodfisher", "the empirical Fisher"), D),
    Wrong("obs of Gauss-Newton", "obs", lambda L, w: 0.5 * w**2 / inverse(curvature.gauss_newton(L, w), 2.0), ("Gauss-Newton",), D),
    Wrong("obs multiplied by the inverse", "obs", lambda L, w: 0.5 * w**2 * inverse(curvature.hessian(L, w), 2.0), ("multiplied, not divided",), D),
    Wrong("obs without the weight", "obs", lambda L, w: 0.5 / inverse(curvature.hessian(L, w), 2.0), ("without the weight",), D),
    Wrong("taylor signed for absolute", "taylor", lambda L, w: -L.gradient(w) * w, ("taylor_signed",)),
    Wrong("taylor_signed of the other sign", "taylor_signed", lambda L, w: L.gradient(w) * w, ("taylor_signed, with the sign reversed",)),
    Wrong("taylor absolute for signed", "taylor_signed", lambda L, w: np.abs(L.gradient(w) * w), ("taylor", "|taylor_signed|")),
    Wrong("taylor: abs before the mean", "taylor", lambda L, w: np.abs(rows(L, w) * w).mean(0), ("absolute values before the mean",)),
    Wrong("taylor without the weight", "taylor", lambda L, w: np.abs(L.gradient(w)), ("the gradient g_j, without the weight",)),
    Wrong("taylor with w²", "taylor", lambda L, w: np.abs(L.gradient(w)) * w**2, ("g_j w_j²",)),
    Wrong("taylor squared", "taylor", lambda L, w: (L.gradient(w) * w) ** 2, ("square of the mean gradient", "(taylor)²")),
    Wrong("taylor of the sum", "taylor", lambda L, w: np.abs(L.n_examples * L.gradient(w) * w), ("taylor, times N",)),
    Wrong("taylor by batches of unequal size", "taylor", lambda L, w: np.abs(np.mean([b.mean(0) for b in batches(L, w, 5)], axis=0) * w), ("averaged over batches of unequal size",)),
    Wrong("taylor normalised by layer", "taylor", lambda L, w: by_layer(L, criteria.taylor(L, w), np.linalg.norm), ("every tensor with a factor",)),
    Wrong("taylor_squared by batches", "taylor_squared", lambda L, w: np.mean([b.mean(0) ** 2 for b in batches(L, w, 4)], axis=0) * w**2, ("mean over batches of 4",)),
    Wrong("square of the mean for the mean of squares", "taylor_squared", lambda L, w: (rows(L, w).mean(0) * w) ** 2, ("square of the mean gradient", "(taylor)²")),
    Wrong("taylor_squared is the mean of |gw|", "taylor_squared", lambda L, w: np.abs(rows(L, w) * w).mean(0), ("absolute values before the mean",)),
    Wrong("taylor_second with a flipped first order", "taylor_second", lambda L, w: L.gradient(w) * w + 0.5 * diagonal(L, w) * w**2, ("taylor_second with", "of −g_j w_j")),
    Wrong("taylor_second without ½", "taylor_second", lambda L, w: -L.gradient(w) * w + diagonal(L, w) * w**2, ("taylor_second with", "of −g_j w_j")),
    Wrong("fisher is the empirical one", "fisher", criteria.fisher_empirical, ("fisher_empirical",)),
    Wrong("fisher without ½", "fisher", lambda L, w: 2 * criteria.fisher(L, w), ("fisher, times 2",)),
    Wrong("fisher with the likeliest label", "fisher", lambda L, w: 0.5 * w**2 * (type(L)(L.network, L.loss, L.x, L.network.forward(w, L.x).argmax(1)).per_example_gradients(w) ** 2).mean(0), ("labels the model finds most likely",)),
    Wrong("fisher without the weight", "fisher", lambda L, w: curvature.fisher_diagonal(L, w), ("F_jj, without the weight",)),
    Wrong("fisher summed over classes", "fisher", lambda L, w: 0.5 * w**2 * sum((type(L)(L.network, L.loss, L.x, np.full(L.n_examples, c)).per_example_gradients(w) ** 2).mean(0) for c in range(L.n_outputs)), ("every class",)),
    Wrong("empirical Fisher of the mean gradient", "fisher_empirical", lambda L, w: 0.5 * (rows(L, w).mean(0) * w) ** 2, ("square of the mean gradient", "(taylor)²")),
    Wrong("empirical Fisher with N − 1", "fisher_empirical", lambda L, w: 0.5 * (rows(L, w) ** 2).sum(0) / (L.n_examples - 1) * w**2, ("N/(N − 1)",)),
    Wrong("empirical Fisher by the variance", "fisher_empirical", lambda L, w: 0.5 * rows(L, w).var(0) * w**2, ("variance of g_nj",)),
    Wrong("woodfisher by the diagonal", "woodfisher", lambda L, w: 0.5 * w**2 * ((rows(L, w) ** 2).mean(0) + 2.0), ("diagonal of the empirical Fisher",), D),
    Wrong("woodfisher of summed gradients", "woodfisher", lambda L, w: 0.5 * w**2 / inverse(rows(L, w).T @ rows(L, w), 2.0), ("woodfisher(damping=0.0869565), times N",), D),
    Wrong("snip without normalisation", "snip", criteria.taylor, ("taylor",)),
    Wrong("snip by layer", "snip", lambda L, w: by_layer(L, criteria.taylor(L, w), np.sum), ("every tensor with a factor",)),
    Wrong("grasp of the other sign", "grasp", lambda L, w: -criteria.grasp(L, w), ("grasp, with the sign reversed",)),
    Wrong("grasp without the weight", "grasp", lambda L, w: L.hvp(w, L.gradient(w)), ("(Hg)_j, without the weight",)),
    Wrong("grasp with Hw", "grasp", lambda L, w: w * L.hvp(w, w), ("w_j (Hw)_j",)),
    Wrong("magnitude squared", "magnitude", lambda L, w: w**2, ("w², the square",)),
    Wrong("magnitude signed", "magnitude", lambda L, w: w, ("w itself",)),
    Wrong("magnitude over the layer's norm", "magnitude", lambda L, w: by_layer(L, np.abs(w), np.linalg.norm), ("every tensor with a factor", "magnitude_scaled")),
    Wrong("magnitude ranks within layers", "magnitude", lambda L, w: by_layer(L, np.concatenate([np.argsort(np.argsort(np.abs(w[L.network.layout[n]]))) for n in L.network.layout]).astype(float), lambda v: max(len(v) - 1, 1)), ("ranking of magnitude within every tensor",)),
    Wrong("magnitude through a logarithm", "magnitude", lambda L, w: np.log(np.abs(w)), ("increasing function of magnitude",)),
    Wrong("lamp without squares", "lamp", lambda L, w: np.sqrt(criteria.lamp(L, w)), ("√|lamp|",)),
    Wrong("lamp in the wrong order", "lamp", lambda L, w: np.concatenate([_running(w[L.network.layout[n]]) for n in L.network.layout]), ("lamp in the wrong order",)),
    Wrong("wanda without the square root", "wanda", lambda L, w: criteria.wanda(L, w) ** 2 / np.where(w == 0, 1, np.abs(w)), ("the square root missing",)),
    Wrong("wanda with the mean square", "wanda", lambda L, w: criteria.wanda(L, w) / np.sqrt(L.n_examples), ("wanda, times 1/√N",)),
    Wrong("synflow with data's sign", "synflow", lambda L, w: -criteria.synflow(L, w), ("synflow, with the sign reversed",)),
    Wrong("exact with the SNIP paper's sign", "exact", lambda L, w: -exact.saliency(L, w), ("exact, with the sign reversed",)),
    Wrong("exact by absolute value", "exact", lambda L, w: np.abs(exact.saliency(L, w)), ("|exact|",)),
    Wrong("exact of the first batch", "exact", lambda L, w: exact.saliency(L.subset(slice(0, 8)), w), ("exact of the first batch of 8",)),
    Wrong("exact is second-order Taylor", "exact", criteria.taylor_second, ("taylor_second",)),
]  # fmt: skip

PENALISED = [
    Wrong("obd without the penalty", "obd", lambda L, w: 0.5 * (diagonal(L, w) - L.l2) * w**2, ("obd without the l2 penalty",)),
    Wrong("taylor without the penalty", "taylor", lambda L, w: np.abs(rows(L, w).mean(0) * w), ("taylor without the l2 penalty",)),
    Wrong("exact without the penalty", "exact", lambda L, w: exact.saliency(L, w) + 0.5 * L.l2 * w**2, ("exact without the l2 penalty",)),
]  # fmt: skip


def _running(v):
    order = np.argsort(v**2, kind="stable")
    out = np.empty_like(v)
    out[order] = v[order] ** 2 / np.cumsum(v[order] ** 2)
    return out


def networks(l2=0.0):
    """The networks that the exam is taken on: 23 examples and 3 classes, so that N, C, 2 and 1 are all different."""
    from minimal_nn import Linear, Sigmoid, Tanh

    return [
        make_case("exam tanh", Linear(6, 5), Tanh(), Linear(5, 3), n=23, l2=l2),
        make_case("exam deep", Linear(4, 5), Sigmoid(), Linear(5, 4), Tanh(), Linear(4, 3), n=23, l2=l2),
    ]
