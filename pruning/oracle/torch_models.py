"""Import of torch modules: read as a sequence of our layers, and compared with torch's outputs and loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minimal_nn import checks
from minimal_nn.objective import Objective
from pruning.oracle.cases import Case, as_array
from pruning.oracle.chains import check_outputs, first_line, moved, network_and_tensors
from pruning.oracle.foreign_losses import our_loss, our_targets
from pruning.oracle.torch_graphs import Reading

if TYPE_CHECKING:
    import torch

#: wrappers of a model, and the attribute that holds it
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "OptimizedModule": "_orig_mod"}


def from_torch(model: torch.nn.Module, loss: Any, x: Any, y: Any, l2: float = 0.0, name: str | None = None) -> Case:
    """Return the case of a torch module: our network, w, objective, and the map to the names of its state_dict.

    `model` may be any module whose forward is a chain of Linear, Conv2d, Tanh, ReLU, Sigmoid, Softplus, GELU, SiLU,
    AvgPool2d, MaxPool2d, AdaptiveAvgPool2d, Flatten, Dropout and BatchNorm (both in eval mode), nested Sequentials of
    them, their functional forms (x @ W + b, x · sigmoid(x), view and mean over the image too), and sums x + f(x) of
    such a chain with its own input. `loss` is CrossEntropyLoss, BCEWithLogitsLoss or MSELoss, the functional of that
    name, or a functools.partial of it; "mean" and "sum" are as torch defines them, "none" counts as "mean". x (N, ...)
    and y are what the loss is computed on, all N at once. `l2` adds (l2/2)‖w‖² over all parameters, biases too:
    torch's weight_decay.

    A weight that torch.nn.utils.prune has masked, or that the forward multiplies by a buffer of zeros and ones, is
    imported masked and under its plain name ("0.weight", not "0.weight_orig"), as prune.remove would leave it.

    Everything is converted to float64. Outputs, loss and gradient are compared with torch's, in float64, at x and the
    weights as they are and at others, so that a model that computes anything else is refused. (Above 20, torch's
    Softplus is linear, a difference of 2e-9.) The model is not changed. Raises ValueError that names the module or the
    call that cannot be expressed, ImportError without torch.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("from_torch needs torch: pip install exact-pruning[interop]") from None
    if not isinstance(model, torch.nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {checks.describe(model)}")
    x = checks.array("x", as_array("x", x), kinds="fiu").astype(np.float64)
    if x.ndim < 2 or not len(x):
        raise ValueError(f"x: expected at least one example, shape (N, ...), got {checks.describe(x)}")
    names = _names(model)
    reading = Reading(model, names, x.shape)
    parameters = _values(model, names, reading.masks)
    network, tensors = network_and_tensors(reading.steps, parameters)
    run = functools.partial(_run, model, names)
    z = run(parameters, x)
    kind, options = _kind_of_loss(loss)
    if z.ndim != 2 and not (z.ndim == 1 and kind != "cross_entropy"):
        raise ValueError(f"model: expected outputs of shape (N, C), got {checks.describe(z)}")
    y = _targets(kind, options, as_array("y", y), z)
    N, C = z.reshape(len(x), -1).shape
    targets = our_targets(kind, y.reshape(N, C) if y.shape == z.shape else y, N, C, options["label_smoothing"])
    L = Objective(network, our_loss(kind, options["reduction"], N, C), x, targets, l2)
    case = Case(L, np.zeros(L.n_parameters), tensors, name or type(model).__name__)
    case = Case(L, case.to_ours(parameters, "model")[0], tensors, case.name)
    check_outputs(case, lambda parameters, x: run(parameters, x).reshape(len(x), -1))
    _check_gradient(case, loss, y, functools.partial(_call, model, names))
    return case


def _names(model: torch.nn.Module) -> dict[str, str]:
    """Return the plain name of every parameter, also of those with several names: any of them -> the first.

    ValueError for a model without parameters, and for parameters that hold no finite real numbers.
    """
    from torch.nn.parameter import is_lazy

    kind = type(model).__name__
    if kind in _WRAPPERS and hasattr(model, _WRAPPERS[kind]):
        raise ValueError(f"model: {kind} wraps a module; pass that, model.{_WRAPPERS[kind]}")
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        where = f"model: parameter {name}"
        if is_lazy(p):
            raise ValueError(f"{where}: is not initialised; run the model once first")
        if p.is_meta:
            raise ValueError(f"{where}: is on the meta device, without numbers")
        if not p.dtype.is_floating_point:
            raise ValueError(f"{where}: expected a real floating dtype, got {p.dtype}")
        checks.array(where, as_array(where, p))
        plain = name.removesuffix("_orig")
        plain = plain if f"{plain}_mask" in buffers else name
        names[plain] = first.setdefault(id(p), plain)
    if not names:
        raise ValueError("model: expected at least one parameter, got none")
    return names


def _values(model: torch.nn.Module, names: Mapping[str, str], masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the parameters by their plain names, float64, with their masks applied."""
    buffers = dict(model.named_buffers(remove_duplicate=False))
    values = {}
    for name, p in model.named_parameters():
        plain = name.removesuffix("_orig") if name not in names else name
        value = as_array(plain, p).astype(np.float64)
        if name not in names:
            value = value * as_array(plain, buffers[f"{plain}_mask"])
        values[plain] = value * masks.get(plain, 1)
    return values


def _run(
    model: torch.nn.Module, names: Mapping[str, str], parameters: Mapping[str, np.ndarray], x: np.ndarray
) -> np.ndarray:
    """Return the outputs of the model with these parameters, and its own buffers, in float64."""
    import torch

    tensors = {name: torch.from_numpy(a) for name, a in parameters.items()}
    try:
        with torch.no_grad():
            return as_array("outputs", _call(model, names, tensors, torch.from_numpy(x)))
    except RuntimeError as error:
        raise ValueError(f"model: fails on x in float64: {first_line(error)}") from None


def _call(
    model: torch.nn.Module, names: Mapping[str, str], parameters: Mapping[str, torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """Return model(x) with these parameters in place of its own, and its buffers in float64."""
    from torch.func import functional_call

    state: dict[str, Any] = {}
    kept = []  # tensors that prune's hooks compute at every call and leave on their module
    for prefix, module in model.named_modules():  # every module once, whatever its names
        start = f"{prefix}." if prefix else ""
        for key, buffer in module.named_buffers(recurse=False):
            if buffer.dtype.is_floating_point:
                state[start + key] = buffer.detach().cpu().double()
        for key, _ in module.named_parameters(recurse=False, remove_duplicate=False):
            plain = key if start + key in names else key.removesuffix("_orig")
            state[start + key] = parameters[names[start + plain]]
            if plain != key:
                kept.append((module, plain, getattr(module, plain)))
    try:
        return functional_call(model, state, x, tie_weights=False)
    finally:
        for module, plain, tensor in kept:
            setattr(module, plain, tensor)


def _kind_of_loss(loss: Any) -> tuple[str, dict[str, Any]]:
    """Return a loss's name among ours, its reduction and its label smoothing; ValueError for any other option."""
    from torch import nn
    from torch.nn import functional

    called, options = (loss.func, dict(loss.keywords)) if isinstance(loss, functools.partial) else (loss, {})
    kinds = {
        "cross_entropy": (nn.CrossEntropyLoss, functional.cross_entropy),
        "bce_with_logits": (nn.BCEWithLogitsLoss, functional.binary_cross_entropy_with_logits),
        "mse": (nn.MSELoss, functional.mse_loss),
    }
    kind = next((k for k, (module, function) in kinds.items() if type(called) is module or called is function), None)
    if kind is None:
        expected = ", ".join(f"{module.__name__}()" for module, _ in kinds.values())
        raise ValueError(f"loss: expected {expected} or the functional of one, got {checks.describe(called)}")
    plain = {"reduction": "mean", "label_smoothing": 0.0, "weight": None, "pos_weight": None, "ignore_index": -100}
    given = plain | {name: getattr(called, name, value) for name, value in plain.items()} | options
    for name, value in given.items():
        if name not in plain or (name in ("weight", "pos_weight") and value is not None):
            raise ValueError(f"loss: {name} cannot be expressed")
    return kind, given


def _targets(kind: str, options: Mapping[str, Any], y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return y as torch's loss is to take it."""
    if kind == "cross_entropy":
        if y.dtype.kind in "iu" and (y == options["ignore_index"]).any():
            raise ValueError(
                f"y: has labels that the loss ignores ({options['ignore_index']}), which cannot be expressed"
            )
        return y.astype(np.int64 if y.dtype.kind in "iu" else np.float64)
    if y.shape != z.shape:
        raise ValueError(f"y: expected the shape of the outputs, {z.shape}, got {checks.describe(y)}")
    return y.astype(np.float64)


def _check_gradient(case: Case, loss: Any, y: np.ndarray, call: Callable[..., torch.Tensor]) -> None:
    """Raise ValueError unless the loss and its gradient are torch's, without the penalty, where w and x are moved.

    That is away from kinks. Weights at zero, which may be masked, are left out.
    """
    import torch

    w, x = moved(case)
    L = Objective(case.L.network, case.L.loss, x, case.L.y)
    parameters = {name: torch.from_numpy(a).requires_grad_() for name, a in case.to_foreign(w).items()}
    try:
        with torch.enable_grad():
            value = loss(call(parameters, torch.from_numpy(x)), torch.from_numpy(y)).mean()
            gradients = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
    except RuntimeError as error:
        raise ValueError(f"model: torch cannot differentiate it: {first_line(error)}") from None
    theirs, _ = case.to_ours({name: g.numpy() for name, g in zip(parameters, gradients, strict=True)}, "gradient")
    ours, rounding = L.value_and_gradient(w), 1e-9 * L.loss.scale
    if not abs(ours[0] - value.item()) <= 1e-7 * abs(ours[0]) + rounding:
        raise ValueError(f"loss: what was read from it gives {ours[0]:.10g}, torch {value.item():.10g}")
    off = np.abs((ours[1] - theirs) * (w != 0)).max()
    if not off <= 1e-7 * np.abs(theirs).max() + rounding:
        raise ValueError(f"model: torch's gradient is not that of its outputs, by {off:.3g}; is a part of it cut off?")
