"""The oracle's own exam: no wrong implementation passes, nearly all are named, and no right one is accused."""

from __future__ import annotations

import numpy as np
import pytest

from minimal_nn import Conv2d, Flatten, Linear, ReLU, Sigmoid, Tanh
from pruning import criteria, exact, oracle
from pruning.oracle.descriptions import tensors_in
from tests.cases import make_case
from tests.oracle_exam.blind import BLIND, CORRECT, OPTIONS
from tests.oracle_exam.known import KNOWN, PENALISED, networks
from tests.oracle_exam.names import NAMES
from tests.oracle_exam.test_blind_self import drawn, error, expected, objective, scores_of


def as_case(case):
    return oracle.Case(case.L, case.w, tensors_in(case.L.network, "torch"), case.name)


def named(wrong, diagnosis):
    explanations = [one for one in (diagnosis.best, *diagnosis.others) if one is not None]
    said = [one.text for one in explanations] + list(diagnosis.partly.values())
    return any(fragment and fragment in text for fragment in wrong.named for text in said)


def test_every_known_slip_is_caught_and_nearly_all_are_named(capsys):
    results = []
    for wrongs, l2 in ((KNOWN, 0.0), (PENALISED, 0.05)):
        for case in map(as_case, networks(l2)):
            for wrong in wrongs:
                vector = wrong.compute(case.L, case.w)
                diagnosis = case.diagnose(case.to_foreign(vector), wrong.claims, **wrong.options)
                results.append((wrong, case, diagnosis, named(wrong, diagnosis)))
    with capsys.disabled():
        _print(results)
    assert len({wrong.name for wrong, *_ in results}) >= 40
    assert not [wrong.name for wrong, _, diagnosis, _ in results if diagnosis.matches]
    assert np.mean([right for *_, right in results]) >= 0.9


def _print(results):
    missed = [(wrong.name, case.name, str(diagnosis.best)) for wrong, case, diagnosis, right in results if not right]
    print(f"\nknown slips: {len(results)} diagnoses, {len(results) - len(missed)} named")
    for name, network, best in missed:
        print(f"  {name} ({network}): called {best}")


def right_in_other_ways(case, rng):
    """Yield (how, claim, options, scores) of right implementations: float32, batches, one example at a time."""
    L, w = case.L, case.w
    for name, options in RIGHT.items():
        function = criteria.REGISTRY[name].function
        single = function(L, w.astype(np.float32), **options)
        yield "float32", name, options, case.to_foreign(single)
        order = rng.permutation(L.n_examples)
        yield "shuffled", name, options, case.to_foreign(function(L.subset(order), w, **options))
    parts = [slice(s, s + 5) for s in range(0, L.n_examples, 5)]
    share = [len(range(L.n_examples)[part]) / L.n_examples for part in parts]
    for name in ADDITIVE:
        function = criteria.REGISTRY[name].function
        sums = sum(p * function(L.subset(part), w) for p, part in zip(share, parts, strict=True))
        yield "batches", name, {}, case.to_foreign(sums)
        each = np.mean([function(L.subset([n]), w) for n in range(L.n_examples)], axis=0)
        yield "one example at a time, float32 at the end", name, {}, case.to_foreign(each.astype(np.float32))
    yield "exact in float32", "exact", {}, case.to_foreign(exact.saliency(L, w.astype(np.float32)))


PLAIN = """magnitude magnitude_scaled lamp taylor taylor_signed taylor_squared taylor_second obd obd_recursive fisher
           fisher_empirical snip grasp synflow wanda"""
RIGHT = {name: {} for name in PLAIN.split()}
RIGHT |= {"obs": {"damping": 3.0}, "obs_gradient": {"damping": 3.0}}
RIGHT |= {"woodfisher": {"damping": 1e-2}, "obs_layerwise": {"damping": 0.1}}
ADDITIVE = ("taylor_signed", "taylor_squared", "taylor_second", "obd", "fisher", "fisher_empirical")


@pytest.mark.parametrize("seed", range(8))
def test_right_implementations_are_not_accused(seed):
    rng = np.random.default_rng(seed)
    layers = (
        [Linear(5, 4), Tanh(), Linear(4, 3)],
        [Linear(5, 4), ReLU(), Linear(4, 4), Sigmoid(), Linear(4, 2)],
        [Conv2d(1, 2, 3), Tanh(), Flatten(), Linear(8, 3)],
    )
    draws = 0
    for number, some in enumerate(layers):
        image = (1, 4, 4) if number == 2 else None
        made = make_case("right", *some, n=17, l2=0.01 * (seed % 2), seed=seed, image=image)
        for layout in ("torch", "minimal_nn"):
            case = oracle.Case(made.L, made.w, tensors_in(made.L.network, layout), made.name)
            for how, name, options, scores in right_in_other_ways(case, rng):
                assert not case.assert_matches(scores, name, **options), how
                draws += 1
    assert draws >= 200


def test_slips_by_somebody_who_has_not_seen_the_list_are_all_caught_and_most_are_named(capsys):
    """One network, tanh with cross-entropy, on which all but one of them differ from what they claim."""
    L, w = objective(*drawn(0))
    case = oracle.Case(L, w, tensors_in(L.network, "torch"))
    passed, right, missed = [], 0, []
    for slip in BLIND:
        if error(scores_of(slip, 0), expected(slip.claim, 0)) < 1e-3:
            continue
        diagnosis = case.diagnose(scores_of(slip, 0), slip.claim, batch_size=4, **OPTIONS.get(slip.claim, {}))
        texts = [one.text for one in (diagnosis.best, *diagnosis.others) if one is not None]
        passed += [slip.name] if diagnosis.matches else []
        if any(fragment in text for fragment in NAMES[slip.name] for text in texts):
            right += 1
        else:
            missed.append((slip.name, slip.truth, str(diagnosis.best)))
    with capsys.disabled():
        print(f"\nblind slips: {right} of {right + len(missed)} named")
        for name, truth, best in missed:
            print(f"  {name} ({truth}): called {best}")
    assert not passed
    assert right >= 0.8 * (right + len(missed))
    for slip in CORRECT:
        case.assert_matches(scores_of(slip, 0), slip.claim, **OPTIONS.get(slip.claim, {}))
