"""Scores in torch's bfloat16, a type that NumPy lacks, are judged by its digits."""

from __future__ import annotations

import pytest

from pruning import oracle

pytestmark = pytest.mark.filterwarnings("default")


def test_right_scores_in_bfloat16_match_and_wrong_ones_do_not():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    x, y = torch.randn(20, 6), torch.randint(0, 3, (20,))
    case = oracle.from_torch(model, torch.nn.CrossEntropyLoss(), x, y)
    short = {name: torch.tensor(v).bfloat16() for name, v in case.scores("taylor").items()}
    assert case.diagnose(short, claims="taylor").matches
    assert not case.diagnose({name: 2 * v for name, v in short.items()}, claims="taylor").matches
