"""The blind implementations beside this project's criteria: the wrong ones differ, the right ones agree."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from minimal_nn import Linear, Network, Objective, ReLU, SoftmaxCrossEntropy, SquaredError, Tanh
from pruning import criteria, exact
from tests.oracle_exam.blind import BATCH, BLIND, CORRECT, OPTIONS, draw, mean_loss

SEEDS = range(8)  # twice each activation with each loss
CLAIMS = {name: getattr(criteria, name) for name in criteria.REGISTRY} | {"exact": exact.saliency}


def objective(net, loss, x, y, w):
    """Return the same network, loss and point here, where weights are (in, out)."""
    between = {"tanh": Tanh, "relu": ReLU}[net.activation]
    layers = [between() if i % 2 else Linear(*net.sizes[i // 2 : i // 2 + 2]) for i in range(2 * len(net.names) - 1)]
    network = Network(*layers)
    L = Objective(network, {"cross_entropy": SoftmaxCrossEntropy, "squared_error": SquaredError}[loss](), x, y)
    return L, network.layout.flatten({k: v.T for k, v in w.items()})


@cache
def drawn(seed):
    return draw(seed)


@cache
def expected(claim, seed):
    """Return the scores of the criterion of that name, in torch's layout."""
    L, w = objective(*drawn(seed))
    scores = CLAIMS[claim](L, w, **OPTIONS.get(claim, {}))
    return {k: v.T for k, v in L.network.layout.unflatten(scores).items()}


def scores_of(entry, seed):
    """Return an entry's scores for a draw, which must have every shape of w, be finite and leave w alone."""
    net, loss, x, y, w = drawn(seed)
    own = [{k: v.copy() for k, v in w.items()}, x.copy(), y.copy()]
    scores = entry.scores(net, loss, own[1], own[2], own[0])
    assert {k: v.shape for k, v in scores.items()} == {k: v.shape for k, v in w.items()}
    assert all(np.isfinite(v).all() for v in scores.values())
    assert all((own[0][k] == w[k]).all() for k in w)
    assert (own[1] == x).all()
    assert (own[2] == y).all()
    return scores


def error(scores, reference):
    """Return max |a − b| / max |b| over all tensors."""
    size = max(abs(v).max() for v in reference.values())
    return max(abs(scores[k] - reference[k]).max() for k in reference) / size


def identify(entry):
    return entry.name


def test_the_registries_are_large_enough_and_say_what_they_hold():
    assert len(BLIND) >= 30
    assert len(CORRECT) >= 12
    assert len({e.name for e in BLIND + CORRECT}) == len(BLIND) + len(CORRECT)
    assert {e.claim for e in BLIND} == {e.claim for e in CORRECT} <= set(CLAIMS)
    assert all(e.slip and e.truth for e in BLIND)
    assert all(e.how and 0 < e.tolerance <= 1e-4 for e in CORRECT)


def test_draws_hold_every_activation_with_every_loss_and_a_short_batch():
    kinds = {(drawn(seed)[0].activation, drawn(seed)[1]) for seed in SEEDS}
    assert len(kinds) == 4
    assert all(len(drawn(seed)[2]) % BATCH for seed in SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_blind_loss_is_the_objective(seed):
    L, w = objective(*drawn(seed))
    assert mean_loss(*drawn(seed)) == pytest.approx(L(w), rel=1e-13)


@pytest.mark.parametrize("entry", BLIND, ids=identify)
def test_wrong_ones_differ_from_the_criterion(entry):
    assert max(error(scores_of(entry, seed), expected(entry.claim, seed)) for seed in SEEDS) > 1e-3


@pytest.mark.parametrize("entry", CORRECT, ids=identify)
def test_right_ones_agree_with_the_criterion(entry):
    for seed in SEEDS:
        assert error(scores_of(entry, seed), expected(entry.claim, seed)) <= entry.tolerance


#: what wrong ones compute, where another criterion or a multiple of one says it: (criterion, factor of N and C)
TRUTHS = {
    "taylor_mean_of_mean": ("taylor", lambda N, C: 1 / N),
    "taylor_signed_reversed": ("taylor_signed", lambda N, C: -1),
    "taylor_signed_sum": ("taylor_signed", lambda N, C: N),
    "taylor_squared_of_shares": ("taylor_squared", lambda N, C: 1 / N**2),
    "obd_without_half": ("obd", lambda N, C: 2),
    "obd_by_inverse": ("obs", lambda N, C: 1),
    "obd_of_sum": ("obd", lambda N, C: N),
    "obs_without_half": ("obs", lambda N, C: 2),
    "fisher_with_labels": ("fisher_empirical", lambda N, C: 1),
    "fisher_without_half": ("fisher", lambda N, C: 2),
    "fisher_empirical_without_half": ("taylor_squared", lambda N, C: 1),
    "fisher_empirical_sum": ("fisher_empirical", lambda N, C: N),
    "snip_unnormalised": ("taylor", lambda N, C: 1),
    "grasp_reversed": ("grasp", lambda N, C: -1),
    "grasp_doubled": ("grasp", lambda N, C: 2),
    "synflow_batch_of_ones": ("synflow", lambda N, C: N),
    "synflow_mean_output": ("synflow", lambda N, C: 1 / C),
    "wanda_mean_square": ("wanda", lambda N, C: 1 / np.sqrt(N)),
    "exact_reversed": ("exact", lambda N, C: -1),
    "exact_sum": ("exact", lambda N, C: N),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_wrong_ones_compute_what_they_are_said_to(name):
    entry = next(e for e in BLIND if e.name == name)
    criterion, factor = TRUTHS[name]
    for seed in SEEDS:
        net, _, x, *_ = drawn(seed)
        truth = {k: v * factor(len(x), net.sizes[-1]) for k, v in expected(criterion, seed).items()}
        assert error(scores_of(entry, seed), truth) < 1e-8


#: wrong in scale or by a constant alone: in every network the order of the weights is the criterion's
IN_ORDER = [e for e in BLIND if "the order is right" in e.truth]


@pytest.mark.parametrize("entry", IN_ORDER, ids=identify)
def test_truths_that_promise_the_right_order_keep_it(entry):
    for seed in SEEDS:
        a, b = scores_of(entry, seed), expected(entry.claim, seed)
        values = np.concatenate([a[k].ravel() for k in b])[np.argsort(np.concatenate([v.ravel() for v in b.values()]))]
        assert (np.diff(values) >= -1e-12 * abs(values).max()).all()


#: part of a truth -> the draws for which it promises that the slip changes nothing
HARMLESS = {
    "right for squared error": lambda net, loss: loss == "squared_error",
    "right for ReLU": lambda net, loss: net.activation == "relu",
}


@pytest.mark.parametrize("words", HARMLESS)
def test_slips_change_nothing_where_their_truth_says_so(words):
    entries = [e for e in BLIND if words in e.truth]
    seeds = [seed for seed in SEEDS if HARMLESS[words](*drawn(seed)[:2])]
    assert entries
    assert seeds
    for entry in entries:
        for seed in seeds:
            assert error(scores_of(entry, seed), expected(entry.claim, seed)) < 1e-8
