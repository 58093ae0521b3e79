"""`python -m pruning oracle`: what it lists, shows and exports, and the verdicts it gives on the results of others."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import safetensors.numpy

from pruning import oracle
from pruning.__main__ import main
from pruning.oracle.vector_files import FOLDER, read_vector

NAMES = oracle.vector_names()


def write(folder, name, scores, form="npz"):
    path = folder / f"{name.removeprefix('v1/')}.{form}"
    scores = {key: np.ascontiguousarray(a) for key, a in scores.items()}
    if form == "npz":
        np.savez(path, **scores)
    elif form == "safetensors":
        safetensors.numpy.save_file(scores, path)
    else:
        path.write_text(json.dumps({key: a.tolist() for key, a in scores.items()}))
    return path


def run(capsys, *arguments):
    code = main(["oracle", *map(str, arguments)])
    return code, *capsys.readouterr()


def test_list_names_every_vector_with_its_network(capsys):
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["vector", *NAMES]
    (tanh,) = [line for line in lines if line.startswith("v1/tanh.obd ")]
    assert re.search(r"7 +31 +SoftmaxCrossEntropy\(scale=1.0\) +Linear\(3, 4\), Tanh\(\), Linear\(4, 3\)$", tanh)


@pytest.mark.parametrize("name", ["v1/tanh.obs", "v1/tiny-ties.lamp", "v1/batch-norm.wanda", "v1/unequal-batches.snip"])
def test_show_prints_the_formula_and_every_score_to_the_last_digit(name, capsys):
    code, out, _ = run(capsys, "show", name)
    vector = oracle.load(name)
    said = vector.document
    assert code == 0
    for text in (name, said["about"], said["formula"]["math"], said["paper"], said["tie_rule"], f"l2 = {said['l2']:g}"):
        assert text in out
    assert "damping = 1.0" in out or "damping" not in said["options"]
    assert "in batches of 3" in out or said["batch_size"] is None
    for tensor, scores in vector.expected.items():
        printed = out.split(f"scores of {tensor} ")[1].split("scores of")[0].partition(":")[2]
        assert [float(text) for text in re.findall(r"-?\d[\d.e+-]*", printed)] == scores.ravel().tolist()


def test_show_of_an_unknown_name_is_one_line(capsys):
    code, out, err = run(capsys, "show", "v1/tanh.obdd")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "name: expected one of vector_names()" in err


def test_export_copies_every_file_and_can_be_read_back(tmp_path, capsys):
    target = tmp_path / "new"
    for _ in range(2):  # into a new folder, and over itself
        code, out, err = run(capsys, "export", target)
        assert (code, out) == (0, "")
        assert f"{len(NAMES)} vectors" in err
    found = {path.relative_to(target): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    released = {path.relative_to(FOLDER): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}
    assert found == released, "whole, and no part files are left"
    assert read_vector(target / "v1" / "tanh.obd.json").name == "v1/tanh.obd"


def test_an_export_that_fails_leaves_whole_files_only(tmp_path, capsys, monkeypatch):
    copied = []

    def fail(source, path):
        copied.append(source)
        path.write_bytes(source.read_bytes()[:10])
        if len(copied) == 5:
            raise OSError("disk full")
        path.write_bytes(source.read_bytes())

    monkeypatch.setattr("pruning.commands.oracle.shutil.copyfile", fail)
    code, _, err = run(capsys, "export", tmp_path)
    assert (code, err) == (1, "python -m pruning: disk full\n")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == 4
    assert all(path.read_bytes() == (FOLDER / path.relative_to(tmp_path)).read_bytes() for path in left)


def test_export_to_nowhere_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "a" / "b", tmp_path / "file"):
        with pytest.raises(SystemExit) as exit_code:
            main(["oracle", "export", str(target)])
        assert exit_code.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_verify_prints_pass_fail_with_the_diagnosis_and_missing(tmp_path, capsys):
    load = oracle.load
    write(tmp_path, "v1/tanh.obd", load("v1/tanh.obd").expected)
    write(tmp_path, "v1/tiny-tanh.snip", load("v1/tiny-tanh.snip").expected, "json")
    single = {key: a.astype(np.float32) for key, a in load("v1/residual.fisher").expected.items()}
    write(tmp_path, "v1/residual.fisher", single, "safetensors")
    code, out, err = run(capsys, "verify", tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[-1] == f"3 pass, 0 fail, {len(NAMES) - 3} missing"
    assert {line.split()[1] for line in lines if line.startswith("pass")} == {
        "v1/tanh.obd", "v1/tiny-tanh.snip", "v1/residual.fisher"
    }  # fmt: skip
    assert sum(line.startswith("missing ") for line in lines) == len(NAMES) - 3

    write(tmp_path, "v1/tiny-tanh.fisher", load("v1/tiny-tanh.fisher_empirical").expected)
    code, out, _ = run(capsys, "verify", tmp_path)
    assert code == 1
    failed = out.split("fail    v1/tiny-tanh.fisher\n")[1]
    assert failed.lstrip().startswith("This is NOT fisher: relative error")
    assert "It is fisher_empirical (relative residual" in failed.splitlines()[1]
    assert out.splitlines()[-1] == f"3 pass, 1 fail, {len(NAMES) - 4} missing"

    code, out, err = run(capsys, "verify", tmp_path, "--json")
    assert (code, err) == (1, "")
    verdicts = {verdict["name"]: verdict for verdict in json.loads(out)}
    assert set(verdicts) == set(NAMES)
    assert verdicts["v1/tanh.obd"]["status"] == "pass"
    assert verdicts["v1/tanh.obd"]["error"] <= verdicts["v1/tanh.obd"]["tolerance"]
    assert verdicts["v1/tanh.obs"] == {
        "name": "v1/tanh.obs", "status": "missing", "error": None, "tolerance": None, "text": "", "diagnosis": None
    }  # fmt: skip
    assert verdicts["v1/tiny-tanh.fisher"]["diagnosis"]["best"]["quantity"] == "fisher_empirical"


def test_what_cannot_be_read_or_fits_no_vector_fails_and_the_rest_is_judged(tmp_path, capsys):
    good = oracle.load("v1/tanh.obd").expected
    (tmp_path / "v1").mkdir()
    write(tmp_path / "v1", "v1/tanh.obd", good)
    write(tmp_path, "v1/tanh.fisher", good)
    write(tmp_path, "v1/tanh.fisher", good, "json")
    write(tmp_path, "v1/tanh.obdd", good)
    write(tmp_path, "v1/tanh.taylor", good | {"0.bias": np.full(4, np.nan)})
    write(tmp_path, "v1/tanh.snip", {"0.bias": good["0.bias"]})
    (tmp_path / "tanh.grasp.npz").write_bytes(b"PK no archive")
    (tmp_path / "tanh.wanda.safetensors").write_bytes(b"")
    (tmp_path / "tanh.exact.json").write_text('{"0.bias": [1, NaN]}')
    (tmp_path / "notes.txt").write_text("left alone")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, err = run(capsys, "verify", tmp_path)
    assert (code, err) == (1, "")
    for said in (
        r"pass    v1/tanh.obd  relative error",
        r"fail    v1/tanh.fisher\n +expected one file, got .*tanh.fisher.json, .*tanh.fisher.npz",
        r"fail    v1/tanh.obdd\n +.*tanh.obdd.npz: no vector has this name",
        r"fail    v1/tanh.taylor\n +tanh.taylor.npz: scores\['0.bias'\]: expected finite numbers, got nan",
        r"fail    v1/tanh.snip\n +tanh.snip.npz: scores: missing \['0.weight', '2.bias', '2.weight'\], not ",
        r"fail    v1/tanh.grasp\n +tanh.grasp.npz: .*expected an npz archive of numbers",
        r"fail    v1/tanh.wanda\n +tanh.wanda.safetensors: .*expected a safetensors file",
        r"fail    v1/tanh.exact\n +tanh.exact.json: .*NaN is not a number of JSON",
        rf"1 pass, 7 fail, {len(NAMES) - 7} missing",
    ):
        assert re.search(said, out), said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before, "nothing is written"


def test_nothing_to_judge_is_no_success(tmp_path, capsys):
    code, out, _ = run(capsys, "verify", tmp_path)
    assert code == 1
    assert out.splitlines()[-1] == f"0 pass, 0 fail, {len(NAMES)} missing"
    code, out, err = run(capsys, "verify", tmp_path / "none")
    assert (code, out) == (1, "")
    assert err.startswith("python -m pruning: folder: expected a folder of results, got '")
