"""The README's three lines for torch, and what it says they begin with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
pytestmark = pytest.mark.filterwarnings("default")


def test_the_three_lines_say_what_the_readme_prints(capsys):
    torch = pytest.importorskip("torch")
    code, printed = re.search(r"```python\n([^`]*from_torch.*?)```.*?```text\n(.*?)```", README, re.S).groups()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3))
    x, y = torch.randn(40, 8), torch.randint(0, 3, (40,))
    torch.nn.CrossEntropyLoss()(model(x), y).backward()
    scores = {name: 0.5 * (p.grad * p) ** 2 for name, p in model.named_parameters()}
    exec(code, {"torch": torch, "model": model, "x": x, "y": y, "scores": scores})
    begins = capsys.readouterr().out.splitlines()[:2]
    lines = printed.splitlines()
    assert begins[0] == lines[0]
    assert begins[1].rpartition(" (relative residual")[0] == lines[1].rpartition(" (relative residual")[0]
