"""Optimisers reach the minimum, rules take the steps of their papers, and the training loop keeps its mask."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import Linear, Network, Objective, SoftmaxCrossEntropy, SquaredError, Tanh, curvature, optimizers, train
from tests.cases import assert_close, make_case

QUADRATIC = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
DEEP = make_case("deep", Linear(4, 6), Tanh(), Linear(6, 3), n=30, l2=0.05)
MINIMISERS = [optimizers.lbfgs, optimizers.newton_cg, optimizers.newton]


@pytest.mark.parametrize("minimise", MINIMISERS)
def test_minimisers_solve_a_quadratic_as_linear_algebra_does(minimise):
    L, w = QUADRATIC.L, QUADRATIC.w
    found = minimise(L, w)
    solution = w - np.linalg.solve(curvature.hessian(L, w), L.gradient(w))
    assert found.converged
    assert_close(found.w, solution, 1e-6)


@pytest.mark.parametrize("minimise", [optimizers.lbfgs, optimizers.newton_cg])
def test_minimisers_then_newton_reach_a_stationary_point_to_the_last_digits(minimise):
    rough = minimise(DEEP.L, DEEP.w, tolerance=1e-6)
    assert rough.converged
    assert rough.value < DEEP.L(DEEP.w)
    polished = optimizers.newton(DEEP.L, rough.w)
    assert polished.converged
    assert polished.gradient_norm < 1e-13
    assert polished.gradient_norm == np.abs(DEEP.L.gradient(polished.w)).max()
    assert np.linalg.eigvalsh(curvature.hessian(DEEP.L, polished.w))[0] > 0


@pytest.mark.parametrize("minimise", MINIMISERS)
def test_minimisers_keep_a_mask(minimise):
    L, w = QUADRATIC.L, QUADRATIC.w
    mask = np.arange(len(w)) % 3 > 0
    found = minimise(L, w, mask=mask)
    assert not found.w[~mask].any()
    assert np.abs(L.gradient(found.w)[mask]).max() < 1e-6
    assert np.abs(L.gradient(found.w)[~mask]).max() > 1e-3


def test_newton_refuses_a_point_where_the_hessian_is_not_positive_definite():
    L = Objective(DEEP.L.network, DEEP.L.loss, DEEP.L.x, DEEP.L.y)
    with pytest.raises(ValueError, match="w: the Hessian is not positive definite"):
        optimizers.newton(L, DEEP.w)


def test_sgd_and_momentum_take_their_steps():
    w, g = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    sgd = optimizers.sgd(0.1)
    assert sgd.step(w, g, sgd.start(w))[0].tolist() == [0.95, 2.1]
    heavy = optimizers.momentum(0.1, 0.5)
    w1, u = heavy.step(w, g, heavy.start(w))
    w2, _ = heavy.step(w1, g, u)
    assert_close(w1, [0.95, 2.1])
    assert_close(w2, [0.95 - 0.1 * 0.75, 2.1 + 0.1 * 1.5])


def test_adam_follows_algorithm_1_of_its_paper():
    rng = np.random.default_rng(0)
    w = rng.standard_normal(5)
    ours, rule = w, optimizers.adam(0.01)
    state = rule.start(w)
    m, u, by_hand = np.zeros(5), np.zeros(5), w.copy()
    for t in range(1, 8):
        g = rng.standard_normal(5)
        ours, state = rule.step(ours, g, state)
        for j in range(5):
            m[j] = 0.9 * m[j] + 0.1 * g[j]
            u[j] = 0.999 * u[j] + 0.001 * g[j] ** 2
            by_hand[j] -= 0.01 * (m[j] / (1 - 0.9**t)) / ((u[j] / (1 - 0.999**t)) ** 0.5 + 1e-8)
    assert_close(ours, by_hand)


@pytest.mark.parametrize(
    "rule", [optimizers.sgd(0.5), optimizers.momentum(0.1), optimizers.adam(0.05)], ids=lambda r: r.name
)
@pytest.mark.parametrize("batch_size", [None, 7])
def test_training_lowers_the_loss_and_keeps_the_mask(rule, batch_size):
    mask = np.arange(len(DEEP.w)) % 4 > 0
    result = train(
        DEEP.L, DEEP.w, rule, 200, batch_size=batch_size, rng=np.random.default_rng(0), mask=mask, progress=False
    )
    assert DEEP.L(result.w) < 0.8 * DEEP.L(DEEP.w * mask)
    assert not result.w[~mask].any()
    assert result.history.shape == (200,)
    if batch_size is None:
        assert result.history[0] == DEEP.L(DEEP.w * mask)


def test_each_epoch_sees_every_example_once():
    L = Objective(Network(Linear(1, 1, bias=False)), SquaredError(), np.arange(6.0)[:, None], np.zeros((6, 1)))
    result = train(L, np.ones(1), optimizers.sgd(0.0), 4, batch_size=3, rng=np.random.default_rng(0), progress=False)
    whole = (np.arange(6.0) ** 2).sum() / 2
    assert result.history[:2].sum() * 3 == pytest.approx(whole)
    assert result.history[2:].sum() * 3 == pytest.approx(whole)


def test_training_stays_in_float32_and_draws_a_bar_only_on_a_terminal(capsys):
    result = train(DEEP.L, DEEP.w.astype(np.float32), optimizers.adam(), 3)
    assert result.w.dtype == np.float32
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps: expected an integer >= 0"),
        ({"batch_size": 31, "rng": np.random.default_rng(0)}, "batch_size: expected an integer >= 1 <= 30, got 31"),
        ({"batch_size": 5}, "rng: expected a numpy.random.Generator"),
        ({"mask": np.ones(3, bool)}, "mask: expected shape"),
        ({"mask": np.ones(51)}, "mask: expected dtype bool"),
    ],
)
def test_training_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        train(DEEP.L, DEEP.w, optimizers.sgd(0.1), **{"steps": 1} | options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.sgd(-1),
        lambda: optimizers.momentum(0.1, 2),
        lambda: optimizers.adam(beta2=1.0),
        lambda: optimizers.adam(epsilon=np.nan),
    ],
)
def test_rules_refuse_wrong_rates(make):
    with pytest.raises(ValueError, match="expected a finite number in"):
        make()


@pytest.mark.parametrize("minimise", [*MINIMISERS, optimizers.stationary])
def test_minimisers_refuse_limits_that_are_none_and_take_no_steps_when_asked_for_none(minimise):
    L, w = QUADRATIC.L, QUADRATIC.w
    for tolerance in (-1e-9, np.nan, "1e-9"):
        with pytest.raises(ValueError, match="tolerance: expected a finite number in"):
            minimise(L, w, tolerance=tolerance)
    for max_steps in (-1, 2.5):
        with pytest.raises(ValueError, match="max_steps: expected an integer >= 0"):
            minimise(L, w, max_steps=max_steps)
    found = minimise(L, w, max_steps=0)
    assert (found.w == w).all()
    assert found.steps == 0
    assert not found.converged


def test_softmax_training_is_the_same_whichever_way_the_labels_come():
    one_hot = Objective(DEEP.L.network, SoftmaxCrossEntropy(), DEEP.L.x, np.eye(3)[DEEP.L.y], l2=0.05)
    a, b = (train(L, DEEP.w, optimizers.sgd(0.1), 20, progress=False).w for L in (DEEP.L, one_hot))
    assert_close(a, b)


def test_training_that_diverges_is_an_error():
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="not finite"):
        train(QUADRATIC.L, QUADRATIC.w, optimizers.sgd(1e3), 300, progress=False)
