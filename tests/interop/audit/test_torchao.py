"""torchao.sparsity: Wanda's metric, scope and counts, supermasks and N:M masks."""

from __future__ import annotations

import numpy as np
import pytest

from pruning import masks
from tests.interop.audit.subjects import audited, data, mlp, tiny


@pytest.fixture(scope="module")
def wanda(torchao):
    return audited("torchao", "torchao.sparsity").WandaSparsifier


def prepared(wanda, model, *batches, sparsity=0.5, **options):
    """Return a sparsifier that has seen these batches."""
    sparsifier = wanda(sparsity, **options)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    for x in batches:
        model(x)
    return sparsifier


def mask_of(model):
    return model[0].parametrizations.weight[0].mask.detach().numpy()


def lowest(scores, sparsity, by_row=False):
    groups = np.indices(scores.shape)[0].ravel() if by_row else None
    return masks.smallest(scores.ravel(), sparsity, groups=groups).reshape(scores.shape)


def metric(model, x, power):
    """Return |W| ‖X‖₂^power."""
    return np.abs(model[0].weight.detach().numpy()) * np.linalg.norm(x.numpy(), axis=0) ** power


# agreement


def test_wanda_sees_the_layers_inputs_whatever_the_batches_and_their_order(wanda):
    x, _ = data(12, 6, 4)
    ours = (x.numpy() ** 2).sum(axis=0)
    for batches in ([x], [x[:5], x[5:]], [x[5:], x[:5]], [x.flip(0)]):
        model = mlp(6, 5, 4)
        prepared(wanda, model, *batches)
        np.testing.assert_allclose(
            model[0].activation_post_process.norm.numpy(), ours, rtol=1e-6
        )  # float32, whatever the model


def test_wanda_semi_structured_removes_two_of_every_four(wanda):
    x, _ = data(12, 8, 4)
    model = mlp(8, 5, 4)
    scores = metric(model, x, 2)
    with pytest.warns(UserWarning, match="fixed to 50%"):
        sparsifier = prepared(wanda, model, x, semi_structured_block_size=4)
    sparsifier.step()
    ours = lowest(scores.reshape(-1, 4), 0.5, by_row=True).reshape(scores.shape)
    np.testing.assert_array_equal(mask_of(model), ours)


# choices


def test_wanda_compares_across_the_layer_where_the_paper_compares_within_each_output(wanda):
    assert "across the whole current layer" in wanda.update_mask.__doc__
    x, _ = data(12, 6, 4)
    model = mlp(6, 5, 4)
    scores = metric(model, x, 2)
    prepared(wanda, model, x).step()
    np.testing.assert_array_equal(mask_of(model), lowest(scores, 0.5))
    assert (mask_of(model) != lowest(scores, 0.5, by_row=True)).any()


def test_wanda_rounds_the_number_removed_down(wanda):
    x, _ = data(12, 6, 4)
    model = mlp(6, 5, 4)
    prepared(wanda, model, x, sparsity=0.39).step()
    assert (mask_of(model) == 0).sum() == 11  # 0.39 of 30 is 11.7


# deviations


def test_wanda_multiplies_by_the_square_of_the_norm(wanda):
    observer = audited("torchao", "torchao.sparsity.utils").PerChannelNormObserver
    assert "computes the L2 norm of each channel" in observer.__doc__
    assert "product\n    of the input activation norm and the weight magnitude" in wanda.__doc__
    x, _ = data(12, 6, 4)
    model = mlp(6, 5, 4)
    said, squared = (lowest(metric(model, x, power), 0.5) for power in (1, 2))
    prepared(wanda, model, x).step()
    np.testing.assert_array_equal(mask_of(model), squared)
    assert (squared != said).any()


def test_the_oracle_misses_the_square_root(wanda):
    model, x, _, case = tiny()
    weight = case.parameters["0.weight"]
    prepared(wanda, model, x)
    theirs = np.abs(weight) * model[0].activation_post_process.norm.numpy()
    diagnosis = case.diagnose({"0.weight": theirs}, claims="wanda", batch_size=5)
    assert not diagnosis.matches
    assert any("square root missing" in str(one) for one in (diagnosis.best, *diagnosis.others)), str(diagnosis)


def test_a_second_step_of_wanda_adds_to_the_first_mask(wanda, torch):
    x, _ = data(12, 6, 4)
    other = x * torch.tensor([30, 1, 0.1, 1, 1, 1])
    model, fresh = mlp(6, 5, 4), mlp(6, 5, 4)
    sparsifier = prepared(wanda, model, x)
    sparsifier.step()
    first = mask_of(model).copy()
    model(other)
    sparsifier.step()
    prepared(wanda, fresh, x, other).step()
    np.testing.assert_array_equal(mask_of(model), first * mask_of(fresh))
    assert (mask_of(fresh) == 0).sum() == 15 < (mask_of(model) == 0).sum()


def test_supermask_raises_where_it_should_reduce_the_sparsity(torchao):
    supermask = audited("torchao", "torchao.sparsity.supermask").SupermaskLinear
    with pytest.raises(AttributeError, match="sparsity"):
        supermask(0.99, 1, False, False, 5, 2)


@pytest.mark.parametrize(("n", "sparsity", "asked", "removed"), [(10, 0.5, 5, 4), (10, 0.9, 9, 8), (20, 0.9, 18, 17)])
def test_supermask_removes_a_share_of_all_but_one(torchao, n, sparsity, asked, removed):
    supermask = audited("torchao", "torchao.sparsity.supermask").SupermaskLinear
    assert round(n * sparsity) == asked
    mask = supermask(sparsity, 1, False, False, n, 1).get_mask()
    assert int((mask == 0).sum()) == removed == round(sparsity * (n - 1))


def test_mask_creator_keeps_n_though_its_docstring_also_says_that_n_are_pruned(torchao, torch):
    create = audited("torchao", "torchao.sparsity.utils").mask_creator
    said = " ".join(create.__doc__.split())
    assert "N will be pruned" in said
    assert "N: The number of weights in a group to keep" in said
    assert create(torch.arange(1.0, 9).view(1, 8), N=1, M=4).tolist() == [[0, 0, 0, 1, 0, 0, 0, 1]]
