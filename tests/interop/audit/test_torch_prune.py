"""torch.nn.utils.prune: which entries its masks remove, and how many."""

from __future__ import annotations

import numpy as np
import pytest

from pruning import oracle
from tests.interop.audit.subjects import data, mlp

SIZES, LAYERS = (6, 5, 3), ("0", "2")


@pytest.fixture(scope="module")
def prune(torch):
    import torch.nn.utils.prune

    return torch.nn.utils.prune


def subject(torch):
    model, (x, y) = mlp(*SIZES), data(7, 6, 3)
    return model, oracle.from_torch(model, torch.nn.CrossEntropyLoss(), x, y)


def masks_of(model):
    return {f"{name}.weight": model.get_submodule(name).weight_mask for name in LAYERS}


# agreement


def test_global_l1_is_the_mask_of_magnitude(torch, prune):
    for sparsity in (0.3, 0.5, 0.7):
        model, case = subject(torch)
        weights = [(model.get_submodule(name), "weight") for name in LAYERS]
        prune.global_unstructured(weights, prune.L1Unstructured, amount=sparsity)
        diagnosis = case.diagnose_mask(masks_of(model), "magnitude", sparsity)
        n = 45
        if round(sparsity * n) == np.floor(sparsity * n + 0.5):
            assert diagnosis.matches, str(diagnosis)
        else:
            assert any("half to even" in rule for rule in diagnosis.rules), str(diagnosis)


def test_l1_of_every_tensor_is_the_mask_of_magnitude_within_layers(torch, prune):
    model, case = subject(torch)
    for name in LAYERS:
        prune.l1_unstructured(model.get_submodule(name), "weight", 0.4)
    assert case.diagnose_mask(masks_of(model), "magnitude", 0.4, scope="layer").matches


@pytest.mark.parametrize("n", [1, 2, float("inf"), -float("inf")])
@pytest.mark.parametrize("dim", [0, 1])
def test_ln_structured_removes_the_channels_of_lowest_norm(torch, prune, n, dim):
    layer = mlp(*SIZES)[0]
    W = np.moveaxis(layer.weight.detach().numpy(), dim, 0)
    norms = np.array([np.linalg.norm(row, n) for row in W])
    prune.ln_structured(layer, "weight", 2, n=n, dim=dim)
    kept = np.moveaxis(layer.weight_mask.numpy(), dim, 0)
    removed = np.argsort(norms)[:2]
    assert (kept[removed] == 0).all()
    assert kept.sum() == (len(W) - 2) * W.shape[1]


def test_random_methods_remove_the_number_asked_for(torch, prune):
    layer = mlp(*SIZES)[0]
    prune.random_unstructured(layer, "weight", 11)
    assert int((layer.weight_mask == 0).sum()) == 11
    layer = mlp(*SIZES)[0]
    prune.random_structured(layer, "weight", 2, dim=0)
    assert layer.weight_mask.sum(dim=1).tolist().count(0) == 2


def test_pruned_weights_stay_pruned_and_the_amount_is_of_what_is_left(torch, prune):
    assert "(currently unpruned)" in prune.l1_unstructured.__doc__
    layer = mlp(*SIZES)[0]
    prune.random_unstructured(layer, "weight", 10)
    gone = layer.weight_mask == 0
    prune.l1_unstructured(layer, "weight", 0.5)
    assert int((layer.weight_mask == 0).sum()) == 20
    assert (layer.weight_mask[gone] == 0).all()


# choices


def test_the_amount_is_rounded_half_to_even(torch, prune):
    layer = torch.nn.Linear(5, 1)
    prune.l1_unstructured(layer, "weight", 0.5)
    assert int((layer.weight_mask == 0).sum()) == 2


def test_ties_do_not_go_to_the_lower_index(torch, prune):
    layer = torch.nn.Linear(6, 1)
    torch.nn.init.ones_(layer.weight)
    prune.l1_unstructured(layer, "weight", 3)
    assert layer.weight_mask.tolist() != [[0, 0, 0, 1, 1, 1]]
    assert int(layer.weight_mask.sum()) == 3


# deviation


def test_importance_scores_are_taken_by_their_absolute_value(torch, prune):
    said = " ".join(prune.l1_unstructured.__doc__.split())
    assert "The values in this tensor indicate the importance of the corresponding elements" in said
    model, case = subject(torch)
    scores = case.scores("taylor_signed")
    weights = {(model.get_submodule(name), "weight"): torch.tensor(scores[f"{name}.weight"]) for name in LAYERS}
    prune.global_unstructured(list(weights), prune.L1Unstructured, importance_scores=weights, amount=0.4)
    diagnosis = case.diagnose_mask(masks_of(model), "taylor_signed", 0.4)
    assert not diagnosis.matches
    assert "the absolute scores' mask" in diagnosis.rules
    every = np.concatenate([scores[f"{name}.weight"].ravel() for name in LAYERS])
    kept = np.concatenate([masks_of(model)[f"{name}.weight"].numpy().ravel() for name in LAYERS])
    assert kept[np.argmin(every)] == 1  # the least important of all stays
