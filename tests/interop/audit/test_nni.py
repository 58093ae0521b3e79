"""nni's pruners: metrics beside their definitions, and what their masks remove."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.cases import assert_close
from tests.interop.audit.subjects import audited, backward, data, mlp

SIZES, LAYERS = (6, 10, 8, 4), ("0", "2")
BATCHES = {
    "one": [slice(0, 12)],
    "unequal": [slice(0, 5), slice(5, 12)],
    "single": [slice(n, n + 1) for n in range(12)],
}


@pytest.fixture(scope="module")
def pruning(nni):
    return audited("nni", "nni.compression.pruning")


def weights(name):
    return mlp(*SIZES).get_submodule(name).weight.detach().numpy()


def compressed(pruner):
    """Return the masks of weights by layer, and the metrics they were made of."""
    seen = {}
    calculate = pruner._calculate_metrics

    def keep(data):
        seen.update(calculate(data))
        return seen

    pruner._calculate_metrics = keep
    _, masks = pruner.compress(*([12, None] if type(pruner).__name__ == "MovementPruner" else []))
    found = {name: mask["weight"].numpy() for name, mask in masks.items()}
    return found, {name: metric["weight"].numpy().reshape(-1) for name, metric in seen.items()}


def config(ratio=0.5, names=LAYERS, **more):
    return [{"op_names": list(names), "target_names": ["weight"], "sparse_ratio": ratio} | more]


def evaluator(nni, torch, model, batches, rate=0.0):
    """Return nni's evaluator: cross-entropy on these batches, and steps of gradient descent at this rate."""
    x, y = data(12, 6, 4)
    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=rate)

    def train(model, optimizer, training_step, lr_scheduler=None, max_steps=None, max_epochs=None):
        for step in range(max_steps):
            part = batches[step % len(batches)]
            optimizer.zero_grad()
            training_step((x[part], y[part]), model).backward()
            optimizer.step()

    utils = audited("nni", "nni.compression.utils")
    return utils.TorchEvaluator(
        train, optimizer, lambda batch, model: torch.nn.functional.cross_entropy(model(batch[0]), batch[1])
    )


def gradients(batches):
    """Return w_j g_bj of the first layer for every batch, each by its own backward pass."""
    model, (x, y) = mlp(*SIZES), data(12, 6, 4)
    found = []
    for part in batches:
        backward(model, x[part], y[part])
        found.append((model[0].weight.detach() * model[0].weight.grad).numpy())
    return np.array(found)


def removed(mask):
    return np.flatnonzero(mask.reshape(len(mask), -1)[:, 0] == 0).tolist()


# agreement


@pytest.mark.parametrize(("kind", "p"), [("L1NormPruner", 1), ("L2NormPruner", 2)])
def test_norm_pruners_remove_the_rows_of_lowest_norm(pruning, kind, p):
    masks, metrics = compressed(getattr(pruning, kind)(mlp(*SIZES), config()))
    for name in LAYERS:
        norms = np.linalg.norm(weights(name), p, axis=1)
        assert_close(metrics[name], norms, 1e-12)
        assert removed(masks[name]) == sorted(np.argsort(norms)[: len(norms) // 2].tolist())


def test_level_pruner_is_magnitude_within_layers(pruning):
    masks, _ = compressed(pruning.LevelPruner(mlp(*SIZES), config()))
    for name in LAYERS:
        w = np.abs(weights(name))
        np.testing.assert_array_equal(masks[name], w > np.sort(w.ravel())[w.size // 2 - 1])


def test_fpgm_pruner_sums_distances_of_the_rows_themselves(pruning):
    _, metrics = compressed(pruning.FPGMPruner(mlp(*SIZES), config()))
    rows = weights("0")
    assert_close(metrics["0"], np.array([sum(np.linalg.norm(a - b) for b in rows) for a in rows]), 1e-12)


@pytest.mark.parametrize("batches", list(BATCHES))
@pytest.mark.parametrize("order", [1, -1])
def test_taylor_pruner_is_the_mean_over_batches_of_the_sum_of_squares(nni, torch, pruning, batches, order):
    assert r"\left(g_{s} w_{s}\right)^{2}" in pruning.TaylorPruner.__doc__
    parts, model = BATCHES[batches][::order], mlp(*SIZES)
    pruner = pruning.TaylorPruner(model, config(names=["0"]), evaluator(nni, torch, model, parts), len(parts))
    _, metrics = compressed(pruner)
    assert_close(metrics["0"], (gradients(BATCHES[batches]) ** 2).mean(axis=0).sum(axis=1), 1e-12)


# choices


def test_the_number_removed_is_rounded_down(pruning):
    masks, _ = compressed(pruning.L1NormPruner(mlp(6, 100, 4), config(0.29, ["0"])))
    assert len(removed(masks["0"])) == 28  # 100 · 0.29 in floating point is just below 29


# deviations


def global_masks(pruning, model, ratio, order):
    """Return the masks of rows ranked by their l1 norms over all layers, which nni goes through in this order."""
    pruner = pruning.L1NormPruner(model, config(ratio, order, global_group_id="all"))
    pruner._target_spaces = {name: pruner._target_spaces[name] for name in order}  # else the order of a set of strings
    return compressed(pruner)


def test_a_global_ranking_of_rows_of_unequal_length_can_remove_far_more_than_asked(torch, pruning):
    removed = {}
    for order in (("0", "2"), ("2", "0")):
        model = mlp(4, 100, 12, 4)
        with torch.no_grad():
            model[2].weight *= 0.01
        masks, metrics = global_masks(pruning, model, 0.5, order)
        removed[order] = sum(int((mask == 0).sum()) for mask in masks.values())
    # the lowest rows that hold half of the 1,600 weights: 8 of the 12 rows of 100, none of the 100 rows of 4
    every = np.concatenate([metrics["0"], metrics["2"]])
    lengths = np.repeat([4, 100], [100, 12])[np.argsort(every)]
    assert np.cumsum(lengths)[7] == 800
    assert removed == {("2", "0"): 800, ("0", "2"): 1568}


def test_the_order_of_layers_is_that_of_a_set_of_strings(pruning):
    code = (
        "from nni.compression.pruning import L1NormPruner; from tests.interop.audit.subjects import mlp;"
        "print(*L1NormPruner(mlp(3, 3, 3, 3), [{'op_names': ['0', '2'], 'sparse_ratio': 0.5}])._target_spaces)"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE, text=True,
        )
        for seed in ("0", "2")
    ]  # fmt: skip
    assert {run.communicate()[0].strip() for run in runs} == {"0 2", "2 0"}


def test_movement_scores_are_adams_steps_not_the_sum(nni, torch, pruning):
    assert "opposite of the sum of the product of weight and its gradient" in pruning.MovementPruner.__doc__
    model, parts = mlp(*SIZES), BATCHES["single"]
    options = config(names=["0"], granularity=[1, 1])
    pruner = pruning.MovementPruner(model, options, evaluator(nni, torch, model, parts), 11, 12)
    _, metrics = compressed(pruner)
    steps = gradients(parts)
    said = -steps.sum(axis=0).ravel()
    assert np.corrcoef(np.argsort(np.argsort(metrics["0"])), np.argsort(np.argsort(said)))[0, 1] < 0.9
    score, m, v = np.zeros(steps[0].shape), 0.0, 0.0
    for t, step in enumerate(steps, 1):
        m, v = 0.9 * m + 0.1 * step, 0.999 * v + 0.001 * step**2
        score -= 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    assert_close(metrics["0"], score.ravel(), 1e-9)


def test_movement_scores_rows_by_default_not_each_weight(nni, torch, pruning):
    assert "Each weight element will be scored" in pruning.MovementPruner.__doc__
    model = mlp(*SIZES)
    pruner = pruning.MovementPruner(model, config(names=["0"]), evaluator(nni, torch, model, BATCHES["single"]), 11, 12)
    _, metrics = compressed(pruner)
    assert metrics["0"].shape == (10,)
