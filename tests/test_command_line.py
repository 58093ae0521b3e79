"""`python -m pruning compare` and `exact`: tables, the files they write, the cache, and one line for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from minimal_nn import Linear, Network, ReLU
from pruning import exact, masks, models
from pruning.__main__ import main
from pruning.criteria import REGISTRY
from pruning.scoreboard import STANDARD, chosen_criteria, scoreboard, standard_criteria, sufficient_damping, unavailable
from tests.cases import CASES, make_case

SMALL = ["compare", "--hidden", "5", "--examples", "60", "--steps", "20"]
NAMES = ["exact", *STANDARD, "half_against_half"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_compare_prints_a_table_and_writes_figure_and_json(tmp_path, capsys):
    figure, table = tmp_path / "figure.png", tmp_path / "table.json"
    assert main([*SMALL, "--figure", str(figure), "--json", str(table)]) == 0
    out, err = capsys.readouterr()
    assert "half_against_half" in out
    assert "Spearman" in out
    assert "scoring obd" in err
    assert "scoring" not in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    rows = json.loads(table.read_text())
    assert [row["criterion"] for row in rows] == NAMES
    for row in rows:
        measures = {"spearman", "kendall", "absolute", "sign_agreement", "overlap", "seconds"}
        lines = {"slope", "intercept", "slope_through_origin", "r2", "r2_line"}
        assert set(row) == {"criterion", "loss"} | measures | lines
        assert set(row["loss"]) == {"0.2", "0.5", "0.8"}
        numbers = [row[k] for k in measures | lines] + list(row["loss"].values())
        assert all(isinstance(v, float) for v in numbers)
    assert rows[0]["spearman"] == pytest.approx(1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "figure.png", "table.json"], "no part files are left"


def test_a_second_run_reads_the_network_from_the_cache_and_says_the_same(tmp_path, capsys):
    arguments = [*SMALL, "--figure", str(tmp_path / "f.svg"), "--json"]
    assert main([*arguments, str(tmp_path / "a.json")]) == 0
    assert "trained for 20 steps" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "b.json")]) == 0
    assert "read from the cache" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path / "c.json"), "--no-cache"]) == 0
    assert "trained for 20 steps" in capsys.readouterr().err
    tables = [json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json", "c.json")]
    for rows in zip(*tables, strict=True):
        timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
        assert timeless[0] == timeless[1] == timeless[2]


def test_the_cache_depends_on_recipe_and_data_and_survives_damage():
    recipe = models.Recipe(hidden=(5,), examples=60, steps=5)
    L = recipe.objective()
    w, cached = models.trained(recipe, L)
    assert not cached
    assert models.trained(recipe, L)[1]
    assert not models.trained(models.Recipe(hidden=(5,), examples=60, steps=6), L)[1]
    assert not models.trained(recipe, L.subset(slice(1, None)))[1]
    path = models._cache_path(recipe, L)
    for damage in (b"", b"not a zip", path.read_bytes()[:-40]):
        path.write_bytes(damage)
        again, cached = models.trained(recipe, L)
        assert not cached
        assert (again == w).all()
        assert models.trained(recipe, L)[1], "and a good file is there again"
    np.savez(path, w=np.full(len(w), np.nan))
    assert not models.trained(recipe, L)[1]


@pytest.mark.parametrize("dataset", [name for name in models.DATASETS if name != "mnist"])
def test_every_embedded_dataset_can_be_compared(dataset, tmp_path, capsys):
    arguments = ["compare", "--dataset", dataset, "--hidden", "4,3", "--examples", "50", "--steps", "10"]
    assert main([*arguments, "--figure", str(tmp_path / "f.png")]) == 0
    assert capsys.readouterr().out.count("\n") == 6 + len(NAMES) + 1


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_every_activation_can_be_compared(activation, tmp_path):
    assert main([*SMALL, "--activation", activation, "--figure", str(tmp_path / "f.png")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "--dataset", "cifar"], "argument --dataset: invalid choice: 'cifar'"),
        (["compare", "--activation", "swish"], "argument --activation: invalid choice: 'swish'"),
        (["compare", "--hidden", "20,x"], "argument --hidden: expected widths >= 1 such as 20 or 30,20, got '20,x'"),
        (["compare", "--hidden", "0"], "argument --hidden: expected widths >= 1"),
        (["compare", "--seed", "-1"], "argument --seed: expected an integer >= 0, got '-1'"),
        (["compare", "--seed", "1.5"], "argument --seed: expected an integer >= 0, got '1.5'"),
        (["compare", "--examples", "0"], "argument --examples: expected an integer >= 1, got '0'"),
        (
            ["compare", "--figure", "f.txt"],
            "argument --figure: expected a name that ends in .png, .svg, .pdf, got 'f.txt'",
        ),
        (["compare", "--figure", "no/such/folder/f.png"], "argument --figure: expected a file in an existing folder"),
        (["compare", "--json", "no/such/folder/t.json"], "argument --json: expected a file in an existing folder"),
        (["compare", "--criteria", "obd,oops"], "argument --criteria: 'oops' is not one of snip, grasp"),
        (["compare", "--criteria", ""], "argument --criteria: '' is not one of"),
        (["compare", "--criteria", "movement"], "argument --criteria: 'movement' needs trajectory"),
        (["compare", "--criteria", "combinatorial"], "argument --criteria: 'combinatorial' returns a mask, not scores"),
        (["compare", "--unknown"], "unrecognized arguments: --unknown"),
        (["contrast"], "argument command: invalid choice: 'contrast'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_a_bad_value_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--dataset",
        "--hidden",
        "--activation",
        "--seed",
        "--examples",
        "--criteria",
        "--list",
        "--figure",
        "--json",
    ):
        assert option in text


def test_list_prints_every_criterion_of_the_registry(capsys):
    assert main(["compare", "--list"]) == 0
    out, err = capsys.readouterr()
    head, *lines = out.splitlines()
    assert [line.split()[0] for line in lines] == list(REGISTRY)
    for line, entry in zip(lines, REGISTRY.values(), strict=True):
        cells = [line[head.index(a) : head.index(b)].strip() for a, b in (("family", "cost"), ("cost", "needs"))]
        assert cells == [entry.family, entry.cost]
        assert line.endswith("yes") == (not unavailable(entry.name))
        assert all(need in line for need in entry.needs)
    assert err == ""


def test_every_criterion_that_needs_no_more_than_the_network_can_be_compared(tmp_path, capsys):
    names = [name for name in REGISTRY if not unavailable(name)]
    assert set(REGISTRY) - set(names) == {"movement", "combinatorial"}
    files = ["--figure", str(tmp_path / "f.png"), "--json", str(tmp_path / "t.json")]
    assert main([*SMALL, "--criteria", ",".join(names), *files]) == 0
    rows = json.loads((tmp_path / "t.json").read_text())
    assert [row["criterion"] for row in rows] == ["exact", *names, "half_against_half"]
    out = capsys.readouterr().out
    assert "\nobs: damping" in out
    assert "\nobs_gradient: damping" in out


def test_the_choice_of_criteria_changes_no_row(tmp_path):
    tables = []
    for i, names in enumerate((",".join(STANDARD), "fisher_sampled,obd,random,obd")):
        table = tmp_path / f"{i}.json"
        files = ["--figure", str(tmp_path / "f.png"), "--json", str(table)]
        assert main([*SMALL, "--criteria", names, *files]) == 0
        tables.append({row["criterion"]: row | {"seconds": 0} for row in json.loads(table.read_text())})
    assert list(tables[1]) == ["exact", "fisher_sampled", "obd", "random", "half_against_half"]
    assert all(tables[1][name] == tables[0][name] for name in ("exact", "obd", "random", "half_against_half"))


def test_criteria_by_name_are_those_of_the_registry_with_their_options():
    L, w = CASES[0].L, CASES[0].w
    damping = sufficient_damping(L, w)
    scorers = chosen_criteria([n for n in REGISTRY if not unavailable(n)], np.random.default_rng(3), damping)
    for name, scorer in scorers.items():
        options = {}
        if name in ("obs", "obs_gradient"):
            options = {"damping": damping}
        elif name in ("woodfisher", "obs_layerwise"):
            options = {"damping": 1e-4}
        elif name == "random":
            options = {"rng": np.random.default_rng(3)}
        elif name == "fisher_sampled":
            options = {"rng": np.random.default_rng(3).spawn(1)[0]}
        assert (scorer(L, w) == REGISTRY[name].function(L, w, **options)).all(), name
    with pytest.raises(ValueError, match="names: 'movement' needs trajectory"):
        chosen_criteria(["movement"], np.random.default_rng(0))


def test_data_that_cannot_be_had_is_one_line_and_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINIMAL_NN_DATA", str(tmp_path))
    assert main(["compare", "--dataset", "mnist", "--figure", str(tmp_path / "f.png")]) == 1
    err = capsys.readouterr().err
    assert "MINIMAL_NN_DATA" in err
    assert err.count("\n") == 1


def test_the_module_runs_as_a_command(tmp_path):
    command = [sys.executable, "-m", "pruning", *SMALL, "--figure", str(tmp_path / "f.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "fisher_empirical" in done.stdout


def test_scoreboard_rows_are_what_their_columns_say():
    case = make_case("board", Linear(4, 5), ReLU(), Linear(5, 3), n=20, l2=0.1)
    L, w = case.L, case.w
    board = scoreboard(L, w, standard_criteria(np.random.default_rng(0), 5.0), rng=np.random.default_rng(1))
    assert (board.among == L.network.layout.select("weight")).all()
    for row in board.rows[:-1]:
        for p, loss in row.loss.items():
            assert loss == L(w * masks.smallest(board.scores[row.criterion], p, among=board.among))
    order = np.random.default_rng(1).permutation(L.n_examples)
    one, other = (exact.reference(L.subset(half), w) for half in (order[:10], order[10:]))
    assert board.rows[-1].spearman == pytest.approx(
        np.corrcoef(*(np.argsort(np.argsort(s[board.among])) for s in (one, other)))[0, 1]
    )
    assert board.rows[-1].loss[0.5] == L(w * masks.smallest(one, 0.5, among=board.among))
    lines = str(board).splitlines()
    assert len({len(line) for line in lines}) == 1, "columns are aligned"


def test_scores_that_rank_nothing_are_shown_as_a_dash_and_null():
    L, w = CASES[0].L, CASES[0].w
    board = scoreboard(L, w, {"constant": lambda L, w: np.ones(len(w))})
    assert np.isnan(board.rows[1].spearman)
    assert "–" in str(board)
    assert board.to_json()[1]["spearman"] is None
    with pytest.raises(ValueError, match="among: expected at least one candidate"):
        scoreboard(L, w, {}, among=np.zeros(len(w), bool))


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (lambda L, w: np.ones(3), r"scorers\['mine'\]: expected float scores of shape"),
        (lambda L, w: np.full(len(w), np.nan), r"scorers\['mine'\]: expected float scores"),
        (lambda L, w: w.__imul__(2.0), "read-only"),
    ],
)
def test_a_scorer_that_is_wrong_or_changes_w_is_refused(scorer, message):
    with pytest.raises(ValueError, match=message):
        scoreboard(CASES[0].L, CASES[0].w, {"mine": scorer})
    for name in ("exact", "half_against_half"):
        with pytest.raises(ValueError, match=f"scorers: the name {name} belongs"):
            scoreboard(CASES[0].L, CASES[0].w, {name: scorer})


def test_one_path_for_figure_and_table_is_refused(tmp_path, capsys):
    path = str(tmp_path / "a.svg")
    with pytest.raises(SystemExit) as stop:
        main([*SMALL, "--figure", path, "--json", path])
    assert stop.value.code == 2
    assert "argument --json: expected another file" in capsys.readouterr().err


def test_large_networks_are_compared_without_obs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pruning.commands.compare.LARGEST_FOR_OBS", 100)
    assert main([*SMALL, "--figure", str(tmp_path / "f.PNG")]) == 0
    out = capsys.readouterr().out
    assert "obs: left out above 100 parameters" in out
    assert "\nobs " not in out


def test_woodfisher_is_taken_by_blocks_where_the_whole_does_not_fit(tmp_path, monkeypatch, capsys):
    arguments = [*SMALL, "--criteria", "magnitude,woodfisher", "--figure", str(tmp_path / "f.svg")]
    assert main(arguments) == 0
    assert "woodfisher: blocks" not in capsys.readouterr().out
    monkeypatch.setattr("minimal_nn.memory.BUDGET", 2 * 8 * 60 * 300)  # 385 parameters, 325 in the first layer
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "\nwoodfisher: blocks of at most 300 weights of a layer" in out
    assert "\nwoodfisher  " in out
    case = CASES[0]
    scorer = chosen_criteria(["woodfisher"], np.random.default_rng(0), block=7)["woodfisher"]
    expected = REGISTRY["woodfisher"].function(case.L, case.w, damping=1e-4, block=7)
    assert (scorer(case.L, case.w) == expected).all()


def test_sufficient_damping_makes_the_hessian_positive_definite():
    from minimal_nn import curvature

    for case in CASES:
        curvature.inverse(curvature.hessian(case.L, case.w), sufficient_damping(case.L, case.w))


EXACT = ["exact", "--hidden", "5", "--train-examples", "60", "--steps", "20", "--examples", "30"]


def test_exact_prints_quantiles_by_tensor_and_saves_the_saliency(tmp_path, capsys):
    output, figure = tmp_path / "s.npz", tmp_path / "s.svg"
    assert main([*EXACT, "--output", str(output), "--figure", str(figure)]) == 0
    out, err = capsys.readouterr()
    assert "exact saliency of 385 parameters" in out
    assert "trained for 20 steps" in err
    assert "325 by polynomials, 60 by channels" in out
    recipe = models.Recipe(hidden=(5,), examples=60, steps=20, batch_size=100)
    L = recipe.objective()
    w, cached = models.trained(recipe, L)
    assert cached
    part = L.subset(slice(0, 30))
    with np.load(output, allow_pickle=False) as file:
        assert (file["w"] == w).all()
        s = file["saliency"]
        assert (file["saliency.2.weight"] == L.network.layout.unflatten(s)["2.weight"]).all()
    assert np.abs(s - exact.reference(part, w)).max() < 1e-12 * part(w)
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()[3:] if line}
    assert set(lines) == {"tensor", "0.weight", "0.bias", "2.weight", "2.bias"}
    shares = [float(numbers[1].rstrip("%")) for name, numbers in lines.items() if name != "tensor"]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    own = s[L.network.layout["2.weight"]]
    assert [float(v) for v in lines["2.weight"][2:]] == pytest.approx(
        [np.abs(own).mean(), own.min(), *np.quantile(own, [0.01, 0.25, 0.5, 0.75, 0.99]), own.max()], rel=6e-3
    )
    assert figure.read_text().lstrip().startswith("<?xml")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "s.npz", "s.svg"]


def test_exact_goes_on_from_a_checkpoint_and_refuses_another(tmp_path, capsys):
    files = ["--output", str(tmp_path / "s.npz"), "--figure", str(tmp_path / "s.png")]
    files += ["--checkpoint", str(tmp_path / "c.npz")]
    assert main([*EXACT, *files]) == 0
    assert main([*EXACT, *files]) == 0
    assert main([*EXACT, *files, "--examples", "29"]) == 1
    assert "belongs to another computation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "lenet-5"], "model: lenet-5 does not fit images of 8 x 8"),
        (["--model", "lenet-5", "--dataset", "xor"], "model: lenet-5 takes square images, and the data have 2 inputs"),
        (["--model", "resnet"], "invalid choice: 'resnet'"),
        (["--figure", "s.npz"], "expected a name that ends in"),
        (["--output", "s.png", "--figure", "s.png"], "expected another file than that of --figure"),
        (["--examples", "0"], "expected an integer >= 1"),
    ],
)
def test_what_exact_refuses_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["exact", *arguments])
    except SystemExit as end:
        code = end.code
    assert code in (1, 2)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("s.*"))


def test_lenet_5_is_what_it_says():
    x = np.zeros((3, 784))
    network = models.Recipe(model="lenet-5")._lenet_5(models._square_images(x).shape[-1], 10)
    assert Network(*network).layout.size == 61706
    assert Network(*models.Recipe(model="lenet-300-100")._perceptron(784, 10)).layout.size == 266610
