"""torch.ao.pruning, still in torch 2.13, and torchao.prototype.sparsity, which holds a copy of it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interop.audit.subjects import audited, mlp

PLACES = ("torch.ao.pruning", "torchao.prototype.sparsity")


@pytest.fixture(params=PLACES)
def place(request, torch):
    if request.param.startswith("torchao"):
        request.getfixturevalue("torchao")
        return audited("torchao", request.param)
    return audited("torch", request.param)


@pytest.fixture
def structured(place):
    where = "torch.ao.pruning._experimental.pruner" if place.__name__.startswith("torch.") else None
    return audited("torch", where) if where else audited("torchao", "torchao.prototype.sparsity.pruner")


def mask_after(sparsifier, model, steps=1, **config):
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"} | config])
    for _ in range(steps):
        sparsifier.step()
    return model[0].parametrizations.weight[0].mask.detach().numpy()


def layer(torch, weight):
    model = torch.nn.Sequential(torch.nn.Linear(weight.shape[1], weight.shape[0]))
    model[0].weight.data = torch.as_tensor(weight)
    return model


def drawn(*shape):
    return np.random.default_rng(0).normal(size=shape)


# agreement


@pytest.mark.parametrize(("rows", "columns"), [(1, 4), (2, 2), (1, 1)])
@pytest.mark.parametrize("norm", [1, 2])
def test_weight_norm_zeroes_the_blocks_of_lowest_norm_where_blocks_are_whole(place, torch, rows, columns, norm):
    W = drawn(4, 8)
    blocks = {
        (i, j): np.linalg.norm(W[i : i + rows, j : j + columns].ravel(), norm)
        for i in range(0, 4, rows)
        for j in range(0, 8, columns)
    }
    ours = np.ones_like(W)
    for i, j in sorted(blocks, key=blocks.get)[: len(blocks) // 2]:
        ours[i : i + rows, j : j + columns] = 0
    sparsifier = place.WeightNormSparsifier(sparsity_level=0.5, sparse_block_shape=(rows, columns), norm=norm)
    np.testing.assert_array_equal(mask_after(sparsifier, layer(torch, W)), ours)


def test_zeros_per_block_takes_the_smallest_within_the_lowest_blocks(place, torch):
    W = drawn(4, 8)
    norms = (W.reshape(4, 2, 4) ** 2).sum(axis=2)
    ours = np.ones((8, 4))
    for block in np.argsort(norms.ravel())[:4]:
        ours[block, np.argsort(np.abs(W.reshape(8, 4)[block]))[:2]] = 0
    found = mask_after(place.WeightNormSparsifier(0.5, (1, 4), zeros_per_block=2), layer(torch, W))
    np.testing.assert_array_equal(found, ours.reshape(4, 8))


def test_a_second_step_of_weight_norm_removes_no_more(place, torch):
    masks = [mask_after(place.WeightNormSparsifier(0.5), layer(torch, drawn(4, 8)), steps) for steps in (1, 2)]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize(("shape", "nearliness"), [((4, 4), 1), ((4, 4), 3), ((4, 4), 5), ((6, 3), 3)])
def test_nearly_diagonal_keeps_the_diagonals_within_half_the_degree(place, torch, shape, nearliness):
    found = mask_after(place.NearlyDiagonalSparsifier(nearliness), layer(torch, drawn(*shape)))
    i, j = np.indices(shape)
    np.testing.assert_array_equal(found, np.abs(i - j) <= nearliness // 2)


def test_fpgm_pruner_removes_the_filters_nearest_to_all_others(structured, torch):
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 8, 3), torch.nn.ReLU()).double()
    rows = model[0].weight.detach().numpy().reshape(8, -1)
    distances = np.array([sum(np.linalg.norm(a - b) for b in rows) for a in rows])
    kept = mask_after(structured.FPGMPruner(0.5), model)
    assert sorted(np.flatnonzero(~kept).tolist()) == sorted(np.argsort(distances)[:4].tolist())


def test_saliency_pruner_removes_the_rows_of_lowest_l1_norm(structured, torch):
    model = mlp(6, 7, 3)
    norms = np.abs(model[0].weight.detach().numpy()).sum(axis=1)
    kept = mask_after(structured.SaliencyPruner({}), model, sparsity_level=0.5)
    assert sorted(np.flatnonzero(~kept).tolist()) == sorted(np.argsort(norms)[:3].tolist())


# choices


def test_the_number_of_blocks_is_rounded_half_to_even_and_one_always_stays(place, torch):
    for columns, sparsity, removed in ((5, 0.5, 2), (8, 0.9, 7), (4, 0.99, 3)):
        sparsifier = place.WeightNormSparsifier(sparsity, (1, 1))
        assert (mask_after(sparsifier, layer(torch, drawn(1, columns))) == 0).sum() == removed


# deviations


def test_weight_norm_takes_the_mean_of_squares_so_that_blocks_at_the_edge_count_too_much(place, torch):
    assert "computes the norm of every sparse block" in place.WeightNormSparsifier.__doc__
    W = np.array([[0.5, 0.5, 0.5, 0.5, 0.6]])  # blocks of norms 1 and 0.6, means of squares 0.25 and 0.36
    found = mask_after(place.WeightNormSparsifier(0.5, (1, 4)), layer(torch, W))
    np.testing.assert_array_equal(found, [[0, 0, 0, 0, 1]])


def test_zeros_per_block_leaves_a_mask_of_the_wrong_shape_where_blocks_do_not_fit(place, torch):
    model = layer(torch, drawn(4, 7))
    found = mask_after(place.WeightNormSparsifier(1.0, (1, 4), zeros_per_block=2), model)
    assert found.shape == (4, 8)
    with pytest.raises(AssertionError):  # of the mask's shape, in the parametrization
        model(torch.zeros(1, 7).double())


def test_nearliness_larger_than_the_matrix_passes_its_check(place, torch):
    found = mask_after(place.NearlyDiagonalSparsifier(5), layer(torch, drawn(3, 3)))
    np.testing.assert_array_equal(found, np.ones((3, 3)))
    with pytest.raises(ValueError, match="nearliness cannot be larger than the dimensions"):
        mask_after(place.NearlyDiagonalSparsifier(7), layer(torch, drawn(3, 3)))


def test_fpgm_pruners_docstring_names_a_default_that_is_refused(structured):
    assert "Default: 3 (L2 distance)" in structured.FPGMPruner.__doc__
    with pytest.raises(NotImplementedError):
        structured.FPGMPruner(dist=3)
