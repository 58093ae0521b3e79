"""Criteria that judge a layer by its own output, or the paths through it: beside plain loops and linear systems."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimal_nn import Conv2d, Flatten, Linear, Network, Objective, ReLU, SquaredError, Tanh, differences, memory
from minimal_nn.curvature.products import products
from pruning import criteria
from tests import plain
from tests.cases import CASES, assert_close, identify, make_case

SMALL = [case for case in CASES if len(case.w) <= 130]
each_small = pytest.mark.parametrize("case", SMALL, ids=identify)


def layers_of(case):
    """Yield (name, layer, its input for every example) of each Linear and Conv2d, found by plain loops."""
    named = case.L.network.layout.unflatten(case.w)

    def visit(layers, prefix, xs):
        for i, layer in enumerate(layers):
            name = f"{prefix}{i}."
            own = {key.removeprefix(name): value for key, value in named.items() if key.startswith(name)}
            if type(layer).__name__ in ("Linear", "Conv2d"):
                yield name, layer, xs
            if type(layer).__name__ == "Residual":
                yield from visit(layer.layers, name, xs)
            xs = [plain.one_layer(layer, own, x) for x in xs]

    yield from visit(case.L.network.layers, "", list(case.L.x))


def responses(layer, xs):
    """Yield, for each weight into output 0, its key and the layer's output 0 (N·positions,) with it 1, all others 0."""
    shapes = layer.parameter_shapes()
    for name, shape in shapes.items():
        for at in np.ndindex(*shape):
            output = at[0] if name == "bias" else at[1]
            if output:
                continue
            p = {key: np.zeros(s) for key, s in shapes.items()}
            p[name][at] = 1
            yield name, at, np.concatenate([np.ravel(plain.one_layer(layer, p, x)[0]) for x in xs])


def at_output(name, at, o):
    return (o,) if name == "bias" else (at[0], o, *at[2:])


@each_small
def test_wanda_squared_is_the_error_of_that_deletion_in_the_layers_output(case):
    scores = case.L.network.layout.unflatten(criteria.wanda(case.L, case.w))
    named, judged = case.L.network.layout.unflatten(case.w), set()
    for prefix, layer, xs in layers_of(case):
        for name, at, response in responses(layer, xs):
            for o in range(layer.outputs):
                where = at_output(name, at, o)
                error = np.sum((response * named[prefix + name][where]) ** 2)
                assert scores[prefix + name][where] ** 2 == pytest.approx(error, rel=1e-12, abs=1e-13)
        judged |= {prefix + name for name in layer.parameter_shapes()}
    for name, own in scores.items():
        assert name in judged or (own == np.inf).all(), "no criterion of a layer's output says anything of BatchNorm"


@each_small
@pytest.mark.parametrize("share", [1.0, 0.6])
def test_obs_layerwise_is_the_least_error_of_the_layer_with_that_weight_gone(case, share):
    damping = 0.1
    active = np.random.default_rng(0).random(len(case.w)) < share
    scores = case.L.network.layout.unflatten(criteria.obs_layerwise(case.L, case.w, active=active, damping=damping))
    # the inputs of a layer are those of the network that is left
    left = make_left(case, active)
    named, present = (case.L.network.layout.unflatten(v) for v in (left.w, active))
    for prefix, layer, xs in layers_of(left):
        keys, columns = [], []
        for name, at, response in responses(layer, xs):
            keys.append((name, at))
            columns.append(response)
        X = np.array(columns).T
        gram = X.T @ X / case.L.n_examples + damping * np.eye(X.shape[1])
        for o in range(layer.outputs):
            here = [present[prefix + name][at_output(name, at, o)] for name, at in keys]
            for i in np.flatnonzero(here):
                rest = [k for k in np.flatnonzero(here) if k != i]
                w = named[prefix + keys[i][0]][at_output(*keys[i], o)]
                pull = gram[np.ix_(rest, [i])][:, 0] * w
                least = 0.5 * (gram[i, i] * w * w - pull @ np.linalg.solve(gram[np.ix_(rest, rest)], pull))
                found = scores[prefix + keys[i][0]][at_output(*keys[i], o)]
                assert found == pytest.approx(least, rel=1e-9, abs=1e-12)


def make_left(case, active):
    return type(case)(case.name, case.L, case.w * active)


def test_obs_layerwise_is_obs_where_the_layer_is_the_network_and_the_loss_its_squared_error():
    case = make_case("one layer", Linear(4, 3), loss=SquaredError(), n=20)
    assert_close(criteria.obs_layerwise(case.L, case.w), criteria.obs(case.L, case.w), 1e-10)


WITHOUT_MAXIMUM = [case for case in SMALL if "MaxPool" not in repr(case.L.network)]


@pytest.mark.parametrize("case", WITHOUT_MAXIMUM, ids=identify)
def test_synflow_is_what_each_weight_alone_takes_away_from_the_flow(case):
    """R is linear in every single weight, so that |w ∂R/∂w| = R − R(w_j = 0), computed by plain loops."""
    network = case.L.network

    def flow(w):
        named = {
            name: np.abs(v) * (not name.endswith(("bias", "beta"))) for name, v in network.layout.unflatten(w).items()
        }
        return plain.forward([_linear(layer) for layer in network.layers], named, np.ones(case.L.x.shape[1:])).sum()

    R, scores = flow(case.w), criteria.synflow(case.L, case.w)
    alone = np.array([R - flow(np.where(np.arange(len(case.w)) == j, 0, case.w)) for j in range(len(case.w))])
    assert_close(scores, alone, scale=R)


def _linear(layer):
    from minimal_nn import BatchNorm, Identity, Residual
    from minimal_nn.layers import Activation

    if isinstance(layer, Activation):
        return Identity()
    if isinstance(layer, Residual):
        return Residual(*map(_linear, layer.layers))
    if isinstance(layer, BatchNorm):
        return BatchNorm(layer.channels, variance=layer.variance, epsilon=layer.epsilon)
    return layer


@given(seed=st.integers(0, 10_000))
@settings(max_examples=40)
def test_synflow_is_conserved_by_every_unit_and_every_layer_of_a_chain(seed):
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 6, rng.integers(2, 6))
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (Linear(int(a), int(b)), Tanh())][:-1]
    case = make_case("flow", *layers, loss=SquaredError(), n=2, seed=seed)
    scores = case.L.network.layout.unflatten(criteria.synflow(case.L, case.w))
    layered = [own for name, own in scores.items() if name.endswith("weight")]
    R = layered[0].sum()
    for own in layered:
        assert own.sum() == pytest.approx(R, rel=1e-12)
    for into, out in itertools.pairwise(layered):
        assert_close(into.sum(axis=0), out.sum(axis=1))
    assert all((own == 0).all() for name, own in scores.items() if name.endswith("bias"))


def test_synflow_by_hand_is_a_sum_over_paths():
    net = Network(Linear(2, 2), ReLU(), Linear(2, 1))
    L = Objective(net, SquaredError(), np.array([[1.0, 0], [0, 1], [1, 1], [2, 1]]), np.zeros((4, 1)))
    w = net.layout.flatten({"0.weight": np.array([[1.0, -2], [3, 1]]), "0.bias": np.ones(2),
                            "2.weight": np.array([[2.0], [-1]]), "2.bias": np.ones(1)})  # fmt: skip
    assert criteria.synflow(L, w).tolist() == [2, 2, 6, 1, 0, 0, 8, 3, 0]
    without = np.array([True] * 6 + [False, True, True])
    assert criteria.synflow(L, w, active=without)[:4].tolist() == [0, 2, 0, 1], "no path goes through what is gone"


def test_synflow_needs_no_data_and_says_where_it_overflows():
    case = make_case("flow", Linear(4, 5), Tanh(), Linear(5, 3))
    other = case.L.subset([0, 1])
    assert (criteria.synflow(other, case.w) == criteria.synflow(case.L, case.w)).all()
    with pytest.raises(FloatingPointError, match="synflow: R overflows float64"):
        criteria.synflow(case.L, case.w * 1e200)


def model(L, w, removed):
    """The second-order model of removing a set, from the complex step."""
    g, H = differences.complex_step_gradient(L, w), differences.complex_step_hessian(L, w)
    S = list(removed)
    return -g[S] @ w[S] + 0.5 * w[S] @ H[np.ix_(S, S)] @ w[S]


@given(seed=st.integers(0, 1000), k=st.integers(0, 9))
@settings(max_examples=25)
def test_no_exchange_improves_the_combinatorial_set(seed, k):
    case = make_case("sets", Linear(2, 2), Tanh(), Linear(2, 1), loss=SquaredError(), n=6, seed=seed)
    L, w = case.L, case.w
    mask = criteria.combinatorial(L, w, k)
    inside, outside = np.flatnonzero(~mask), np.flatnonzero(mask)
    assert len(inside) == k
    here = model(L, w, inside)
    for i, j in itertools.product(inside, outside):
        assert model(L, w, [*(a for a in inside if a != i), j]) >= here - 1e-12


def test_combinatorial_finds_the_best_set_that_one_by_one_misses():
    """x = (2, 2, −3, 1), w = 1: the errors of the second and the third weight nearly cancel."""
    x = np.array([[2.0, 2, -3, 1]])
    L = Objective(Network(Linear(4, 1, bias=False)), SquaredError(), x, x.sum(axis=1, keepdims=True))
    w = np.ones(4)
    assert np.flatnonzero(~criteria.combinatorial(L, w, 2)).tolist() == [0, 2]
    assert np.flatnonzero(~criteria.combinatorial(L, w, 2, swaps=0)).tolist() == [2, 3], "greedy: ½, then 2"
    costs = {S: model(L, w, S) for S in itertools.combinations(range(4), 2)}
    assert min(costs.values()) == costs[0, 2] == costs[1, 2] == 0.5


def test_combinatorial_is_the_best_set_on_most_small_problems_and_never_worse_than_without_swaps():
    found = {0: 0, 10_000: 0}
    for seed in range(30):
        case = make_case("best", Linear(2, 2), Tanh(), Linear(2, 1), loss=SquaredError(), n=6, seed=seed)
        sets = {S: model(case.L, case.w, S) for S in itertools.combinations(range(len(case.w)), 4)}
        values = {}
        for swaps in found:
            removed = tuple(np.flatnonzero(~criteria.combinatorial(case.L, case.w, 4, swaps=swaps)).tolist())
            values[swaps] = sets[removed]
            found[swaps] += sets[removed] <= min(sets.values()) + 1e-12
        assert values[10_000] <= values[0] + 1e-12
    assert found[10_000] > found[0], "swaps find the best set more often than greed alone"
    assert found[10_000] > 15


def test_combinatorial_respects_what_is_active_and_refuses_a_wrong_k():
    case = CASES[0]
    active = np.arange(len(case.w)) % 2 > 0
    mask = criteria.combinatorial(case.L, case.w, 5, active=active)
    assert not mask[~active].any()
    assert mask.sum() == active.sum() - 5
    weights = case.L.network.layout.select("weight")
    among = criteria.combinatorial(case.L, case.w, 5, among=weights, active=active)
    assert np.flatnonzero(among != active).size == 5
    assert weights[among != active].all()
    assert (criteria.combinatorial(case.L, case.w, int(weights.sum()), among=weights) == ~weights).all()
    assert criteria.combinatorial(case.L, case.w, 0).all()
    assert not criteria.combinatorial(case.L, case.w, len(case.w)).any()
    with pytest.raises(ValueError, match=rf"k: expected an integer >= 0 <= {active.sum()}, got"):
        criteria.combinatorial(case.L, case.w, int(active.sum()) + 1, active=active)


def test_layers_inputs_in_pieces_are_those_of_all_examples(monkeypatch):
    case = make_case("images", Conv2d(1, 2, 3), Tanh(), Flatten(), Linear(18, 2), n=30, image=(1, 5, 5))
    whole = criteria.wanda(case.L, case.w), criteria.obs_layerwise(case.L, case.w, damping=0.1)
    monkeypatch.setattr(memory, "BUDGET", 20_000)
    assert len(list(products(case.L, case.w))) > 6
    assert_close(criteria.wanda(case.L, case.w), whole[0])
    assert_close(criteria.obs_layerwise(case.L, case.w, damping=0.1), whole[1])
