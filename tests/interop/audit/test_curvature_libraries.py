"""curvlinops and BackPACK: Hessian, Gauss-Newton, Fisher matrices and diagonals beside the oracle's."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

from minimal_nn import curvature
from pruning import oracle
from tests.cases import assert_close
from tests.interop.audit.subjects import audited, tiny

N = 7
NETS = ("tanh", "relu", "sigmoid, one output", "convolution, max pooling", "convolution, stride and padding")
LOSSES = ("CrossEntropyLoss", "MSELoss", "BCEWithLogitsLoss")
BATCHES = ([slice(0, N)], [slice(0, 5), slice(5, N)], [slice(5, N), slice(0, 5)])


def subject(torch, net, loss, reduction):
    """Return a model, data, the loss module and the case; None for cross-entropy with one output."""
    nn = torch.nn
    torch.manual_seed(0)
    models = {
        "tanh": lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)),
        "relu": lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
        "sigmoid, one output": lambda: nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 1)),
        "convolution, max pooling": lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
        ),
        "convolution, stride and padding": lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Sigmoid(), nn.Flatten(), nn.Linear(18, 3)
        ),
    }
    model = models[net]().double().eval()
    x = torch.randn(N, *((1, 6, 6) if "convolution" in net else (4,))).double()
    C = 1 if "one" in net else 3
    y = {
        "CrossEntropyLoss": torch.randint(0, C, (N,)),
        "MSELoss": torch.randn(N, C).double(),
        "BCEWithLogitsLoss": torch.randint(0, 2, (N, C)).double(),
    }[loss]
    criterion = getattr(nn, loss)(reduction=reduction)
    return model, x, y, criterion, oracle.from_torch(model, criterion, x, y)


def in_their_order(case, M):
    """Return a matrix (P, P) or a vector (P,) of ours in the order of the model's parameters, flattened."""
    order = np.concatenate([case.index_of(tensor.name).ravel() for tensor in case.tensors])
    return M[order] if M.ndim == 1 else M[np.ix_(order, order)]


def combinations():
    return [
        (net, loss, reduction)
        for net in NETS
        for loss in LOSSES
        for reduction in ("mean", "sum")
        if not (loss == "CrossEntropyLoss" and "one" in net)
    ]


def operator(curvlinops, kind, model, criterion, x, y, parts, **options):
    """Return a curvlinops operator on batches, as a matrix."""
    made = getattr(curvlinops, f"{kind}LinearOperator")(
        model, criterion, list(model.parameters()), [(x[part], y[part]) for part in parts], **options
    )
    import torch

    return (made @ torch.eye(made.shape[1], dtype=x.dtype)).detach().numpy()


def by_backpack(backpack, extension, saved, model, criterion, x, y):
    """Return what an extension of BackPACK saves for all parameters, flattened."""
    import torch

    extended, loss = backpack.extend(copy.deepcopy(model)), backpack.extend(criterion)
    with warnings.catch_warnings(), backpack.backpack(extension):
        warnings.simplefilter("ignore")
        loss(extended(x), y).backward()
    return torch.cat([getattr(p, saved).reshape(-1) for p in extended.parameters()]).detach().numpy()


# agreement


@pytest.mark.parametrize(("net", "loss", "reduction"), combinations())
def test_curvlinops_hessian_and_ggn_are_ours_on_unequal_batches_in_any_order(torch, curvlinops, net, loss, reduction):
    model, x, y, criterion, case = subject(torch, net, loss, reduction)
    H, G = (in_their_order(case, f(case.L, case.w)) for f in (curvature.hessian, curvature.gauss_newton))
    for parts in BATCHES:
        assert_close(operator(curvlinops, "Hessian", model, criterion, x, y, parts), H, 1e-12)
        assert_close(operator(curvlinops, "GGN", model, criterion, x, y, parts), G, 1e-12)


@pytest.mark.parametrize("net", NETS[:2])
def test_curvlinops_empirical_fisher_of_cross_entropy_is_ours(torch, curvlinops, net):
    model, x, y, criterion, case = subject(torch, net, "CrossEntropyLoss", "mean")
    F = in_their_order(case, curvature.fisher(case.L, case.w, kind="empirical"))
    for parts in BATCHES:
        assert_close(operator(curvlinops, "EF", model, criterion, x, y, parts), F, 1e-12)


def test_curvlinops_sampled_fisher_approaches_the_true_one(torch, curvlinops):
    model, x, y, criterion, case = subject(torch, "tanh", "CrossEntropyLoss", "mean")
    F = in_their_order(case, curvature.fisher(case.L, case.w, kind="true"))
    few, many = (
        np.linalg.norm(
            operator(curvlinops, "FisherMC", model, criterion, x, y, BATCHES[0], mc_samples=samples) - F
        ) / np.linalg.norm(F)
        for samples in (20, 2000)
    )  # fmt: skip
    assert many < 0.05 < few  # the error falls by about 10 with 100 times the samples


def test_curvlinops_kfac_of_one_example_is_the_ggn_of_every_layer(torch, curvlinops):
    model, x, y, criterion, _ = subject(torch, "tanh", "CrossEntropyLoss", "mean")
    case = oracle.from_torch(model, criterion, x[:1], y[:1])
    G = in_their_order(case, curvature.gauss_newton(case.L, case.w))
    found = operator(
        curvlinops, "KFAC", model, criterion, x[:1], y[:1], [slice(0, 1)],
        fisher_type=curvlinops.FisherType.TYPE2, separate_weight_and_bias=False,
    )  # fmt: skip
    split = model[0].weight.numel() + model[0].bias.numel()
    for own in (slice(0, split), slice(split, None)):
        assert_close(found[own, own], G[own, own], 1e-12)
    assert not found[:split, split:].any()


@pytest.mark.parametrize(("net", "loss", "reduction"), combinations())
def test_backpack_diagonals_are_ours(torch, backpack, net, loss, reduction):
    if loss == "BCEWithLogitsLoss" and "one" not in net:
        return _refuses_several_outputs(torch, backpack, net, loss, reduction)
    extensions = audited("backpack-for-pytorch", "backpack.extensions")
    model, x, y, criterion, case = subject(torch, net, loss, reduction)
    H, G = curvature.hessian_diagonal(case.L, case.w), np.diag(curvature.gauss_newton(case.L, case.w))
    theirs = by_backpack(backpack, extensions.DiagHessian(), "diag_h", model, criterion, x, y)
    assert_close(theirs, in_their_order(case, H), 1e-12)
    theirs = by_backpack(backpack, extensions.DiagGGNExact(), "diag_ggn_exact", model, criterion, x, y)
    assert_close(theirs, in_their_order(case, G), 1e-12)
    return None


def _refuses_several_outputs(torch, backpack, net, loss, reduction):
    extensions = audited("backpack-for-pytorch", "backpack.extensions")
    model, x, y, criterion, _ = subject(torch, net, loss, reduction)
    with pytest.raises(NotImplementedError, match="Only scalar-valued predictions"):
        by_backpack(backpack, extensions.DiagHessian(), "diag_h", model, criterion, x, y)


# choices


def test_backpack_second_moments_of_a_mean_loss_carry_1_over_n_squared(torch, backpack):
    extensions = audited("backpack-for-pytorch", "backpack.extensions")
    for extension in (extensions.SumGradSquared, extensions.Variance):
        assert "[¹/ₙ g₁, …, ¹/ₙ gₙ]`` if the loss is a mean" in extension.__doc__
    model, x, y, case = tiny()
    criterion = torch.nn.CrossEntropyLoss()
    moments = by_backpack(backpack, extensions.SumGradSquared(), "sum_grad_squared", model, criterion, x, y)
    rows = case.L.per_example_gradients(case.w)
    assert_close(moments, in_their_order(case, (rows**2).sum(axis=0) / 25), 1e-12)
    variance = by_backpack(backpack, extensions.Variance(), "variance", model, criterion, x, y)
    assert_close(variance, in_their_order(case, rows.var(axis=0) / 25), 1e-12)


def test_the_oracle_finds_the_factor_1_over_n_in_backpacks_second_moments(torch, backpack):
    extensions = audited("backpack-for-pytorch", "backpack.extensions")
    model, x, y, case = tiny()
    extended, loss = backpack.extend(copy.deepcopy(model)), backpack.extend(torch.nn.CrossEntropyLoss())
    with warnings.catch_warnings(), backpack.backpack(extensions.SumGradSquared()):
        warnings.simplefilter("ignore")
        loss(extended(x), y).backward()
    scores = {name: 0.5 * p.sum_grad_squared * p.detach() ** 2 for name, p in extended.named_parameters()}
    diagnosis = case.diagnose(scores, claims="fisher_empirical", batch_size=5)
    assert not diagnosis.matches
    assert "1/N" in str(diagnosis.best)


# deviations


@pytest.mark.parametrize("loss", LOSSES[1:])
def test_curvlinops_empirical_fisher_of_a_mean_over_outputs_is_c_times_its_formula(torch, curvlinops, loss):
    said = " ".join(curvlinops.EFLinearOperator.__doc__.split())
    assert r"with :math:`c = \frac{1}{N}` for ``reduction='mean'``" in said
    model, x, y, criterion, case = subject(torch, "tanh", loss, "mean")
    rows = case.L.per_example_gradients(case.w)
    formula = in_their_order(case, rows.T @ rows / N)  # the loss is the mean of these ℓ_n, so that c = 1/N
    assert_close(operator(curvlinops, "EF", model, criterion, x, y, BATCHES[0]), 3 * formula, 1e-12)


def test_backpack_average_pooling_raises_in_double_precision(torch, backpack):
    extensions = audited("backpack-for-pytorch", "backpack.extensions")
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    x, y = torch.randn(N, 1, 6, 6), torch.randint(0, 3, (N,))
    assert by_backpack(backpack, extensions.DiagGGNExact(), "diag_ggn_exact", model, nn.CrossEntropyLoss(), x, y).any()
    with pytest.raises(RuntimeError, match="expected scalar type Double but found Float"):
        by_backpack(
            backpack, extensions.DiagGGNExact(), "diag_ggn_exact", model.double(), nn.CrossEntropyLoss(), x.double(), y
        )
