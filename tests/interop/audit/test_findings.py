"""FINDINGS.md says what the tests assert: every test is named there, and its table is what is measured."""

from __future__ import annotations

import re
from pathlib import Path

from tests.interop.audit import consequences
from tests.interop.audit.subjects import AUDITED

HERE = Path(__file__).parent
FINDINGS = (HERE / "FINDINGS.md").read_text(encoding="utf-8")


def test_findings_name_every_test_of_the_audit_and_no_other():
    tests = {
        name
        for path in HERE.glob("test_*.py")
        if path.name != Path(__file__).name
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(re.findall(r"`(test_\w+)`", FINDINGS)) == tests


def test_findings_are_of_the_pinned_versions():
    pinned = (HERE.parents[2] / ".ci" / "constraints.txt").read_text(encoding="utf-8").split()
    for distribution, version in AUDITED.items():
        assert f"| {distribution} | {version} |" in FINDINGS
        assert f"{distribution}=={version}" in pinned


def test_every_row_of_the_table_is_a_finding():
    headings = set(re.findall(r"^\*\*([TAOPNCB]\d+)\. ", FINDINGS, re.MULTILINE))
    assert {finding for finding, *_ in consequences.ROWS if not finding.startswith("choice")} <= headings


def numbers(lines):
    """Return the numbers of the table's cells by row, the name of the row first."""
    return {
        line[: len("choice: Wanda's scope")].strip(): re.findall(r"[+-]?\d+(?:\.\d+)?", line[27:]) for line in lines
    }


def test_the_table_is_what_is_measured(torch, torch_pruning, torchao, nni):
    table = re.search(r"```text\n(.*?)```", FINDINGS, re.DOTALL)[1].splitlines()
    found = consequences.tables.aligned([consequences.HEADER, *consequences.measured()]).splitlines()
    said, measured = numbers(table[1:]), numbers(found[1:])
    assert list(said) == list(measured)
    for finding, values in measured.items():
        assert len(said[finding]) == len(values)
        for one, other in zip(said[finding], values, strict=True):
            assert abs(float(one) - float(other)) <= 0.002, finding
