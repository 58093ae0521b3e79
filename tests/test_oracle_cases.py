"""Cases of the oracle: descriptions and back, foreign layouts entry by entry, every error, and all without torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimal_nn import Linear, Network, Objective, ReLU, SquaredError, curvature
from pruning import criteria, exact, oracle
from pruning.oracle.cases import as_array
from pruning.oracle.descriptions import tensors_in
from pruning.oracle.foreign_losses import our_loss, our_targets
from tests.cases import CASES, assert_close, identify

ROOT = Path(__file__).parents[1]
EVERY = [c for c in CASES if len(c.w) <= 60]


def through_json(case, layout):
    """Describe a case, write it all as JSON, read that, and make the case again."""
    description, arrays = oracle.describe(case, layout)
    text = json.dumps([description, {name: a.tolist() for name, a in arrays.items()}])
    return oracle.from_arrays(*json.loads(text), name=case.name)


def as_oracle(case, layout="torch"):
    return oracle.Case(case.L, case.w, tensors_in(case.L.network, layout), case.name)


@pytest.mark.parametrize("layout", ["torch", "minimal_nn"])
@pytest.mark.parametrize("case", CASES, ids=identify)
def test_a_description_in_json_gives_the_case_back(case, layout):
    again = through_json(as_oracle(case, layout), layout)
    assert repr(again.L.network) == repr(case.L.network)
    assert again.L.network.layers == case.L.network.layers
    assert again.L.loss == case.L.loss
    assert again.L.l2 == case.L.l2
    assert np.array_equal(again.w, case.w)
    assert np.array_equal(again.L.x, case.L.x)
    assert np.array_equal(again.L.y, case.L.y)
    assert again.L(again.w) == case.L(case.w)
    assert list(again.parameters) == list(case.L.network.layout)


@pytest.mark.parametrize("case", CASES, ids=identify)
def test_the_torch_layout_has_outputs_before_inputs_entry_by_entry(case):
    theirs, ours = as_oracle(case).parameters, case.L.network.layout.unflatten(case.w)
    same = as_oracle(case, "minimal_nn").parameters
    for name, a in ours.items():
        assert np.array_equal(same[name], a)
        if a.ndim == 1:
            assert np.array_equal(theirs[name], a)
        for i, o in itertools.product(range(a.shape[0]), range(a.shape[1])) if a.ndim > 1 else ():
            assert np.array_equal(theirs[name][o, i], a[i, o])


@pytest.mark.parametrize("case", EVERY, ids=identify)
def test_everything_a_case_returns_stands_where_the_parameter_stands(case):
    theirs = as_oracle(case)
    L, w = case.L, case.w
    H, G, F = curvature.hessian(L, w), curvature.gauss_newton(L, w), curvature.fisher(L, w)
    E = curvature.fisher(L, w, "empirical")
    vectors = (theirs.exact(), exact.saliency(L, w)), (theirs.gradient(), L.gradient(w)), (theirs.scores("obd"), None)
    matrices = (theirs.hessian(), H), (theirs.gauss_newton(), G), (theirs.fisher(), F), (theirs.fisher("empirical"), E)
    where = {name: theirs.index_of(name) for name in L.network.layout}
    for tensors, ours in vectors:
        ours = criteria.obd(L, w) if ours is None else ours
        for name, index in where.items():
            for place, j in np.ndenumerate(index):
                assert tensors[name][place] == ours[j]
    for blocks, ours in matrices:
        for a, b in itertools.product(where, where):
            assert blocks[a][b].shape == (*where[a].shape, *where[b].shape)
            for p, q in [((0,) * where[a].ndim, (-1,) * where[b].ndim), ((-1,) * where[a].ndim, (0,) * where[b].ndim)]:
                assert blocks[a][b][p + q] == ours[where[a][p], where[b][q]]
            assert blocks[a][b].sum() == pytest.approx(ours[np.ix_(where[a].ravel(), where[b].ravel())].sum(), abs=1e-9)


def test_a_described_network_computes_what_its_formula_says():
    rng = np.random.default_rng(0)
    W, b, V, x, y = (rng.standard_normal(shape) for shape in ((3, 4), 3, (2, 3), (5, 4), (5, 2)))
    description = {
        "layers": [
            {"kind": "Linear", "inputs": 4, "outputs": 3}, {"kind": "ReLU"},
            {"kind": "Linear", "inputs": 3, "outputs": 2, "bias": False},
        ],
        "loss": {"kind": "SquaredError", "scale": 0.5},
        "l2": 0.25,
    }  # fmt: skip
    case = oracle.from_arrays(description, {"x": x, "y": y, "0.weight": W, "0.bias": b, "2.weight": V.tolist()})
    z = np.maximum(x @ W.T + b, 0) @ V.T
    penalty = 0.125 * sum((a**2).sum() for a in (W, b, V))
    assert case.L(case.w) == pytest.approx(0.25 * ((z - y) ** 2).sum(axis=1).mean() + penalty, rel=1e-14)
    without = W.copy()
    without[2, 1] = 0
    z = np.maximum(x @ without.T + b, 0) @ V.T
    removed = 0.25 * ((z - y) ** 2).sum(axis=1).mean() + penalty - 0.125 * W[2, 1] ** 2
    assert case.exact()["0.weight"][2, 1] == pytest.approx(removed - case.L(case.w), abs=1e-14)


def test_a_described_convolution_computes_what_its_formula_says():
    rng = np.random.default_rng(1)
    W, b, g, s, x = (rng.standard_normal(shape) for shape in ((2, 3, 2, 2), 2, 2, 2, (4, 3, 4, 5)))
    description = {
        "layers": [
            {"kind": "Conv2d", "inputs": 3, "outputs": 2, "kernel": 2, "stride": 2, "padding": 1},
            {"kind": "BatchNorm", "channels": 2, "mean": [0.5, -1], "variance": [2, 0.25], "epsilon": 0.01},
            {"kind": "Tanh"}, {"kind": "Flatten"},
        ],
        "loss": {"kind": "SoftmaxCrossEntropy"},
    }  # fmt: skip
    arrays = {"x": x, "y": np.array([0, 11, 4, 7]), "0.weight": W, "0.bias": b, "1.gamma": g, "1.beta": s}
    case = oracle.from_arrays(description, arrays)
    padded, h = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), np.zeros((4, 2, 3, 3))
    for n, o, i, j in np.ndindex(h.shape):
        h[n, o, i, j] = b[o] + (padded[n, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] * W[o]).sum()
    mean, variance = np.array([0.5, -1]), np.array([2, 0.25])
    along = (slice(None), None, None)
    z = np.tanh(g[along] * (h - mean[along]) / np.sqrt(variance[along] + 0.01) + s[along]).reshape(4, -1)
    loss = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(4), arrays["y"]])
    assert z.shape == (4, 18)
    assert case.L(case.w) == pytest.approx(loss, rel=1e-13)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("kind", ["cross_entropy", "mse", "bce_with_logits"])
def test_reductions_are_torchs_in_plain_sums(kind, reduction):
    rng = np.random.default_rng(2)
    N, C = 5, 3
    z, labels, y = rng.standard_normal((N, C)), rng.integers(0, C, N), rng.random((N, C))
    each = {
        "cross_entropy": [np.log(np.exp(z[n]).sum()) - z[n, labels[n]] for n in range(N)],
        "mse": [(z[n, c] - y[n, c]) ** 2 for n in range(N) for c in range(C)],
        "bce_with_logits": [np.log1p(np.exp(z[n, c])) - y[n, c] * z[n, c] for n in range(N) for c in range(C)],
    }[kind]
    loss = our_loss(kind, reduction, N, C)
    targets = our_targets(kind, labels if kind == "cross_entropy" else y, N, C)
    ours = loss.value(z, loss.targets(targets, C)).mean()
    assert ours == pytest.approx(np.sum(each) if reduction == "sum" else np.mean(each), rel=1e-14)


def test_smoothed_labels_are_a_mixture_with_equal_shares():
    labels, shares = np.array([2, 0]), np.array([[0.2, 0.5, 0.3], [1, 0, 0]])
    assert_close(our_targets("cross_entropy", labels, 2, 3, 0.3), [[0.1, 0.1, 0.8], [0.8, 0.1, 0.1]])
    assert_close(our_targets("cross_entropy", shares, 2, 3, 0.3), [[0.24, 0.45, 0.31], [0.8, 0.1, 0.1]])
    assert our_targets("cross_entropy", labels, 2, 3).tolist() == [2, 0]
    with pytest.raises(ValueError, match="loss: expected one of cross_entropy, mse, bce_with_logits, got 'nll'"):
        our_loss("nll", "mean", 2, 3)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_foreign_tensors_and_back_is_the_identity_for_any_names_and_any_order_of_axes(data):
    case = data.draw(st.sampled_from(CASES))
    shapes = case.L.network.layout.shapes
    names = data.draw(st.lists(st.text(min_size=1), min_size=len(shapes), max_size=len(shapes), unique=True))
    tensors = [
        oracle.Tensor(name, ours, tuple(data.draw(st.permutations(range(len(shape))))))
        for name, (ours, shape) in zip(names, shapes.items(), strict=True)
    ]
    theirs = oracle.Case(case.L, case.w, tuple(data.draw(st.permutations(tensors))))
    v = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(len(case.w))
    foreign = theirs.to_foreign(v)
    assert sorted(foreign) == sorted(names)
    back, given_there = theirs.to_ours(foreign)
    assert np.array_equal(back, v)
    assert given_there.all()
    some = names[0]
    back, given_there = theirs.to_ours({some: foreign[some]})
    assert sorted(np.flatnonzero(given_there)) == sorted(theirs.index_of(some).ravel())
    assert np.array_equal(back, np.where(given_there, v, 0))


def test_what_a_case_hands_out_is_a_copy():
    case = as_oracle(CASES[0])
    for tensors in (case.parameters, case.gradient()):
        for a in tensors.values():
            assert a.flags["C_CONTIGUOUS"]
            a[...] = 0
    assert np.array_equal(case.w, CASES[0].w)


def test_scores_take_the_criterions_options_and_what_is_still_there():
    case = as_oracle(CASES[0])
    active = {name: np.ones(a.shape, bool) for name, a in case.parameters.items()}
    active["0.weight"][1, 2] = False
    found = case.scores("obs", damping=5.0, active=active)
    assert found["0.weight"][1, 2] == -np.inf
    mask = np.ones(len(case.w), bool)
    mask[case.index_of("0.weight")[1, 2]] = False
    ours = criteria.obs(case.L, case.w, damping=5.0, active=mask)
    assert np.array_equal(case.to_foreign(ours)["2.bias"], found["2.bias"])
    assert np.array_equal(case.scores("exact")["2.bias"], case.exact()["2.bias"])
    assert repr(case).startswith("Case('tanh', Objective(Network(Linear(4, 5)")


L = Objective(Network(Linear(2, 2), ReLU(), Linear(2, 1)), SquaredError(), np.ones((3, 2)), np.ones((3, 1)))
W = np.arange(1.0, 10)
CASE = oracle.Case(L, W, tensors_in(L.network, "torch"))
T = CASE.tensors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: oracle.Case(L, W[:-1], T), r"w: expected shape \(9,\), got float64 of shape \(8,\)"),
        (lambda: oracle.Case(L, W * np.nan, T), "w: expected finite numbers"),
        (lambda: oracle.Case(L, W, T[1:]), "tensors: expected every one of 0.weight, 0.bias, 2.weight, 2.bias once"),
        (lambda: oracle.Case(L, W, (*T[1:], T[1])), "tensors: expected every one"),
        (
            lambda: oracle.Case(L, W, (oracle.Tensor("0.bias", "0.weight", (0, 1)), *T[1:])),
            "tensors: expected names that differ",
        ),
        (lambda: oracle.Case(L, W, (oracle.Tensor("a", "0.weight", (0,)), *T[1:])), r"order of the axes of \(2, 2\)"),
        (lambda: oracle.Case(L, W, (oracle.Tensor("a", "0.weight", (0, 0)), *T[1:])), r"order of the axes of \(2, 2\)"),
        (lambda: CASE.scores("magnitudes"), "criterion: expected one of exact, .*magnitude.*got 'magnitudes'"),
        (lambda: CASE.scores("obd", active={"0.bias": [1, 2]}), "active: expected entries that are True or False"),
        (lambda: CASE.fisher("false"), "kind: expected one of true, empirical, sampled, got 'false'"),
        (lambda: CASE.to_foreign(W[:3]), r"v: expected numbers of shape \(9,\), got float64 of shape \(3,\)"),
        (lambda: CASE.to_foreign(W.astype(str)), r"v: expected numbers of shape \(9,\)"),
        (lambda: CASE.matrix_to_foreign(np.eye(8)), r"M: expected shape \(9, 9\)"),
        (lambda: CASE.index_of("1.weight"), "name: expected one of 0.weight, 0.bias, 2.weight, 2.bias, got '1.weight'"),
        (lambda: CASE.to_ours([W], "scores"), "scores: expected a mapping of names to arrays"),
        (lambda: CASE.to_ours({}, "scores"), "scores: expected at least one of 0.weight, .* got none"),
        (lambda: CASE.to_ours({"fc.weight": W}, "scores"), "scores: name: expected one of 0.weight.*got 'fc.weight'"),
        (lambda: CASE.to_ours({"0.bias": [1.0]}, "scores"), r"scores\['0.bias'\]: expected shape \(2,\)"),
        (lambda: CASE.to_ours({"2.weight": [[1.0], [2.0]]}), r"tensors\['2.weight'\]: expected shape \(1, 2\)"),
        (lambda: CASE.to_ours({"0.bias": [1.0, np.nan]}), r"tensors\['0.bias'\]: expected finite numbers, got nan"),
        (lambda: CASE.to_ours({"0.bias": [1j, 2]}), r"tensors\['0.bias'\]: expected an array of numbers"),
        (lambda: CASE.to_ours({"0.bias": ["a", "b"]}), r"tensors\['0.bias'\]: expected an array of numbers"),
        (lambda: CASE.to_ours({"0.bias": [[1.0], [1, 2]]}), r"tensors\['0.bias'\]: expected an array of numbers"),
        (lambda: CASE.to_ours({"0.bias": None}), r"tensors\['0.bias'\]: expected an array of numbers"),
        (lambda: CASE.mask_of({"0.bias": [0.5, 1]}), "mask: expected entries that are True or False, or 0 and 1"),
        (lambda: oracle.describe(CASE, "keras"), "layout: expected one of torch, minimal_nn, got 'keras'"),
    ],
)
def test_a_case_refuses(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_arrays_of_few_bits_become_numbers():
    assert as_array("a", np.float16([1.5])).dtype == np.float16
    assert as_array("a", [True, False]).dtype == bool
    assert as_array("a", [[1, 2]]).tolist() == [[1, 2]]
    ml_dtypes = pytest.importorskip("ml_dtypes")
    found = as_array("a", np.array([1.5, -2], ml_dtypes.bfloat16))
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2]


LAYERS = [{"kind": "Linear", "inputs": 2, "outputs": 2}, {"kind": "Tanh"}]
ARRAYS = {"x": np.ones((3, 2)), "y": np.array([0, 1, 1]), "0.weight": np.eye(2), "0.bias": np.zeros(2)}
DESCRIPTION = {"layers": LAYERS, "loss": {"kind": "SoftmaxCrossEntropy"}}


def described(**changes):
    return {key: value for key, value in (DESCRIPTION | changes).items() if value is not None}


def layers(*given):
    return described(layers=[*LAYERS, *given])


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("text", "description: expected an object, got 'text'"),
        (described(loss=None), "description: missing loss"),
        (described(layers=None, loss=None, seed=3), "description: missing layers, loss; unknown seed"),
        (described(layout="keras"), r"description\['layout'\]: expected one of torch, minimal_nn, got 'keras'"),
        (described(l2=-1), r"description\['l2'\]: expected a finite number in \[0, inf\], got -1"),
        (described(l2="0"), r"description\['l2'\]: expected a finite number"),
        (described(layers="Tanh"), r"description\['layers'\]: expected a list of layers, got 'Tanh'"),
        (described(layers=[]), r"description\['layers'\]: layers: expected at least one layer with parameters"),
        (layers("Tanh"), r"description\['layers'\]\[2\]: expected an object with a kind, got 'Tanh'"),
        (layers({"inputs": 2}), r"\[2\]: expected an object with a kind"),
        (layers({"kind": "LSTM"}), r"\[2\]\['kind'\]: expected one of Linear, .* got 'LSTM'"),
        (layers({"kind": "Layer"}), r"\[2\]\['kind'\]: expected one of"),
        (layers({"kind": ["Tanh"]}), r"\[2\]\['kind'\]: expected one of"),
        (layers({"kind": "Linear", "inputs": 2}), r"\[2\]: missing outputs"),
        (layers({"kind": "Tanh", "slope": 1}), r"\[2\]: unknown slope"),
        (layers({"kind": "Linear", "inputs": 2, "outputs": 0}), r"\[2\]: outputs: expected an integer >= 1, got 0"),
        (layers({"kind": "Linear", "inputs": 2.0, "outputs": 1}), r"\[2\]\['inputs'\]: expected an integer"),
        (layers({"kind": "Linear", "inputs": True, "outputs": 1}), r"\[2\]\['inputs'\]: expected an integer"),
        (layers({"kind": "Linear", "inputs": 2, "outputs": 10**30}), r"\[2\]\['outputs'\]: expected .* <= 1000000"),
        (layers({"kind": "BatchNorm", "channels": 10**12}), r"\[2\]\['channels'\]: expected an integer <= 1000000"),
        (layers({"kind": "Linear", "inputs": 2, "outputs": 2, "bias": 1}), r"\[2\]\['bias'\]: expected true or false"),
        (layers({"kind": "Linear", "inputs": 3, "outputs": 2}), r"\['layers'\]: Linear\(3, 2\): expected inputs of"),
        (layers({"kind": "BatchNorm", "channels": 2, "mean": [0]}), r"\[2\]: mean: expected shape \(2,\)"),
        (layers({"kind": "BatchNorm", "channels": 2, "mean": ["a", "b"]}), r"\[2\]: could not convert"),
        (layers({"kind": "BatchNorm", "channels": 2, "variance": [-1, 0]}), r"\[2\]: variance: expected variance"),
        (layers({"kind": "BatchNorm", "channels": 2, "epsilon": None}), r"\[2\]: epsilon: expected a finite number"),
        (layers({"kind": "AvgPool2d", "kernel": 2, "stride": 0}), r"\[2\]: stride: expected an integer >= 1"),
        (layers({"kind": "Residual"}), r"\[2\]: missing layers"),
        (layers({"kind": "Residual", "layers": []}), r"\[2\]: layers: expected one or more layers"),
        (layers({"kind": "Residual", "layers": [{"kind": "Relu"}]}), r"\[2\]\['layers'\]\[0\]\['kind'\]: expected one"),
        (
            layers({"kind": "Residual", "layers": [{"kind": "Linear", "inputs": 2, "outputs": 1}]}),
            r"\[2\]: Residual\(Linear\(2, 1\)\): expected an inner output",
        ),
        (described(loss="mse"), r"description\['loss'\]: expected an object with a kind"),
        (described(loss={"kind": "Hinge"}), r"description\['loss'\]\['kind'\]: expected one of SoftmaxCrossEntropy"),
        (described(loss={"kind": "SquaredError", "scale": 0}), r"description\['loss'\]: scale: expected a positive"),
        (described(loss={"kind": "SquaredError", "mean": 0}), r"description\['loss'\]: unknown mean"),
    ],
)
def test_a_wrong_description_is_an_error_that_says_where(description, message):
    with pytest.raises(ValueError, match=message) as error:
        oracle.from_arrays(description, ARRAYS)
    assert "\n" not in str(error.value)


def test_a_description_nested_too_deep_is_an_error():
    inner = {"kind": "Tanh"}
    for _ in range(5000):
        inner = {"kind": "Residual", "layers": [inner]}
    with pytest.raises(ValueError, match=r"description\['layers'\]: nested too deep"):
        oracle.from_arrays(layers(inner), ARRAYS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([1, 2], "arrays: expected a mapping of names to arrays"),
        ({"x": 1}, r"arrays: missing \['0.bias', '0.weight', 'y'\], not expected none"),
        (ARRAYS | {"1.bias": 0}, r"arrays: missing none, not expected \['1.bias'\]"),
        (ARRAYS | {3: 0}, r"not expected \['3'\]"),
        (ARRAYS | {"0.bias": np.zeros(3)}, r"arrays\['0.bias'\]: expected shape \(2,\), got float64 of shape \(3,\)"),
        (ARRAYS | {"0.weight": [[1, "a"], [0, 1]]}, r"arrays\['0.weight'\]: expected an array of numbers"),
        (ARRAYS | {"0.weight": np.eye(2, dtype=bool)}, r"arrays\['0.weight'\]: expected dtype float or integer"),
        (ARRAYS | {"0.bias": [0, np.inf]}, r"arrays\['0.bias'\]: expected finite numbers"),
        (ARRAYS | {"x": np.ones((3, 3))}, r"x: Linear\(2, 2\): expected inputs of shape \(2,\)"),
        (ARRAYS | {"x": np.ones(3)}, r"x: expected at least one example, shape \(N, ...\)"),
        (ARRAYS | {"x": [[np.nan, 1]] * 3}, "x: expected finite numbers"),
        (ARRAYS | {"x": {"a": 1}}, r"arrays\['x'\]: expected an array of numbers"),
        (ARRAYS | {"y": [0, 1]}, "y: expected 3 targets for 3 examples, got 2"),
        (ARRAYS | {"y": [0, 1, 2]}, "y: expected labels in 0..1 for 2 outputs, got 2"),
        (ARRAYS | {"y": [0.0, 1.0, 1.0]}, "y: expected dtype integer"),
        (ARRAYS | {"y": [[0.5, 0.6]] * 3}, "y: expected rows of probabilities"),
    ],
)
def test_wrong_arrays_are_an_error_that_names_them(arrays, message):
    with pytest.raises(ValueError, match=message) as error:
        oracle.from_arrays(DESCRIPTION, arrays)
    assert "\n" not in str(error.value)


def test_targets_may_be_whole_numbers_where_they_mean_numbers():
    def targets(kind, y):
        return oracle.from_arrays(described(loss={"kind": kind}), ARRAYS | {"y": y}).L.y

    assert targets("SoftmaxCrossEntropy", [[0, 1], [1, 0], [1, 0]]).dtype == np.float64
    assert targets("SoftmaxCrossEntropy", [1, 0, 1]).dtype.kind == "i"
    assert targets("BinaryCrossEntropy", [[0, 1], [1, 1], [0, 0]]).dtype == np.float64
    assert targets("SquaredError", [[0, 1], [2, -1], [0, 0]]).dtype == np.float64


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**20)
    | st.floats()
    | st.sampled_from(["", "Linear", "kind", "torch"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "layers", "inputs", "outputs", "scale", "mean"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def places(value, path=()):
    """Yield the path of every part of nested objects and lists."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_junk_anywhere_in_a_description_or_its_arrays_is_a_value_error_or_a_case(data):
    case = data.draw(st.sampled_from(CASES))
    description, arrays = (
        json.loads(json.dumps(oracle.describe(as_oracle(case))[0])),
        oracle.describe(as_oracle(case))[1],
    )
    everything = {"description": description, "arrays": dict(arrays)}
    where = data.draw(st.sampled_from([p for p in places(everything) if len(p) > 1] or [("arrays",)]))
    inside = everything
    for key in where[:-1]:
        inside = inside[key]
    if isinstance(inside, dict) and data.draw(st.booleans()):
        del inside[where[-1]]
    else:
        inside[where[-1]] = data.draw(JUNK)
    with contextlib.suppress(ValueError):
        found = oracle.from_arrays(everything["description"], everything["arrays"])
        assert np.isfinite(found.w).all()


WITHOUT = """
import sys
import numpy as np
import pruning
assert not {"torch", "onnx", "jax"} & set(sys.modules)
for name in ("torch", "onnx", "jax"):
    sys.modules[name] = None  # from here on, importing it is an ImportError
from pruning import oracle
layers = [{"kind": "Linear", "inputs": 3, "outputs": 2}, {"kind": "Tanh"}]
rng = np.random.default_rng(0)
arrays = {"x": rng.standard_normal((6, 3)), "y": [0, 1, 1, 0, 1, 0]}
arrays |= {"0.weight": rng.random((2, 3)), "0.bias": [0.1, 0.2]}
case = oracle.from_arrays({"layers": layers, "loss": {"kind": "SoftmaxCrossEntropy"}}, arrays)
again = oracle.from_arrays(*oracle.describe(case))
assert again.L(again.w) == case.L(case.w)
case.assert_matches(case.scores("obd"), "obd")
mask = {name: a > 0.5 for name, a in case.parameters.items()}
case.diagnose_mask(mask, "magnitude", sparsity=0.5)
for load, package in ((oracle.from_torch, "torch"), (oracle.from_onnx, "onnx")):
    try:
        load(None, "mse", arrays["x"], arrays["y"])
    except ImportError as error:
        print(error)
"""


def test_the_package_works_without_torch_and_onnx_and_asks_for_them_only_where_they_are_needed():
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [
        "from_torch needs torch: pip install exact-pruning[interop]",
        "from_onnx needs onnx: pip install exact-pruning[interop]",
    ]
