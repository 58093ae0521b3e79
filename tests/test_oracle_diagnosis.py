"""What a diagnosis says beyond the explanation: what a case cannot tell apart, units, partial slips, masks, errors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minimal_nn import BatchNorm, Conv2d, Flatten, Linear, ReLU, Tanh
from pruning import criteria, exact, masks, oracle
from pruning.oracle.descriptions import tensors_in
from tests.cases import make_case


def case_of(*layers, layout="torch", **options):
    made = make_case("diagnosed", *layers, **options)
    return oracle.Case(made.L, made.w, tensors_in(made.L.network, layout), made.name)


@pytest.fixture
def tanh():
    return case_of(Linear(6, 5), Tanh(), Linear(5, 3), n=23)


def test_right_scores_match_and_say_what_else_they_could_be(tanh):
    relu = case_of(Linear(6, 5), ReLU(), Linear(5, 3), n=23)
    diagnosis = relu.diagnose(relu.scores("obd"), claims="obd")
    assert diagnosis.matches
    assert "fisher" in [one.quantity for one in diagnosis.others], "one score on ReLU networks without decay"
    assert "a smooth activation separates them" in diagnosis.suggestion
    name = diagnosis.suggestion.split("Vectors that tell them apart: ")[1].split(" ")[0]
    vector = oracle.load(name)
    assert not vector.case.diagnose(vector.case.scores("fisher"), claims="obd").matches
    apart = tanh.diagnose(tanh.scores("obd"), claims="obd")
    assert apart.matches
    assert "fisher" not in [one.criterion for one in apart.others]


def test_the_report_counts_the_cost_names_the_worst_and_is_strict_json(tanh):
    wrong = {name: v * 2 for name, v in tanh.scores("fisher_empirical").items()}
    diagnosis = tanh.diagnose(wrong, claims="fisher")
    text = str(diagnosis)
    assert text.startswith("This is NOT fisher: relative error")
    assert "It is taylor_squared" in text or "It is fisher_empirical, times 2" in text
    assert "Exact loss after pruning" in text
    plain = json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))
    assert plain["matches"] is False
    assert len(plain["costs"]) == 5
    worst = diagnosis.worst[0]
    assert worst.theirs == wrong[worst.tensor][worst.index]
    assert worst.ours == tanh.scores("fisher")[worst.tensor][worst.index]
    difference = {k: np.abs(v - tanh.scores("fisher")[k]).max() for k, v in wrong.items()}
    assert abs(worst.theirs - worst.ours) == max(difference.values())
    for cost in diagnosis.costs:
        mask = [masks.smallest(tanh.to_ours(s)[0], cost.sparsity) for s in (wrong, tanh.scores("fisher"))]
        assert [cost.theirs, cost.ours] == pytest.approx([tanh.L(tanh.w * m) for m in mask], rel=1e-12)


def test_a_slip_in_one_tensor_is_found_by_tensor(tanh):
    scores = tanh.scores("obd")
    scores["2.weight"] = tanh.scores("magnitude")["2.weight"] ** 3 + 1
    partly = tanh.diagnose(scores, claims="obd").partly
    assert partly["0.weight"] == "obd"
    assert partly["2.weight"] == "no known quantity"


def test_some_of_the_tensors_may_be_given_in_either_layout():
    for layout in ("torch", "minimal_nn"):
        case = case_of(Linear(6, 5), Tanh(), Linear(5, 3), n=23, layout=layout)
        weights = {name: v for name, v in case.scores("obd").items() if name.endswith("weight")}
        case.assert_matches(weights, "obd")
        shape = case.L.network.layout.shapes["0.weight"]
        assert weights["0.weight"].shape == (shape if layout == "minimal_nn" else shape[::-1])


def test_units_are_told_by_their_aggregate():
    case = case_of(Conv2d(1, 3, 2), BatchNorm(3), Tanh(), Flatten(), Linear(12, 4), n=17, image=(1, 3, 3))
    obd = case.scores("obd")
    own = obd["0.weight"].reshape(3, -1)
    expected = {
        "obd, sum over its weights": own.sum(axis=1),
        "obd, sum over its weights and bias": own.sum(axis=1) + obd["0.bias"],
        "obd, maximum over its weights": own.max(axis=1),
        "obd, ℓ2 norm over its weights": np.sqrt((own**2).sum(axis=1)),
        "obd, sum over its weights and the next layer's from it": own.sum(axis=1)
        + obd["4.weight"].reshape(4, 3, 4).sum(axis=(0, 2)),
        "obd, sum over its weights and bias and its batch norm": own.sum(axis=1)
        + obd["0.bias"] + obd["1.gamma"] + obd["1.beta"],
        "the exact saliency of the unit's gate": exact.saliency(case.L, case.w, units=0),
    }  # fmt: skip
    for text, scores in expected.items():
        diagnosis = case.diagnose({"0": scores}, claims="obd")
        assert text in [one.text for one in (diagnosis.best, *diagnosis.others)], text
        assert case.diagnose({"0.weight": scores}, claims="obd").best.text == diagnosis.best.text


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda s, n: masks.smallest(s, 0.5), "candidates are all parameters"),
        (lambda s, n: ~masks.smallest(s, 0.5, among=n) | ~n, "True means removed"),
        (lambda s, n: masks.smallest(-s, 0.5, among=n), "removes the highest scores"),
        (lambda s, n: masks.smallest(s, 0.25, among=n), "the right order with k ="),
        (lambda s, n: masks.smallest(s, (0.5 * n.sum() + 1) / n.sum(), among=n), "one too many"),
        (lambda s, n: masks.smallest(s, 0.5, among=n & (np.arange(len(n)) < 30)), "prunes 0.weight alone"),
    ],
)
def test_masks_are_told_by_their_rule(tanh, make, says):
    scores = criteria.magnitude(tanh.L, tanh.w)
    mask = make(scores, tanh.L.network.layout.select("weight"))
    diagnosis = tanh.diagnose_mask(tanh.to_foreign(mask), "magnitude", sparsity=0.5)
    assert not diagnosis.matches
    assert any(says in rule for rule in diagnosis.rules), diagnosis


def test_masks_by_layer_ties_and_caps(tanh):
    weights = tanh.L.network.layout.select("weight")
    scores = criteria.magnitude(tanh.L, tanh.w)
    right = masks.smallest(scores, 0.5, among=weights)
    assert tanh.diagnose_mask(tanh.to_foreign(right), "magnitude", 0.5).matches
    ids = np.where(weights, (np.arange(len(weights)) >= 30).astype(int), -1)
    layered = masks.smallest(scores, 0.5, groups=ids)
    assert tanh.diagnose_mask(tanh.to_foreign(layered), "magnitude", 0.5, scope="layer").matches
    assert "scope layer, not global" in str(tanh.diagnose_mask(tanh.to_foreign(layered), "magnitude", 0.5))
    strong = tanh.diagnose_mask(tanh.to_foreign(right), "magnitude", 0.5, cap=0.3)
    assert "the right one without its cap" in strong.rules
    even = oracle.Case(tanh.L, np.sign(tanh.w), tanh.tensors, "ties")
    threshold = even.to_foreign(~weights)
    tied = even.diagnose_mask(threshold, "magnitude", 0.5)
    assert any("takes all ties" in rule for rule in tied.rules)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "scores: expected at least one of"),
        ({"3.weight": np.ones((3, 5))}, "scores: name: expected one of 0.weight"),
        ({"0.weight": np.ones((6, 5))}, r"scores\['0.weight'\]: expected shape \(5, 6\)"),
        ({"0.weight": np.full((5, 6), np.nan)}, r"scores\['0.weight'\]: expected finite numbers"),
        ({"0.weight": "many"}, r"scores\['0.weight'\]: expected an array of numbers"),
        ([1, 2], "scores: expected a mapping"),
    ],
)
def test_wrong_scores_are_one_clear_error(tanh, scores, message):
    with pytest.raises(ValueError, match=message):
        tanh.diagnose(scores, claims="obd")


def test_wrong_claims_are_one_clear_error(tanh):
    with pytest.raises(ValueError, match="claims: expected one of exact"):
        tanh.diagnose(tanh.scores("obd"), claims="brain damage")
    with pytest.raises(ValueError, match="mask: expected entries that are True or False"):
        tanh.diagnose_mask({"0.weight": np.full((5, 6), 0.5)}, "magnitude", 0.5)
    with pytest.raises(ValueError, match="scope: expected one of global, layer, unit"):
        tanh.diagnose_mask({"0.weight": np.ones((5, 6))}, "magnitude", 0.5, scope="everywhere")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_a_few_random_numbers_are_explained_by_nothing(n):
    case = case_of(Linear(n, 1, bias=False), Tanh(), Linear(1, 2), n=9)
    for seed in range(5):
        random = np.random.default_rng(seed).random((1, n)).astype(np.float32)
        diagnosis = case.diagnose({"0.weight": random}, claims="magnitude")
        assert diagnosis.best is None
        assert f"{n} numbers are few to tell by" in str(diagnosis)


def test_constant_scores_are_called_constant_and_single_precision_is_seen(tanh):
    ones = {name: np.ones_like(v) for name, v in tanh.parameters.items()}
    assert "1 for every entry: it ranks nothing" in str(tanh.diagnose(ones, claims="taylor"))
    single = {name: v.astype(np.float32).astype(float) for name, v in tanh.scores("taylor").items()}
    noisy = {name: v * (1 + 1e-7 * np.sin(np.arange(v.size)).reshape(v.shape)) for name, v in single.items()}
    right = tanh.diagnose(noisy, claims="taylor")
    assert right.matches
    assert "single precision only" in str(right)
    divided = tanh.diagnose({name: v / 23 for name, v in noisy.items()}, claims="taylor")
    assert divided.best.text == "taylor, times 1/N, N = 23, to single precision"
