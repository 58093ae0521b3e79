"""Every criterion beside torch: gradients, Hessians and activations by torch's automatic differentiation and hooks."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import BinaryCrossEntropy, Identity, SoftmaxCrossEntropy, SquaredError
from minimal_nn.layers import Activation
from pruning import criteria
from tests.cases import CASES, assert_close, identify
from tests.interop.test_torch import run, torch, torch_objective  # noqa: F401 - torch is a fixture

pytestmark = pytest.mark.filterwarnings("default")
DAMPING = 50.0
SOME = [case for case in CASES if len(case.w) <= 130]


def scores_by_torch(torch, case):  # noqa: F811
    L, F = case.L, torch.nn.functional
    objective, outputs = torch_objective(torch, case)
    w = torch.tensor(case.w)
    g, H = torch.func.grad(objective)(w), torch.func.hessian(objective)(w)
    x, y, P = torch.tensor(L.x), torch.tensor(L.y), len(w)

    def one(w, n, label):
        p = {name: w[L.network.layout[name]].reshape(shape) for name, shape in L.network.layout.shapes.items()}
        z = run(torch, L.network.layers, p, x[n : n + 1])
        if isinstance(L.loss, SquaredError):
            value = 0.5 * F.mse_loss(z, label[None], reduction="sum")
        elif isinstance(L.loss, BinaryCrossEntropy):
            value = F.binary_cross_entropy_with_logits(z, label[None], reduction="sum")
        else:
            value = F.cross_entropy(z, label[None], reduction="sum")
        return L.loss.scale * value

    rows = torch.stack([torch.func.grad(one)(w, n, y[n]) for n in range(L.n_examples)])
    empirical = rows.T @ rows / L.n_examples
    inverse = torch.linalg.inv(H + DAMPING * torch.eye(P, dtype=w.dtype))
    step = inverse @ g
    half_squared_norm = lambda v: 0.5 * (torch.func.grad(objective)(v) ** 2).sum()  # noqa: E731
    found = {
        "magnitude": w.abs(),
        "taylor_signed": -g * w,
        "taylor": (g * w).abs(),
        "taylor_squared": (rows * w).square().mean(dim=0),
        "taylor_second": -g * w + 0.5 * H.diagonal() * w**2,
        "obd": 0.5 * H.diagonal() * w**2,
        "obs": w**2 / (2 * inverse.diagonal()),
        "obs_gradient": (w - step) ** 2 / (2 * inverse.diagonal()) - 0.5 * g @ step,
        "fisher_empirical": 0.5 * empirical.diagonal() * w**2,
        "woodfisher": w**2 / (2 * torch.linalg.inv(empirical + 0.01 * torch.eye(P, dtype=w.dtype)).diagonal()),
        "grasp": w * torch.func.grad(half_squared_norm)(w),
    }
    if (g * w).abs().sum():
        found["snip"] = (g * w).abs() / (g * w).abs().sum()
    if isinstance(L.loss, SoftmaxCrossEntropy):
        found["fisher"] = 0.5 * w**2 * true_fisher(torch, case, outputs, one)
    return {name: value.numpy() for name, value in found.items()}


def true_fisher(torch, case, outputs, one):  # noqa: F811
    """The mean over examples of Σ_c p_c (∂ log p_c/∂w)², times the loss's scale."""
    L, w, diagonal = case.L, torch.tensor(case.w), 0
    probabilities = torch.softmax(outputs(w), dim=1)
    for n in range(L.n_examples):
        for c in range(L.n_outputs):
            score = torch.func.grad(one)(w, n, torch.tensor(c)) / L.loss.scale
            diagonal = diagonal + probabilities[n, c] * score**2 / L.n_examples
    return L.loss.scale * diagonal


OPTIONS = {"obs": {"damping": DAMPING}, "obs_gradient": {"damping": DAMPING}, "woodfisher": {"damping": 0.01}}


@pytest.mark.parametrize("case", SOME, ids=identify)
def test_criteria_of_derivatives_equal_torchs(torch, case):  # noqa: F811
    for name, by_torch in scores_by_torch(torch, case).items():
        found = criteria.REGISTRY[name].function(case.L, case.w, **OPTIONS.get(name, {}))
        assert_close(found, by_torch, 1e-9, scale=1e-3)


PLAIN = [case for case in SOME if "Residual" not in repr(case.L.network)]


@pytest.mark.parametrize("case", PLAIN, ids=identify)
def test_wanda_and_obs_layerwise_equal_torchs(torch, case):  # noqa: F811
    layout = case.L.network.layout
    wanda = layout.unflatten(criteria.wanda(case.L, case.w))
    layerwise = layout.unflatten(criteria.obs_layerwise(case.L, case.w, damping=0.1))
    own = [{k: torch.tensor(v) for k, v in views.items()} for views in case.L.network.parameters(case.w)]
    h = torch.tensor(case.L.x)
    for i, layer in enumerate(case.L.network.layers):
        if type(layer).__name__ in ("Linear", "Conv2d"):
            weight, rows = matrix(own[i]["weight"]), h
            if rows.ndim > 2:  # torch's own windows: (N, in·k², positions)
                rows = torch.nn.functional.unfold(h, layer.kernel, padding=layer.padding, stride=layer.stride)
                rows = rows.transpose(1, 2).reshape(-1, rows.shape[1])
            expected = weight.abs() * rows.norm(dim=0)
            assert_close(matrix(torch.tensor(wanda[f"{i}.weight"])).numpy(), expected.numpy(), 1e-10, scale=1e-3)
            if layer.bias:
                rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)
            gram = rows.T @ rows / case.L.n_examples + 0.1 * torch.eye(rows.shape[1], dtype=rows.dtype)
            expected = weight**2 / (2 * torch.linalg.inv(gram).diagonal()[: weight.shape[1]])
            assert_close(matrix(torch.tensor(layerwise[f"{i}.weight"])).numpy(), expected.numpy(), 1e-9, scale=1e-3)
        h = run(torch, [layer], {f"0.{name}": value for name, value in own[i].items()}, h)


def matrix(weight):
    """Return our weight (in, out, ...) as torch's rows (out, in · ...)."""
    return weight.transpose(0, 1).reshape(weight.shape[1], -1)


@pytest.mark.parametrize("case", [c for c in PLAIN if "BatchNorm" not in repr(c.L.network)], ids=identify)
def test_synflow_equals_torchs(torch, case):  # noqa: F811
    layout = case.L.network.layout
    flow = torch.tensor(np.abs(case.w) * layout.select("weight")).requires_grad_()
    layers = [Identity() if isinstance(layer, Activation) else layer for layer in case.L.network.layers]
    p = {name: flow[layout[name]].reshape(shape) for name, shape in layout.shapes.items()}
    run(torch, layers, p, torch.ones((1, *case.L.x.shape[1:]), dtype=flow.dtype)).sum().backward()
    assert_close(criteria.synflow(case.L, case.w), (flow.detach() * flow.grad).numpy(), 1e-10)
