"""The report: every number recomputed by loops, what is not defined, and what it prints and exports."""

from __future__ import annotations

import csv
import io
import itertools
import json
from functools import partial

import numpy as np
import pytest
from scipy import stats

from minimal_nn import Linear, SquaredError, Tanh
from pruning import compare, criteria, exact, masks
from pruning.compare import SetMethod
from tests.cases import CASES, identify, make_case

SPARSITIES = (0.2, 0.5, 0.8)
BEST = SetMethod(lambda L, w, k, among: exact.best_subsets(L, w, k, among).mask)
SCORERS = {"magnitude": criteria.magnitude, "taylor_second": criteria.taylor_second, "best": BEST}


def small(seed):
    case = make_case("small", Linear(3, 3), Tanh(), Linear(3, 1), loss=SquaredError(), n=12, l2=0.05, seed=seed)
    return case.L, case.w


def large(seed):
    case = make_case("large", Linear(4, 4), Tanh(), Linear(4, 3), n=12, seed=seed)
    return case.L, case.w


NETWORKS = {f"seed {s}": small(s) for s in range(3)}
REPORT = compare.report(NETWORKS, SCORERS, rng=np.random.default_rng(0), splits=4)
LARGE = {f"seed {s}": large(s) for s in range(2)}


def loss_without(L, w, removed):
    w = w.copy()
    w[list(removed)] = 0
    return L(w)


def scores_of(name, L, w):
    return exact.reference(L, w) if name == "exact" else SCORERS[name](L, w)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("name", ["exact", "magnitude", "taylor_second"])
def test_every_number_of_a_criterion_is_what_its_name_says(network, name):
    L, w = NETWORKS[network]
    (row,) = [r for r in REPORT.rows() if (r["network"], r["criterion"]) == (network, name)]
    among = np.flatnonzero(L.network.layout.select("weight"))
    n = len(among)
    c, s = scores_of(name, L, w)[among], exact.reference(L, w)[among]
    assert row["candidates"] == n == 12
    assert row["dense_loss"] == L(w)
    assert row["spearman"] == pytest.approx(stats.spearmanr(c, s).statistic)
    assert row["kendall"] == pytest.approx(stats.kendalltau(c, s).statistic)
    assert row["absolute"] == pytest.approx(stats.spearmanr(abs(c), abs(s)).statistic)
    assert row["sign_agreement"] == pytest.approx(
        np.mean([np.sign(u) == np.sign(v) for u, v in zip(c, s, strict=True)])
    )
    assert row["overlap"] == len(set(np.argsort(c)[:2]) & set(np.argsort(s)[:2])) / 2, "2 are 20 % of 12"
    assert [row["slope"], row["intercept"]] == pytest.approx(np.polyfit(c, s, 1))
    assert row["r2"] == pytest.approx(1 - ((s - c) ** 2).sum() / ((s - s.mean()) ** 2).sum())
    assert row["r2_line"] == pytest.approx(stats.pearsonr(c, s).statistic ** 2)
    gone = []
    greedy = [L(w)]
    while len(gone) < n:
        gone.append(min(set(among) - set(gone), key=lambda j: loss_without(L, w, [*gone, j])))
        greedy.append(loss_without(L, w, gone))
    for p, k in ((0.2, 2), (0.5, 6), (0.8, 10)):
        loss = loss_without(L, w, among[np.argsort(c)[:k]])
        best = min(loss_without(L, w, chosen) for chosen in itertools.combinations(among, k))
        assert row[f"loss_{p}"] == pytest.approx(loss)
        assert row[f"best_{p}"] == pytest.approx(best)
        assert row[f"greedy_{p}"] == pytest.approx(greedy[k])
        assert row[f"regret_best_{p}"] == pytest.approx(loss - best, abs=1e-12)
        assert row[f"regret_greedy_{p}"] == pytest.approx(loss - greedy[k], abs=1e-12)
        assert best - 1e-12 <= row[f"nested_{p}"]


def test_half_against_half_stands_in_every_row_and_is_that_of_compare():
    rng = np.random.default_rng(0)
    for network, (L, w) in NETWORKS.items():
        m = compare.half_against_half(L, w, 4, rng=rng).mean_and_sd()
        for row in REPORT.rows():
            if row["network"] == network:
                assert {k: row[f"half_{k}"] for k in m} == m


def test_a_set_method_has_losses_and_overlap_and_no_ranks():
    for row in REPORT.rows():
        if row["criterion"] == "best":
            assert [row[f"regret_best_{p}"] for p in SPARSITIES] == pytest.approx([0, 0, 0], abs=1e-12)
            L, w = NETWORKS[row["network"]]
            among = L.network.layout.select("weight")
            s = exact.saliency(L, w)
            mask = exact.best_subsets(L, w, 2, among).mask
            assert row["overlap"] == (~mask & ~masks.smallest(s, 2 / 12, among=among)).sum() / 2
            assert all(np.isnan(row[k]) for k in ("spearman", "kendall", "absolute", "sign_agreement", "slope", "r2"))
    assert "best" not in REPORT.networks["seed 0"].board.scores


def test_the_row_of_the_exact_saliency_is_one_and_nobody_is_below_the_best():
    for column in ("spearman", "kendall", "absolute", "sign_agreement", "overlap", "slope", "r2", "r2_line"):
        assert REPORT.values(column)["exact"] == pytest.approx([1, 1, 1])
    for p in SPARSITIES:
        assert all((v >= -1e-12).all() for v in REPORT.values(f"regret_best_{p}").values())


def test_the_parts_of_regret_come_from_the_rows():
    for network, (L, w) in NETWORKS.items():
        f = exact.frontier(L, w, L.network.layout.select("weight"))
        found = compare.prices(f, criteria.magnitude(L, w))
        rows = {r["criterion"]: r for r in REPORT.rows() if r["network"] == network}
        for p, k in ((0.2, 2), (0.5, 6), (0.8, 10)):
            one = rows["exact"]
            assert one[f"nested_{p}"] - one[f"best_{p}"] == pytest.approx(found.nestedness[k], abs=1e-12)
            assert one[f"loss_{p}"] - one[f"nested_{p}"] == pytest.approx(found.additivity[k], abs=1e-12)
            own = rows["magnitude"][f"loss_{p}"] - one[f"loss_{p}"]
            assert own == pytest.approx(found.own_error[k], abs=1e-12)


def test_json_is_strict_and_says_the_same_as_csv():
    text = json.dumps(REPORT.to_json(), allow_nan=False)
    back = json.loads(text)
    assert back["sparsities"] == list(SPARSITIES)
    lines = list(csv.DictReader(io.StringIO(REPORT.to_csv())))
    names = ["exact", *SCORERS]
    assert [(r["network"], r["criterion"]) for r in lines] == [(n, c) for n in NETWORKS for c in names]
    for row, line, own in zip(back["rows"], lines, REPORT.rows(), strict=True):
        assert set(row) == set(line) == set(own)
        for key, value in row.items():
            if key in ("network", "criterion"):
                assert value == line[key] == own[key]
            elif value is None:
                assert line[key] == ""
                assert np.isnan(own[key])
            else:
                assert float(line[key]) == value == own[key], "to the last digit"


def test_the_table_shows_mean_and_standard_deviation():
    text = str(REPORT)
    first, *parts = text.split("\n\n")
    assert first.splitlines()[0] == "3 networks of 12 candidates; mean ± s.d. over networks"
    ranks = {line.split("  ")[0]: line for line in parts[0].splitlines()}
    values = REPORT.values("spearman")["magnitude"]
    assert f"{sum(values) / 3:.3f} ± {stats.tstd(values):.3f}" in ranks["magnitude"]
    assert "–" in ranks["best"]
    signed = [judged.halves.mean_and_sd()["signed"] for judged in REPORT.networks.values()]
    assert f"Spearman {np.mean(signed):.3f} ± {stats.tstd(signed):.3f}" in parts[1]
    for title, part in zip(
        ("loss after", "regret: loss beyond exact greedy", "beyond the best"), parts[2:], strict=True
    ):
        assert title in part
        lines = part.splitlines()[1:]
        assert lines[0].split() == ["criterion", "-20%", "-50%", "-80%"]
        assert len({len(line) for line in lines}) == 1, "columns are aligned"
    regret = REPORT.values("regret_best_0.5")["magnitude"]
    assert f"{regret.mean():#.4g} ± {regret.std(ddof=1):.2g}" in parts[-1]


def test_one_network_has_no_spread():
    text = str(compare.report({"a": small(0)}, {}, rng=np.random.default_rng(0), splits=2))
    assert "±" not in text.split("\n\n", 1)[1]


def test_larger_networks_have_no_best_and_greedy_only_when_asked():
    plain = compare.report(LARGE, {"magnitude": criteria.magnitude}, rng=np.random.default_rng(0), splits=2)
    assert all(np.isnan(row["regret_greedy_0.5"]) and np.isnan(row["regret_best_0.5"]) for row in plain.rows())
    assert "regret" not in str(plain)
    asked = compare.report(
        LARGE, {"magnitude": criteria.magnitude}, rng=np.random.default_rng(0), splits=2, greedy=True, sparsities=(0.5,)
    )
    for row in asked.rows():
        L, w = LARGE[row["network"]]
        path = compare.exact_greedy(L, w, 14)
        assert row["greedy_0.5"] == path.losses[14] == L(w * path.mask(14, len(w)))
        assert row["regret_greedy_0.5"] == row["loss_0.5"] - path.losses[14]
        assert np.isnan(row["regret_best_0.5"])
    assert "beyond exact greedy" in str(asked)
    assert "beyond the best" not in str(asked)


@pytest.mark.parametrize("case", CASES[::6], ids=identify)
def test_a_report_of_any_network_has_losses_of_exactly_k_and_strict_json(case):
    among = np.random.default_rng(0).random(len(case.w)) < 8 / len(case.w)
    among[0] = True
    found = compare.report(
        {"it": (case.L, case.w)},
        {"obd": criteria.obd, "greedy": SetMethod(lambda L, w, k, a: compare.exact_greedy(L, w, k, a).mask(k, len(w)))},
        rng=np.random.default_rng(0),
        among=among,
        splits=2,
    )
    exact_row, obd, by_sets = found.rows()
    assert obd["candidates"] == among.sum()
    for p in SPARSITIES:
        mask = masks.smallest(criteria.obd(case.L, case.w), p, among=among)
        assert obd[f"loss_{p}"] == case.L(case.w * mask)
        assert min(r[f"regret_best_{p}"] for r in found.rows()) >= -1e-12 * case.L(case.w)
    json.dumps(found.to_json(), allow_nan=False)
    assert str(found).count("\n") > 5
    assert ("half_signed" in obd) == (case.L.n_examples > 1)
    assert exact_row["overlap"] == 1
    assert np.isnan(by_sets["spearman"])


def test_scores_that_are_constant_or_infinite_have_no_ranks_or_no_line():
    L, w = small(0)
    scorers = {
        "constant": lambda L, w: np.ones(len(w)),
        "infinite": lambda L, w: np.where(np.arange(len(w)) == 0, np.inf, np.abs(w)),
    }
    found = compare.report({"a": (L, w)}, scorers, rng=np.random.default_rng(0), splits=2)
    constant, infinite = found.rows()[1:]
    assert np.isnan([constant["spearman"], constant["slope"], infinite["slope"]]).all()
    assert np.isfinite([infinite["spearman"], constant["loss_0.5"], infinite["loss_0.5"]]).all()
    assert found.networks["a"].board.rows[1].calibration is None


def test_the_table_leaves_out_networks_where_a_number_is_not_defined():
    networks = {"a": small(0), "b": small(1), "c": small(2)}
    some = {"sometimes": lambda L, w: np.ones(len(w)) if L is networks["b"][0] else np.abs(w)}
    found = compare.report(networks, some, rng=np.random.default_rng(0), splits=2)
    values = found.values("spearman")["sometimes"]
    assert np.isnan(values).tolist() == [False, True, False]
    assert f"{(values[0] + values[2]) / 2:.3f} ± {stats.tstd(values[[0, 2]]):.3f}" in str(found)


def test_progress_names_network_and_row():
    said = []
    compare.report({"a": small(0)}, {"best": BEST}, rng=np.random.default_rng(0), splits=2, progress=said.append)
    assert said == ["a: exact", "a: best"]


def chosen(change):
    """A set method whose masks `change` alters."""
    return {"mine": SetMethod(lambda L, w, k, among: change(exact.best_subsets(L, w, k, among).mask))}


def with_a_bias(mask):
    kept, bias = np.flatnonzero(~mask), 9
    mask[kept[0]], mask[bias] = True, False
    return mask


run = partial(compare.report, rng=np.random.default_rng(0), splits=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: run({}, {}), "networks: expected at least one, got none"),
        (lambda: run({"a": small(0)[0]}, {}), r"networks\['a'\]: expected a pair \(Objective, w\), got Objective"),
        (lambda: run({"a": (1, 2)}, {}), r"networks\['a'\]: expected a pair \(Objective, w\), got \(1, 2\)"),
        (lambda: run({"a": small(0)}, {"exact": BEST}), "scorers: the name exact belongs"),
        (lambda: run({"a": small(0)}, {}, sparsities=(0.5, 1.5)), r"sparsities: expected a finite number in \[0, 1\]"),
        (lambda: run({"a": small(0)}, {}, splits=0), "splits: expected an integer >= 1, got 0"),
        (lambda: run({"a": small(0)}, {}, rng=1), "rng: expected a numpy.random.Generator"),
        (lambda: run({"a": small(0)}, {}, among=np.zeros(16, bool)), "among: expected at least one candidate"),
        (lambda: run({"a": small(0)}, {"mine": lambda L, w: w[1:]}), r"scorers\['mine'\]: expected float scores"),
        (
            lambda: run({"a": small(0)}, chosen(np.ones_like)),
            r"scorers\['mine'\]: expected a mask without \d+ of the candidates, got one without 0 weights, 0 of which",
        ),
        (lambda: run({"a": small(0)}, chosen(with_a_bias)), "got one without 2 weights, 1 of which are no candidates"),
        (lambda: run({"a": small(0)}, chosen(np.float64)), r"scorers\['mine'\]: expected dtype bool"),
        (lambda: REPORT.values("rank"), "column: expected one of spearman, kendall, absolute"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
