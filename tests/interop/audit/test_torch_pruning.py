"""torch-pruning: scores of its importances beside their definitions by loops, and what its pruner takes out."""

from __future__ import annotations

import copy
import importlib.metadata

import numpy as np
import pytest

from tests.cases import assert_close
from tests.interop.audit.subjects import backward, data, mlp, pruned_units, tiny, unit_scores

SIZES, LAYERS = (6, 10, 8, 4), ("0", "2")
SINGLE = 1e-5  # scores are float32


def by_unit(model, name, value):
    """Return value(weight, gradient) of every row of a layer's weights."""
    layer = model.get_submodule(name)
    w = layer.weight.detach().numpy()
    g = np.zeros_like(w) if layer.weight.grad is None else layer.weight.grad.numpy()
    return np.array([value(a, b) for a, b in zip(w, g, strict=True)])


def by_input(model, name, value):
    """Return value(weight, gradient) of every column of a layer's weights."""
    layer = model.get_submodule(name)
    w, g = layer.weight.detach().numpy().T, layer.weight.grad.numpy().T
    return np.array([value(a, b) for a, b in zip(w, g, strict=True)])


def first(**options):
    """Return the options that leave a layer's own weights, without normalisation."""
    return {"normalizer": None, "group_reduction": "first"} | options


def accumulated(importance, model, x, y, order):
    """Return the importance after accumulate_grad for these examples, each with its own gradient, as documented."""
    importance.zero_grad()
    for n in order:
        backward(model, x[n : n + 1], y[n : n + 1])
        importance.accumulate_grad(model)
    return importance


def squared_gradients(model, x, y):
    """Return the mean over examples of the squared gradient of every weight of the first layer, by a loop."""
    found = 0
    for n in range(len(x)):
        backward(model, x[n : n + 1], y[n : n + 1])
        found = found + model[0].weight.grad.numpy() ** 2 / len(x)
    return found


# agreement


def test_names_without_group_are_aliases(torch_pruning):
    assert torch_pruning.__version__ == "1.6.0"  # of the distribution 1.6.1
    known = vars(torch_pruning.importance)
    for name in ("Magnitude", "Taylor", "Hessian"):
        grouped = known[f"Group{name}Importance"]
        assert known[f"{name}Importance"].__bases__ == (grouped,)
        assert known[f"{name}Importance"].__call__ is grouped.__call__


@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_of_the_first_layer_is_the_sum_of_powers_of_its_weights(torch_pruning, p):
    model, (x, _) = mlp(*SIZES), data(12, 6, 4)
    scores = unit_scores(torch_pruning, model, torch_pruning.importance.MagnitudeImportance(p=p, **first()), LAYERS, x)
    for name in LAYERS:
        assert_close(scores[name], by_unit(model, name, lambda w, _: sum(abs(v) ** p for v in w)), SINGLE)


def test_magnitude_with_p_1_is_what_the_oracle_calls_magnitude(torch_pruning):
    model, x, _, case = tiny()
    importance = torch_pruning.importance.MagnitudeImportance(p=1, **first())
    scores = unit_scores(torch_pruning, model, importance, ["0"], x)
    assert case.diagnose({"0": np.float32(scores["0"])}, claims="magnitude", batch_size=5).matches


def test_bn_scale_is_the_absolute_gamma(torch_pruning):
    model, (x, _) = mlp(*SIZES, norm=True), data(12, 6, 4)
    scores = unit_scores(torch_pruning, model, torch_pruning.importance.BNScaleImportance(normalizer=None), ["0"], x)
    assert_close(scores["0"], np.abs(model[1].weight.detach().numpy()), SINGLE)


def test_lamp_divides_a_units_squares_by_its_own_and_all_larger_ones(torch_pruning):
    model, (x, _) = mlp(*SIZES), data(12, 6, 4)
    importance = torch_pruning.importance.LAMPImportance(group_reduction="first")
    squares = by_unit(model, "0", lambda w, _: (w**2).sum())
    ours = [s / sum(t for t in squares if t >= s) for s in squares]
    assert_close(unit_scores(torch_pruning, model, importance, ["0"], x)["0"], np.array(ours), SINGLE)


def test_taylor_of_a_group_without_norm_adds_both_layers_and_knows_no_order_of_examples(torch_pruning):
    model, (x, y) = mlp(*SIZES), data(12, 6, 4)
    importance = torch_pruning.importance.TaylorImportance(normalizer=None, group_reduction="sum")
    found = []
    for order in (np.arange(12), np.arange(12)[::-1].copy()):
        backward(model, x[order], y[order])
        found.append(unit_scores(torch_pruning, model, importance, ["0"], x)["0"])
    ours = by_unit(model, "0", lambda w, g: np.abs(w * g).sum()) + by_input(
        model, "2", lambda w, g: np.abs(w * g).sum()
    )
    assert_close(found[0], ours, SINGLE)
    assert_close(found[1], ours, SINGLE)


def test_local_ratio_a_half_takes_the_lower_half_of_every_layer(torch_pruning):
    model, (x, _) = mlp(*SIZES), data(12, 6, 4)
    gone = pruned_by_ratio(torch_pruning, model, x, 0.5)
    for name in LAYERS:
        norms = by_unit(model, name, lambda w, _: (w**2).sum())
        assert gone[name] == sorted(np.argsort(norms)[: len(norms) // 2].tolist())


# deviations


def test_hessian_keeps_the_last_example_only(torch_pruning):
    importance = torch_pruning.importance.HessianImportance(**first())
    assert (
        "scorer.accumulate_grad(model) # accumulate gradients of each sample" in type(importance).__bases__[0].__doc__
    )
    model, (x, y) = mlp(*SIZES), data(12, 6, 4)
    scores = {}
    for order in (range(12), range(11, -1, -1)):
        accumulated(importance, model, x, y, order)
        scores[order[-1]] = unit_scores(torch_pruning, model, importance, ["0"], x)["0"]
    for last, found in scores.items():
        backward(model, x[last : last + 1], y[last : last + 1])
        assert_close(found, by_unit(model, "0", lambda w, g: (w**2 * g**2).sum()), SINGLE)
    mean = (squared_gradients(model, x, y) * model[0].weight.detach().numpy() ** 2).sum(axis=1)
    assert np.abs(scores[11] - scores[0]).max() > 0.5 * mean.max()
    assert np.abs(scores[11] - mean).max() > 0.5 * mean.max()


def test_the_oracle_names_the_last_example(torch_pruning):
    model, x, y, case = tiny()
    importance = accumulated(torch_pruning.importance.HessianImportance(**first()), model, x, y, range(5))
    scores = unit_scores(torch_pruning, model, importance, ["0"], x)
    diagnosis = case.diagnose({"0": np.float32(scores["0"])}, claims="fisher_empirical", batch_size=5)
    assert not diagnosis.matches
    assert "last example" in str(diagnosis.best)


def test_hessian_without_accumulation_multiplies_by_the_gradient_itself(torch_pruning):
    model, (x, y) = mlp(*SIZES), data(12, 6, 4)
    backward(model, x, y)
    importance = torch_pruning.importance.HessianImportance(**first())
    scores = unit_scores(torch_pruning, model, importance, ["0"], x)["0"]
    assert_close(scores, by_unit(model, "0", lambda w, g: (w**2 * g).sum()), SINGLE)
    assert scores.min() < 0 < scores.max()


def test_hessian_leaves_its_squares_in_the_models_gradients(torch_pruning):
    model, (x, y) = mlp(*SIZES), data(12, 6, 4)
    importance = accumulated(torch_pruning.importance.HessianImportance(**first()), model, x, y, [0])
    squares = model[0].weight.grad.numpy() ** 2
    unit_scores(torch_pruning, model, importance, ["0"], x)
    assert_close(model[0].weight.grad.numpy(), squares, 1e-15)


def test_hessian_with_bias_leaves_out_the_batch_norms_beta(torch_pruning):
    model, (x, y) = mlp(*SIZES, norm=True), data(12, 6, 4)
    backward(model, x, y)
    norm = type(model[1])
    scores = [
        unit_scores(
            torch_pruning,
            model,
            torch_pruning.importance.HessianImportance(
                normalizer=None, group_reduction="sum", bias=bias, target_types=[norm]
            ),
            ["0"],
            x,
        )["0"]
        for bias in (False, True)
    ]
    beta = (model[1].bias.detach() ** 2 * model[1].bias.grad).numpy()
    assert np.abs(beta).max() > 0.1 * np.abs(scores[0]).max()
    assert_close(scores[1], scores[0], 1e-15)


def test_taylor_never_counts_batch_norm(torch_pruning):
    model, (x, y) = mlp(*SIZES, norm=True), data(12, 6, 4)
    backward(model, x, y)
    taylor = torch_pruning.importance.TaylorImportance
    norm = type(model[1])
    assert any(issubclass(norm, kind) for kind in taylor().target_types)
    scores = unit_scores(torch_pruning, model, taylor(normalizer=None, group_reduction="sum"), ["0"], x)["0"]
    without = by_unit(model, "0", lambda w, g: np.abs(w * g).sum()) + by_input(
        model, "3", lambda w, g: np.abs(w * g).sum()
    )
    gamma = np.abs((model[1].weight.detach() * model[1].weight.grad).numpy())
    assert gamma.max() > 0.1 * without.max()
    assert_close(scores, without, SINGLE)
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=x[:2])
    group = graph.get_pruning_group(model[0], torch_pruning.prune_linear_out_channels, list(range(10)))
    assert taylor(target_types=[norm])(group) is None


def test_taylor_sums_absolute_values_where_the_cited_paper_squares(torch_pruning):
    model, (x, y) = mlp(*SIZES), data(12, 6, 4)
    backward(model, x, y)
    taylor = torch_pruning.importance.TaylorImportance
    assert "CVPR_2019" in taylor.__mro__[1].__doc__
    assert "first-order taylor expansion" in taylor.__mro__[1].__doc__
    scores = unit_scores(torch_pruning, model, taylor(**first()), ["0"], x)["0"]
    assert_close(scores, by_unit(model, "0", lambda w, g: np.abs(w * g).sum()), SINGLE)
    paper = by_unit(model, "0", lambda w, g: ((w * g) ** 2).sum())
    assert np.argsort(scores).tolist() != np.argsort(paper).tolist()
    joint = unit_scores(torch_pruning, model, taylor(**first(multivariable=True)), ["0"], x)["0"]
    assert_close(joint, by_unit(model, "0", lambda w, g: abs((w * g).sum())), SINGLE)


def test_fpgm_measures_distances_of_elementwise_powers(torch_pruning):
    model, (x, _) = mlp(*SIZES), data(12, 6, 4)
    W = model[0].weight.detach().numpy()

    def distances(rows):
        return np.array([sum(np.sqrt(((a - b) ** 2).sum()) for b in rows) for a in rows])

    for p, taken in ((2, W**2), (1, np.abs(W))):
        importance = torch_pruning.importance.FPGMImportance(p=p, **first())
        scores = unit_scores(torch_pruning, model, importance, ["0"], x)["0"]
        assert_close(scores, distances(taken), SINGLE)
        assert np.argsort(scores).tolist() != np.argsort(distances(W)).tolist()
    assert torch_pruning.importance.FPGMImportance().p == 2


def test_the_group_l2_norm_is_a_mean_of_squares(torch_pruning):
    model, (x, y) = mlp(*SIZES), data(12, 6, 4)
    backward(model, x, y)
    magnitude = torch_pruning.importance.MagnitudeImportance
    assert "calculates the group L2-norm" in magnitude.__mro__[1].__doc__
    found = unit_scores(torch_pruning, model, magnitude(), LAYERS, x)
    after = {"0": "2", "2": "4"}
    squares = {
        name: by_unit(model, name, lambda w, _: (w**2).sum()) + by_input(model, after[name], lambda w, _: (w**2).sum())
        for name in LAYERS
    }
    for name in LAYERS:
        assert_close(found[name], squares[name] / squares[name].mean(), SINGLE)
    theirs = np.concatenate([found[name] for name in LAYERS])
    norms = np.concatenate([np.sqrt(squares[name]) / np.sqrt(squares[name]).mean() for name in LAYERS])
    assert np.argsort(theirs).tolist() != np.argsort(norms).tolist()


def cnn(torch):
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double().eval()


def test_reductions_max_and_prod_see_the_last_position_only_behind_flatten(torch, torch_pruning):
    model, x = cnn(torch), torch.zeros(2, 1, 6, 6).double()
    with torch.no_grad():
        model[3].weight[:, 0] = 9.0  # the first position of channel 0 weighs most of all
    own = (model[0].weight.detach().numpy() ** 2).sum(axis=(1, 2, 3))
    positions = (model[3].weight.detach().numpy() ** 2).sum(axis=0).reshape(3, 16)
    magnitude = torch_pruning.importance.MagnitudeImportance
    scores = {
        how: unit_scores(torch_pruning, model, magnitude(normalizer=None, group_reduction=how), ["0"], x)["0"]
        for how in ("sum", "max", "prod")
    }
    assert_close(scores["sum"], own + positions.sum(axis=1), SINGLE)
    assert_close(scores["max"], np.maximum(own, positions[:, -1]), SINGLE)
    assert_close(scores["prod"], own * positions[:, -1], SINGLE)
    assert scores["max"][0] < 1 < positions.max(axis=1)[0]


def test_the_docstrings_example_of_three_channels_raises(torch, torch_pruning):
    model, x = mlp(6, 10, 4), torch.zeros(2, 6).double()
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=x)
    group = graph.get_pruning_group(model[0], torch_pruning.prune_linear_out_channels, [2, 6, 9])
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    assert "1-D tensor with length 3 for channels [2, 6, 9]" in type(importance).__doc__
    with pytest.raises(RuntimeError, match="out of bounds"):
        importance(group)


def test_obdc_cannot_be_prepared_without_attention_nor_scored_with_biases(torch, torch_pruning):
    x, y = torch.randn(12, 6), torch.randint(0, 4, (12,))
    model = mlp(6, 10, 4).float()
    importance = torch_pruning.importance.OBDCImportance(num_classes=4)
    pruner = torch_pruning.pruner.BasePruner(model, x, importance, ignored_layers=[model[2]])
    with pytest.raises(TypeError, match="NoneType"):
        importance._prepare_model(model, pruner)
    importance.modules.append(model[0])
    model[0].register_forward_pre_hook(importance._save_input)
    model[0].register_full_backward_hook(importance._save_grad_output)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    importance.step()
    graph = torch_pruning.DependencyGraph().build_dependency(mlp(6, 10, 4).float(), example_inputs=x)
    assert graph is not None
    with pytest.raises(RuntimeError, match="must match the size"):
        unit_scores(torch_pruning, model, importance, ["0"], x)


def pruned_by_ratio(tp, model, x, ratio, **options):
    """Return which units BasePruner takes out of all but the last layer, by each layer's own squares."""
    names = [name for name, module in model.named_modules() if type(module).__name__ == "Linear"]
    pruned = copy.deepcopy(model)
    importance = tp.importance.MagnitudeImportance(**first())
    ignored = [pruned.get_submodule(names[-1])]
    pruner = tp.pruner.BasePruner(pruned, x[:2], importance, pruning_ratio=ratio, ignored_layers=ignored, **options)
    pruner.step()
    return pruned_units(model, pruned, names[:-1])


@pytest.mark.parametrize(("units", "ratio", "asked", "removed"), [
    (10, 0.9, 9, 0), (5, 0.8, 4, 0), (20, 0.9, 18, 19), (10, 0.8, 8, 9), (10, 0.7, 7, 7), (16, 0.35, 5, 6),
])  # fmt: skip
def test_the_number_removed_follows_the_rounding_of_one_minus_the_ratio(torch_pruning, units, ratio, asked, removed):
    gone = pruned_by_ratio(torch_pruning, mlp(6, units, 4), data(2, 6, 4)[0], ratio)["0"]
    assert int(units * ratio) == asked
    assert len(gone) == removed


def test_global_ranking_removes_nothing_where_it_would_take_a_whole_layer(torch, torch_pruning):
    readme = importlib.metadata.metadata("torch-pruning").get_payload()
    assert "overly pruning specific layers" in readme
    model, x = mlp(6, 10, 10, 4), data(2, 6, 4)[0]
    with torch.no_grad():
        model[0].weight *= 0.01
    assert not any(pruned_by_ratio(torch_pruning, model, x, 0.5, global_pruning=True).values())


def test_global_ranking_takes_all_ties(torch, torch_pruning):
    model, x = mlp(10, 10, 10, 4), data(2, 10, 4)[0]
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(1)
        model[0].weight[0], model[2].weight[3] = 2.0, 2.0
    gone = pruned_by_ratio(torch_pruning, model, x, 0.1, global_pruning=True)
    assert [len(units) for units in gone.values()] == [9, 9]


@pytest.mark.parametrize("scope", [{}, {"global_pruning": True}])
def test_max_pruning_ratio_does_not_bind_a_single_step(torch, torch_pruning, scope):
    assert "max_pruning_ratio (float): the maximum pruning ratio." in torch_pruning.pruner.BasePruner.__doc__
    model, x = mlp(6, 10, 10, 4), data(2, 6, 4)[0]
    with torch.no_grad():
        model[0].weight[:8] *= 0.01
    gone = pruned_by_ratio(torch_pruning, model, x, 0.4 if scope else 0.7, max_pruning_ratio=0.5, **scope)
    assert max(len(units) for units in gone.values()) > 5


def test_manual_prune_width_by_a_ratio_changes_the_declared_width_to_that_ratio_and_no_tensor(torch_pruning):
    model, x = mlp(6, 10, 4), data(2, 6, 4)[0]
    before, outputs = copy.deepcopy(model), model(x)
    pruner = torch_pruning.pruner.BasePruner(
        model, x, torch_pruning.importance.MagnitudeImportance(), ignored_layers=[model[2]]
    )
    assert "Either a pruning ratio (float)" in pruner.manual_prune_width.__doc__
    pruner.manual_prune_width(model[0], torch_pruning.prune_linear_out_channels, 0.2)
    assert model[0].out_features == 2  # of 10, where 0.2 of them should go
    assert [p.shape for p in model.parameters()] == [p.shape for p in before.parameters()]
    assert (model(x) == outputs).all()
    fresh = torch_pruning.pruner.BasePruner(
        before, x, torch_pruning.importance.MagnitudeImportance(), ignored_layers=[before[2]]
    )
    fresh.manual_prune_width(before[0], torch_pruning.prune_linear_out_channels, [0, 1])
    assert before[0].weight.shape == (8, 6)


def test_round_to_rounds_what_is_left_down_not_to_the_nearest(torch_pruning):
    assert "nearest multiple of round_to" in torch_pruning.pruner.BasePruner.__doc__
    gone = pruned_by_ratio(torch_pruning, mlp(6, 16, 4), data(2, 6, 4)[0], 0.1, round_to=8)["0"]
    assert len(gone) == 8  # 2 asked for, 14 left, and the nearest multiple of 8 would be 16
