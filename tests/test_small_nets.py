"""The small networks have the published sizes, and what training them returns is a stationary point."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import datasets, optimizers
from pruning import small_nets

SIZES = {"xor": 9, "parity": 21, "two-moons": 17, "monks-1": 58, "monks-2": 39, "monks-3": 39}


@pytest.mark.parametrize("name", small_nets.NAMES)
def test_every_small_net_has_its_size_and_is_trained_to_a_stationary_point(name):
    L = small_nets.objective(name, l2=1e-4)
    assert L.n_parameters == SIZES[name]
    for seed in range(3):
        found = small_nets.trained(L, seed)
        assert found.converged
        assert np.abs(L.gradient(found.w)).max() <= 1e-10
        assert found.value < L(np.zeros(L.n_parameters))
    again = small_nets.trained(L, 2)
    assert (again.w == found.w).all()
    assert (small_nets.trained(L, 0).w != found.w).any()


def test_too_much_decay_leaves_nothing_of_xor():
    L = small_nets.objective("xor", l2=1e-3)
    assert np.abs(small_nets.trained(L, 0).w).max() < 1e-10
    assert small_nets.trained(L, 0).value == pytest.approx(1 / 8), "the output ½ for every input"


def test_other_data_may_be_given_and_wrong_names_are_refused():
    L = small_nets.objective("monks-3", data=datasets.monks(3, seed=5))
    assert L.n_examples == 122
    with pytest.raises(ValueError, match="name: expected one of xor, parity, two-moons"):
        small_nets.objective("monks")
    with pytest.raises(ValueError, match="seed: expected an integer >= 0"):
        small_nets.trained(L, -1)


def test_stationary_keeps_masks_and_says_where_it_did_not_arrive():
    L = small_nets.objective("xor", l2=1e-3)
    mask = np.arange(9) % 3 > 0
    start = np.random.default_rng(0).standard_normal(9)
    found = optimizers.stationary(L, start, mask=mask)
    assert found.converged
    assert not found.w[~mask].any()
    assert np.abs(L.gradient(found.w)[mask]).max() <= 1e-10
    assert not optimizers.stationary(L, start, max_steps=1).converged
    nothing = optimizers.stationary(L, start, mask=np.zeros(9, bool))
    assert not nothing.w.any()
    assert nothing.steps == 0
