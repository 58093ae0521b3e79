"""The benchmarks measure what they say: every peer gives our result on a tiny network, and the arithmetic is right."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from minimal_nn import curvature
from pruning import exact
from tests.benchmarks import (
    gemm,
    growth,
    memory,
    peers_jax,
    peers_torch,
    problems,
    report,
    rows,
    saliency_growth,
    timing,
)
from tests.benchmarks.timing import Comparison, Missing, Route

pytestmark = pytest.mark.filterwarnings("default")  # what the peers warn of is theirs

TINY = {"mlp": lambda: problems.mlp(64, 3, 2, 10, n=12), "cnn": lambda: problems.cnn(5, channels=(1, 2))}
PEERS = {
    "jax": (curvature.hessian, peers_jax.hessian),
    "torch": (curvature.hessian, peers_torch.torch_func_hessian),
    "curvlinops": (curvature.hessian, peers_torch.curvlinops_on_identity("HessianLinearOperator")),
    "curvlinops_ggn": (curvature.gauss_newton, peers_torch.curvlinops_on_identity("GGNLinearOperator")),
    "curvlinops_ef": (
        lambda L, w: curvature.fisher(L, w, "empirical"),
        peers_torch.curvlinops_on_identity("EFLinearOperator"),
    ),
    "backpack": (curvature.hessian_diagonal, peers_torch.backpack_diagonal),
}


def prepared(peer, problem) -> Route:
    try:
        return peer(problem)
    except Missing as reason:
        pytest.skip(str(reason))


#: BackPACK pools in float32 only, and is compared on a chain
PAIRS = [(name, network) for name in PEERS for network in TINY if (name, network) != ("backpack", "cnn")]


@pytest.mark.parametrize(("name", "network"), PAIRS)
def test_a_peer_gives_our_result(name, network):
    problem = TINY[network]()
    ours, peer = PEERS[name]
    theirs = prepared(peer, problem)
    assert timing.relative_error(ours(problem.L, problem.w), theirs.read(theirs.run())) < 1e-10


@pytest.mark.parametrize("network", TINY)
def test_the_loop_over_masked_weights_removes_what_it_says(network, monkeypatch):
    monkeypatch.setattr(peers_torch, "SAMPLE", 30)
    problem = TINY[network]()
    theirs = prepared(peers_torch.loop_over_masked_weights, problem)
    ours = exact.reference(problem.L, problem.w)[peers_torch.sampled(problem)]
    assert timing.relative_error(ours, theirs.read(theirs.run())) < 1e-10
    assert theirs.parts == problem.L.n_parameters / 30


def test_a_training_step_of_torch_ends_where_ours_does():
    problem = problems.mlp(64, 5, 10, n=20, dtype=np.float32)
    theirs, ours = prepared(peers_torch.training_step, problem), peers_torch.our_training_step(problem)
    for _ in range(5):
        a, b = ours.read(ours.run()), theirs.read(theirs.run())
    assert a.dtype == b.dtype == np.float32
    assert timing.relative_error(a, b) < 1e-5
    assert not np.array_equal(a, problem.w)


def test_routes_are_measured_in_turn_after_a_warm_up(monkeypatch):
    monkeypatch.setattr(timing, "ENOUGH", 0)
    monkeypatch.setattr(timing, "REST", 0)
    calls = []
    a, b = (Route(name, lambda name=name: calls.append(name)) for name in "ab")
    found = timing.compare(a, b, repeats=3)
    assert "".join(calls) == "ab" + "ababab"
    assert len(found.ours) == len(found.theirs) == 3


def test_the_ratio_is_the_median_over_neighbours():
    assert Comparison(ours=[1, 2, 1], theirs=[3, 4, 10]).ratio == 3


def test_a_row_is_reached_only_where_it_is_measured_agrees_and_is_quick():
    row = rows.Row("r", "q", None, None, None, required=2)
    quick, slow = Comparison([1], [3]), Comparison([1], [1])
    assert rows.Result(row, "P=1", "peer", quick, 0.0).reached
    assert not rows.Result(row, "P=1", "peer", quick, 1e-3).reached
    assert not rows.Result(row, "P=1", "peer", slow, 0.0).reached
    assert not rows.Result(row, "P=1", reason="gone").reached


def test_a_peer_that_is_missing_or_breaks_is_not_measured_and_says_why():
    def missing(problem):
        raise Missing("jax: none here")

    def broken(problem):
        return Route("x", lambda: 1 / 0)

    for peer, reason in ((missing, "jax: none here"), (broken, "ZeroDivisionError: division by zero")):
        row = rows.Row("r", "Hessian", TINY["mlp"], lambda p: Route("ours", lambda: p.w), peer, 2)
        result = rows.measure(row, 1)
        assert result.reason == reason
        assert f"not measured: {reason}" in report.line(result)


def test_all_that_the_rows_must_reach_is_among_them():
    assert {row.name: row.required for row in rows.ROWS} == {
        "hessian-mlp-jax": 12,
        "hessian-mlp-torch": 10,
        "hessian-mlp-curvlinops": 40,
        "hessian-cnn-jax": 20,
        "diagonal-lenet-backpack": 8,
        "gauss-newton-mlp": 10,
        "fisher-true-mlp": 10,
        "fisher-empirical-mlp": 10,
        "training-step-lenet": 1,
        "saliency-lenet-relu": 200,
        "saliency-lenet-tanh": 200,
        "saliency-cnn-float64": 500,
        "saliency-cnn-float32": 150,
        "losses-random": 1,
        "losses-shared": 5,
    }


def test_the_problems_have_the_sizes_that_are_named():
    assert problems.mlp(64, 20, 20, 10, n=3).L.n_parameters == 1930
    assert problems.mlp(*memory.WIDTHS, n=3).L.n_parameters == 9951
    assert problems.cnn(3).L.n_parameters == 666


def test_operations_are_one_multiply_add_for_each_example_and_entry_of_a_triangle():
    assert gemm.operations(1000, 1930) == pytest.approx(3.73e9, rel=1e-3)


def test_the_peak_of_a_child_is_its_own_and_not_its_parents():
    held = np.ones(64 * 2**20 // 8)  # 64 MiB that a child does not hold
    code = "from tests.benchmarks import memory; print(memory._peak_bytes())"
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert child < held.nbytes
    assert memory.Peak("it", 10, 1500, 800, 1600.0).reached
    assert not memory.Peak("it", 10, 1700, 800, 1600.0).reached
    assert not memory.Peak("it", 10, 700, 800, 1600.0).reached, "less than the matrix itself"


def test_a_slope_is_the_exponent():
    assert growth.Curve("ours", "P", [10, 100], [1.0, 100.0]).slope == pytest.approx(2)


def test_results_are_written_as_json_and_drawn(tmp_path):
    row = rows.Row("r", "q", None, None, None, required=2)
    results = [rows.Result(row, "P=1", "peer", Comparison([1.0], [3.0]), 0.0), rows.Result(row, reason="gone")]
    curves = [growth.Curve(r, a, [10, 100], [1.0, 10.0]) for r in (growth.OURS, growth.JAX) for a in "PN"]
    parts = {"peaks": [memory.Peak("it", 10, 1200, 800, 1600.0)], "share": gemm.Share(100.0, 50.0), "growth": curves}
    kept = json.loads(json.dumps(report.as_json("python -m tests.benchmarks", report.machine(), results, **parts)))
    assert kept["rows"][0]["ratio"] == 3
    assert kept["rows"][0]["reached"] is True
    assert kept["rows"][1]["not_measured"] == "gone"
    assert kept["memory"] == [{"what": "it", "p": 10, "peak": 1200, "size": 800, "allowed": 1600.0, "reached": True}]
    assert kept["gflops"]["share"] == 0.5
    assert [c["slope"] for c in kept["growth"]] == pytest.approx([1] * 4)
    saliency = [growth.Curve(r, a, [10, 100], [1.0, 10.0]) for r in ("Tanh", "ReLU") for a in saliency_growth.TITLES]
    saliency_growth.plot(saliency, tmp_path / "saliency.png")
    assert (tmp_path / "saliency.png").read_bytes().startswith(b"\x89PNG")
    growth.plot(curves, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
