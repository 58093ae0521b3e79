"""The oracle's own exam: no wrong implementation passes, nearly all are named, and no right one is accused."""

from __future__ import annotations

import numpy as np
import pytest

from pruning import criteria, oracle
from pruning.oracle.descriptions import tensors_in
from tests.oracle_exam.known import KNOWN, PENALISED, networks


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
