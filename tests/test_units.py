"""Criteria of units beside gates moved by the complex step, plain loops and the exact saliency of the gate."""

from __future__ import annotations

import functools
import inspect

import numpy as np
import pytest

from minimal_nn import (
    AvgPool2d,
    BinaryCrossEntropy,
    Conv2d,
    Flatten,
    Linear,
    MaxPool2d,
    Network,
    Objective,
    ReLU,
    Sigmoid,
    SquaredError,
    Tanh,
    memory,
)
from pruning import criteria, exact
from pruning.criteria import units
from pruning.criteria.information import discrete
from tests import plain
from tests.cases import assert_close, identify, make_case

CASES = [
    make_case("tanh", Linear(4, 5), Tanh(), Linear(5, 3), n=12, l2=0.1),
    make_case("sigmoid", Linear(4, 5), Sigmoid(), Linear(5, 4), Tanh(), Linear(4, 3), n=12),
    make_case("relu", Linear(4, 6), ReLU(), Linear(6, 3), n=12),
    make_case("images", Conv2d(1, 3, 3, padding=1), Tanh(), MaxPool2d(2), Conv2d(3, 4, 2), Sigmoid(), Flatten(),
              Linear(4, 3), n=9, image=(1, 4, 4)),
    make_case("pooled", Conv2d(2, 3, 2), ReLU(), AvgPool2d(2), Flatten(), Linear(3, 2), n=9, image=(2, 3, 3)),
]  # fmt: skip
LAYERS = {"tanh": (0, 1, 2), "sigmoid": (0, 2), "relu": (0, 2), "images": (0, 3, 6), "pooled": (0,)}
each = pytest.mark.parametrize(("case", "layer"), [(c, i) for c in CASES for i in LAYERS[c.name]],
                               ids=[f"{c.name} {i}" for c in CASES for i in LAYERS[c.name]])  # fmt: skip


def gated(case, layer, gates):
    """The losses (N,) and the units (N, U, ...) with the outputs of the gated layer multiplied by the gates (U,)."""
    L, own = case.L, case.L.network.parameters(case.w)
    x, h, gate = L.x.astype(gates.dtype), None, L.network.gate(layer)
    for i, (one, p) in enumerate(zip(L.network.layers, own, strict=True)):
        x = one.forward(p, x)
        if i == gate:
            h = x
            x = x * gates.reshape(-1, *(1,) * (x.ndim - 2))
    return L.loss.value(x, L.y), h


def gate_gradients(case, layer):
    """∂ℓ_n/∂gate_i (N, U) by the complex step."""
    count = gated(case, layer, np.ones(1))[1].shape[1]
    found = []
    for i in range(count):
        gates = np.ones(count, complex)
        gates[i] += 1e-200j
        found.append(gated(case, layer, gates)[0].imag / 1e-200)
    return np.array(found).T


@each
def test_criteria_of_gates_equal_the_complex_step(case, layer):
    g = gate_gradients(case, layer)
    L, w = case.L, case.w
    assert_close(units.taylor(L, w, layer=layer), np.abs(g).mean(axis=0))
    assert_close(units.taylor(L, w, layer=layer, mean_first=True), np.abs(g.mean(axis=0)), scale=np.abs(g).max())
    assert_close(units.taylor_signed(L, w, layer=layer), -g.mean(axis=0), scale=np.abs(g).max())
    assert_close(units.fisher(L, w, layer=layer), 0.5 * (g**2).mean(axis=0))
    positions = int(np.prod(gated(case, layer, np.ones(1))[1].shape[2:]))
    assert_close(units.taylor(L, w, layer=layer, by_position=True) * positions, np.abs(g).mean(axis=0))


@each
def test_the_exact_saliency_of_units_is_the_loop_over_closed_gates(case, layer):
    count = gated(case, layer, np.ones(1))[1].shape[1]
    base = gated(case, layer, np.ones(count))[0].mean()
    closed = [gated(case, layer, 1 - np.eye(count)[i])[0].mean() - base for i in range(count)]
    assert_close(exact.saliency(case.L, case.w, units=layer), closed, scale=abs(base))


@each
def test_activations_are_those_of_plain_loops(case, layer):
    gate, named = case.L.network.gate(layer), case.L.network.layout.unflatten(case.w)
    values = []
    for x in case.L.x:
        out = plain.forward(case.L.network.layers[: gate + 1], named, x)
        values.append(out.reshape(len(out), -1))
    h = np.array(values)  # (N, U, positions)
    per_unit = [h[:, i].ravel().tolist() for i in range(h.shape[1])]
    L, w = case.L, case.w
    assert_close(units.mean(L, w, layer=layer), [sum(map(abs, v)) / len(v) for v in per_unit])
    centred = [[a - sum(v) / len(v) for a in v] for v in per_unit]
    assert_close(units.std(L, w, layer=layer), [np.sqrt(sum(a * a for a in v) / len(v)) for v in centred])
    assert_close(units.apoz(L, w, layer=layer), [1 - sum(a == 0 for a in v) / len(v) for v in per_unit])


@each
def test_magnitude_and_geometric_median_see_the_rows_without_biases(case, layer):
    gate = case.L.network.gate(layer)
    i = max(k for k in range(gate + 1) if case.L.network.parameters(case.w)[k])
    W = np.moveaxis(case.L.network.parameters(case.w)[i]["weight"], 1, 0)
    rows = [W[o].ravel() for o in range(len(W))]
    assert_close(units.magnitude(case.L, case.w, layer=layer), [np.linalg.norm(r) for r in rows])
    expected = [sum(np.linalg.norm(r - other) for other in rows) for r in rows]
    assert_close(units.geometric_median(case.L, case.w, layer=layer), expected, scale=1e-3)


@pytest.mark.parametrize("name", ["magnitude", "geometric_median"])
def test_weights_into_units_are_those_of_the_units_own_layer_or_refused(name):
    case = CASES[3]
    layers = case.L.network.layers
    for layer, one in enumerate(layers):
        score = functools.partial(units.REGISTRY[name], case.L, case.w, layer=layer)
        if isinstance(one, (MaxPool2d, Flatten)):
            with pytest.raises(ValueError, match=f"layer: expected a Linear or Conv2d.*got {type(one).__name__}"):
                score()
        else:
            assert len(score()) == exact.saliency(case.L, case.w, units=layer).size
    behind = make_case("b", Conv2d(1, 2, 2), Flatten(), Tanh(), Linear(8, 2), image=(1, 3, 3))
    for layer in (1, 2):
        with pytest.raises(ValueError, match=r"whose units are the outputs of Flatten\(\)"):
            units.REGISTRY[name](behind.L, behind.w, layer=layer)
    first = make_case("a", Tanh(), Linear(3, 2))
    with pytest.raises(ValueError, match="layer: expected a Linear or Conv2d"):
        units.REGISTRY[name](first.L, first.w, layer=0)


def test_signatures_are_those_that_callers_use():
    for name, criterion in units.REGISTRY.items():
        parameters = inspect.signature(criterion).parameters
        assert list(parameters)[:3] == ["objective", "w", "layer"], name
        assert parameters["layer"].kind is inspect.Parameter.KEYWORD_ONLY
    assert str(inspect.signature(units.taylor)) == (
        "(objective: 'Objective', w: 'np.ndarray', *, layer: 'int', mean_first: 'bool' = False, "
        "by_position: 'bool' = False) -> 'np.ndarray'"
    )
    with pytest.raises(ValueError, match="objective: expected a minimal_nn"):
        units.mean(None, np.ones(3), layer=0)


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_pieces_give_the_same_and_w_stays(case, monkeypatch):
    layer, w = LAYERS[case.name][0], case.w.copy()
    calls = [lambda name=name: units.REGISTRY[name](case.L, case.w, layer=layer) for name in
             ("mean", "std", "apoz", "taylor", "taylor_signed", "fisher")]  # fmt: skip
    whole = [call() for call in calls]
    monkeypatch.setattr(memory, "BUDGET", 3000)
    for call, before in zip(calls, whole, strict=True):
        assert_close(call(), before)
    assert (case.w == w).all()


def test_informations_of_units_by_hand():
    """OR and AND of two bits, XOR as the label: each says 0.2158 nats, a copy adds nothing, a bit says nothing."""
    x = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    net = Network(Linear(2, 4), ReLU(), Linear(4, 1))
    W = np.array([[1.0, 1, 1, 1], [1, 1, 1, 0]])
    w = net.layout.flatten({"0.weight": W, "0.bias": np.array([0.0, -1, -1, 0]),
                            "2.weight": np.ones((4, 1)), "2.bias": np.zeros(1)})  # fmt: skip
    L = Objective(net, BinaryCrossEntropy(), x, np.array([[0.0], [1], [1], [0]]))
    got = units.mutual_information(L, w, layer=0, bins=2)
    assert got[1] == pytest.approx(0.2158, abs=5e-5)
    assert got[1] == got[2]
    assert got[3] == pytest.approx(0, abs=1e-12)
    noisy_ones = units.mutual_information(L, w, layer=0, sigma=0.01)
    assert noisy_ones[1] == pytest.approx(0.2158, abs=5e-5)
    conditional = units.conditional_information(L, w, layer=0, bins=3)
    assert conditional[1] == conditional[2] == 0, "each is the other's copy"
    mrmr = units.relevance_minus_redundancy(L, w, layer=0, bins=2)
    h = discrete.quantized(np.maximum(x @ W + [0, -1, -1, 0], 0), 2)
    y = np.array([0, 1, 1, 0])
    for i in range(4):
        shared = [discrete.mutual_information(h[:, i], h[:, k]) for k in range(4) if k != i]
        assert mrmr[i] == pytest.approx(discrete.mutual_information(h[:, i], y) - np.mean(shared), abs=1e-12)
    assert np.isfinite(units.relevance_minus_redundancy(L, w, layer=0, sigma=0.1)).all()


def test_aggregates_make_units_of_weights():
    case = CASES[0]
    groups = case.L.network.layout.flatten({
        "0.weight": np.broadcast_to(np.arange(5), (4, 5)), "0.bias": np.arange(5),
        "2.weight": np.full((5, 3), -1), "2.bias": np.full(3, -1)})  # fmt: skip
    signed = criteria.taylor_signed(case.L, case.w)
    W, b = (case.L.network.layout.unflatten(signed)[name] for name in ("0.weight", "0.bias"))
    assert_close(units.aggregate(signed, groups), W.sum(axis=0) + b)
    assert_close(units.aggregate(signed, groups, "l1"), np.abs(W).sum(axis=0) + np.abs(b))
    assert_close(units.aggregate(signed, groups, "l2"), np.sqrt((W**2).sum(axis=0) + b**2))
    assert_close(units.aggregate(signed, groups, "mean"), (W.sum(axis=0) + b) / 5)
    assert_close(units.aggregate(signed, groups, "max"), np.maximum(W.max(axis=0), b))
    unsigned = np.arange(len(signed)) % 3
    for dtype in (np.uint8, np.uint64):
        assert (units.aggregate(signed, unsigned.astype(dtype)) == units.aggregate(signed, unsigned)).all()
    gone = np.where(np.arange(len(signed)) == 0, -np.inf, signed)
    assert_close(units.aggregate(gone, groups)[0], (W.sum(axis=0) + b)[0] - signed[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda L, w: units.mean(L, w, layer=9), "layer: expected the index of one of 3 layers, got 9"),
        (lambda L, w: units.mean(L, w[1:], layer=0), "w: expected shape"),
        (lambda L, w: units.mutual_information(L, w, layer=0), "sigma: expected one of sigma and bins"),
        (lambda L, w: units.mutual_information(L, w, layer=0, sigma=0.1, bins=3), "sigma: expected one of sigma and"),
        (lambda L, w: units.aggregate(w, np.zeros(3, int)), "groups: expected shape"),
        (lambda L, w: units.aggregate(w, np.full(len(w), 1)), r"groups: expected ids 0..G-1.*got none for \[0\]"),
        (lambda L, w: units.aggregate(w, np.arange(len(w)) // 9 * 10**15), r"groups: expected ids.*none for \[1\]"),
        (lambda L, w: units.aggregate(w, np.full(len(w), -1)), "groups: expected ids 0..G-1.*got none for any"),
        (lambda L, w: units.aggregate(w, np.zeros(len(w), int), "median"), "how: expected one of sum, mean"),
        (lambda L, w: units.random(L, w, layer=0, rng=3), "rng: expected a numpy.random.Generator"),
    ],
)
def test_wrong_arguments_are_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call(CASES[0].L, CASES[0].w)


def test_real_targets_have_no_labels():
    case = make_case("regression", Linear(2, 3), Tanh(), Linear(3, 2), loss=SquaredError())
    with pytest.raises(ValueError, match="objective: expected labels, or one output that is 0 or 1"):
        units.mutual_information(case.L, case.w, layer=0, bins=3)
