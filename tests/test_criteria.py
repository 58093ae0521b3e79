"""Criteria: each against a computation that shares no code with it, scale and sign included."""

from __future__ import annotations

import inspect
import pydoc
import statistics
from functools import partial

import numpy as np
import pytest

from minimal_nn import (
    Linear,
    Network,
    Objective,
    ReLU,
    SoftmaxCrossEntropy,
    SquaredError,
    Tanh,
    curvature,
    differences,
    memory,
    optimizers,
)
from pruning import criteria, exact, masks, updates
from tests.cases import CASES, assert_close, identify, make_case

DAMPING = 50.0  # above the most negative eigenvalue of every case
each_case = pytest.mark.parametrize("case", CASES, ids=identify)


def steps_of(w):
    """A trajectory of three steps for movement."""
    return np.stack([w, 0.9 * w + 0.01, 1.1 * w - 0.02])


def movement(L, w, **options):
    return criteria.movement(L, w, trajectory=steps_of(w), **options)


DETERMINISTIC = {
    "magnitude": criteria.magnitude,
    "magnitude_scaled": criteria.magnitude_scaled,
    "lamp": criteria.lamp,
    "taylor": criteria.taylor,
    "taylor_signed": criteria.taylor_signed,
    "taylor_squared": criteria.taylor_squared,
    "taylor_second": criteria.taylor_second,
    "movement": movement,
    "obd": criteria.obd,
    "obd_recursive": criteria.obd_recursive,
    "obs": partial(criteria.obs, damping=DAMPING),
    "obs_gradient": partial(criteria.obs_gradient, damping=DAMPING),
    "obs_layerwise": partial(criteria.obs_layerwise, damping=0.1),
    "fisher": criteria.fisher,
    "fisher_empirical": criteria.fisher_empirical,
    "woodfisher": partial(criteria.woodfisher, damping=0.01),
    "snip": criteria.snip,
    "grasp": criteria.grasp,
    "synflow": criteria.synflow,
    "wanda": criteria.wanda,
}
each_criterion = pytest.mark.parametrize("name", DETERMINISTIC)
#: judged by the layer alone or by paths (tests/test_criteria_of_layers.py); h by loops (tests/test_factors.py)
ELSEWHERE = {"obs_layerwise", "wanda", "synflow", "obd_recursive"}


def independent(case):
    """Every criterion from the complex step and plain loops."""
    L, w = case.L, case.w
    g = differences.complex_step_gradient(L, w)
    H = differences.complex_step_hessian(L, w)
    z = L.network.forward(w, L.x)
    J = differences.complex_step(lambda v: L.network.forward(v, L.x), w)  # (P, N, C)
    true, empirical = np.zeros_like(w), np.zeros((len(w), len(w)))
    for n in range(L.n_examples):
        alone = L.subset([n])
        g_n = differences.complex_step_gradient(alone, w) - L.l2 * w
        empirical += np.outer(g_n, g_n) / L.n_examples
        H_out = differences.complex_step(lambda a, n=n: L.loss.gradient(a[None], L.y[n : n + 1])[0], z[n])
        true += np.einsum("jc,cd,jd->j", J[:, n], H_out, J[:, n]) / L.n_examples
    inverse = np.linalg.inv(H + DAMPING * np.eye(len(w)))
    return {
        "magnitude": np.sqrt(w * w),
        **magnitudes_by_loops(case),
        "taylor": np.abs(w) * np.abs(g),
        "taylor_signed": -w * g,
        "taylor_squared": w * w * np.diag(empirical),
        "taylor_second": 0.5 * w * w * np.diag(H) - w * g,
        "movement": -sum(at * differences.complex_step_gradient(L, at) for at in steps_of(w)),
        "obd": 0.5 * w * w * np.diag(H),
        "obs": 0.5 * w * w / np.diag(inverse),
        "obs_gradient": np.array([constrained(H + DAMPING * np.eye(len(w)), g, j, -w[j]) for j in range(len(w))]),
        "fisher": 0.5 * w * w * true,
        "fisher_empirical": 0.5 * w * w * np.diag(empirical),
        "woodfisher": 0.5 * w * w / np.diag(np.linalg.inv(empirical + 0.01 * np.eye(len(w)))),
        "snip": np.abs(w * g) / (np.abs(w * g).sum() or 1),
        "grasp": w * (H @ g),
    }


def magnitudes_by_loops(case):
    scaled, lamp = np.zeros_like(case.w), np.zeros_like(case.w)
    for own in map(case.L.network.layout.__getitem__, case.L.network.layout):
        v = [float(a) for a in case.w[own]]
        sigma = statistics.pstdev(v)  # in exact fractions: 0 of equal weights
        scaled[own] = [abs(a) / sigma if sigma else (np.inf if a else 0) for a in v]
        for i, a in enumerate(v):
            rest = sum(b * b for k, b in enumerate(v) if (b * b, k) >= (a * a, i))
            lamp[own.start + i] = a * a / rest if rest else 0
    return {"magnitude_scaled": scaled, "lamp": lamp}


def constrained(M, g, j, to):
    """The least gᵀδ + ½ δᵀMδ over δ with δ_j = to, from the linear system of Lagrange's conditions."""
    n, e = len(g), np.eye(len(g))[j]
    system = np.block([[M, e[:, None]], [e[None], np.zeros((1, 1))]])
    delta = np.linalg.solve(system, np.append(-g, to))[:n]
    return g @ delta + 0.5 * delta @ M @ delta


@each_case
def test_every_criterion_equals_its_formula_by_another_route(case):
    expected = independent(case)
    assert set(expected) == set(DETERMINISTIC) - ELSEWHERE
    for name, by_another_route in expected.items():
        found, finite = DETERMINISTIC[name](case.L, case.w), np.isfinite(by_another_route)
        assert (found[~finite] == by_another_route[~finite]).all()
        assert_close(found[finite], by_another_route[finite], scale=1e-3)


WRONG = {
    "obd without its half": ("obd", lambda e, w: 2 * e["obd"]),
    "fisher without its half": ("fisher", lambda e, w: 2 * e["fisher"]),
    "empirical for true fisher": ("fisher", lambda e, w: e["fisher_empirical"]),
    "true for empirical fisher": ("fisher_empirical", lambda e, w: e["fisher"]),
    "square of the mean gradient for the mean of squares": ("fisher_empirical", lambda e, w: 0.5 * e["taylor"] ** 2),
    "taylor with the other sign": ("taylor_signed", lambda e, w: -e["taylor_signed"]),
    "taylor signed for absolute": ("taylor", lambda e, w: e["taylor_signed"]),
    "second order with a flipped first order": ("taylor_second", lambda e, w: 2 * e["obd"] - e["taylor_second"]),
    "obs under the name of obd": ("obd", lambda e, w: e["obs"]),
    "obd under the name of obs": ("obs", lambda e, w: e["obd"]),
    "magnitude squared": ("magnitude", lambda e, w: w**2),
    "obs under the name of obs_gradient": ("obs_gradient", lambda e, w: e["obs"]),
    "taylor_squared with a half": ("taylor_squared", lambda e, w: e["fisher_empirical"]),
    "taylor_squared from the mean gradient": ("taylor_squared", lambda e, w: e["taylor"] ** 2),
    "movement towards zero counted as good": ("movement", lambda e, w: -e["movement"]),
    "woodfisher without its half": ("woodfisher", lambda e, w: 2 * e["woodfisher"]),
    "woodfisher by the diagonal of F alone": ("woodfisher", lambda e, w: e["fisher_empirical"] + 0.005 * w**2),
    "snip without its normalisation": ("snip", lambda e, w: e["taylor"]),
    "snip signed": ("snip", lambda e, w: -e["taylor_signed"] / e["taylor"].sum()),
    "grasp with the sign of the paper's print": ("grasp", lambda e, w: -e["grasp"]),
    "magnitude over the largest of the layer": ("magnitude_scaled", lambda e, w: np.abs(w) / np.abs(w).max()),
    "lamp of magnitudes instead of squares": ("lamp", lambda e, w: np.sqrt(e["lamp"])),
    "lamp over the whole layer": ("lamp", lambda e, w: w**2 / (w**2).sum()),
    "obd of transposed weights": ("obd", lambda e, w: e["obd"][_transposed_first_layer(w)]),
}


def _transposed_first_layer(w):
    index = np.arange(len(w))
    index[:20] = index[:20].reshape(4, 5).T.ravel()
    return index


@pytest.mark.parametrize("slip", WRONG)
def test_a_wrong_variant_is_caught(slip):
    case = CASES[0]
    name, wrong = WRONG[slip]
    with pytest.raises(AssertionError):
        assert_close(wrong(independent(case), case.w), DETERMINISTIC[name](case.L, case.w), 1e-3)


def test_hand_case_of_a_least_squares_problem():
    """The four examples of chapter 1: every score by pencil."""
    x = np.array([[1.0, 0], [1, 1], [2, 1], [0, 1]])
    L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), x, x @ [[1.0], [2.0]])
    w = np.array([2.0, 1.0])
    assert criteria.taylor_signed(L, w).tolist() == [-3 / 2, 0]
    assert criteria.taylor(L, w).tolist() == [3 / 2, 0]
    assert criteria.obd(L, w).tolist() == [3, 3 / 8]
    assert criteria.taylor_second(L, w).tolist() == exact.saliency(L, w).tolist() == [3 / 2, 3 / 8]
    assert_close(criteria.obs(L, w), [3 / 2, 3 / 16])
    assert criteria.fisher_empirical(L, w).tolist() == [5 / 2, 1 / 4]
    assert_close(criteria.fisher(L, w), [3, 3 / 8])


@each_criterion
def test_a_permutation_of_hidden_units_permutes_the_scores(name):
    case = make_case("permuted", Linear(4, 5), Tanh(), Linear(5, 3), l2=0.1)
    order, P = np.array([3, 1, 0, 4, 2]), len(case.w)
    parts = case.L.network.layout.unflatten(np.arange(P))
    index = case.L.network.layout.flatten(
        {"0.weight": parts["0.weight"][:, order], "0.bias": parts["0.bias"][order],
         "2.weight": parts["2.weight"][order], "2.bias": parts["2.bias"]}
    )  # fmt: skip
    assert_close(DETERMINISTIC[name](case.L, case.w[index]), DETERMINISTIC[name](case.L, case.w)[index])


@each_criterion
def test_twice_the_same_examples_score_the_same(name):
    case = CASES[0]
    twice = case.L.subset(np.tile(np.arange(case.L.n_examples), 2))
    expected = DETERMINISTIC[name](case.L, case.w) * (np.sqrt(2) if name == "wanda" else 1)
    assert_close(DETERMINISTIC[name](twice, case.w), expected)


@pytest.mark.parametrize("name", sorted(set(DETERMINISTIC) - {"woodfisher"}))
def test_examples_in_pieces_score_the_same(name, monkeypatch):
    case = make_case("pieces", Linear(6, 5), Tanh(), Linear(5, 3), n=50, l2=0.1)
    whole = DETERMINISTIC[name](case.L, case.w)
    monkeypatch.setattr(memory, "BUDGET", 20_000)
    assert_close(DETERMINISTIC[name](case.L, case.w), whole)


def test_woodfisher_by_blocks_is_that_of_the_blocks_of_the_empirical_fisher(monkeypatch):
    case = make_case("blocks", Linear(6, 5), Tanh(), Linear(5, 3), n=50, l2=0.1)
    active = np.arange(len(case.w)) % 5 > 0
    F = curvature.fisher(case.L, case.w * active, kind="empirical")
    layers = [(0, 35), (35, 53)]
    tens = [(a, min(a + 10, end)) for start, end in layers for a in range(start, end, 10)]
    for block, parts in (("layer", layers), (10, tens)):
        for budget in (memory.BUDGET, 40_000):
            monkeypatch.setattr(memory, "BUDGET", budget)
            scores = criteria.woodfisher(case.L, case.w, active=active, damping=1e-3, block=block)
            monkeypatch.undo()
            for start, stop in parts:
                own = start + np.flatnonzero(active[start:stop])
                inverse = np.linalg.inv(F[np.ix_(own, own)] + 1e-3 * np.eye(len(own)))
                assert_close(scores[own], case.w[own] ** 2 / (2 * np.diag(inverse)), 1e-8)
    monkeypatch.setattr(memory, "BUDGET", 20_000)
    with pytest.raises(ValueError, match=r"block: gradients of 53 weights for 50 examples exceed .* at most 25, got N"):
        criteria.woodfisher(case.L, case.w)


#: what multiplying a ReLU layer by 4 and dividing the next by 4 changes, at l2 = 0; obs and woodfisher by their damping
SCALE_MATTERS = {"magnitude", "obs", "obs_gradient", "woodfisher", "obs_layerwise", "wanda", "grasp", "movement"}


@each_criterion
def test_rescaling_a_relu_layer_moves_what_the_docstrings_say(name):
    case = make_case("rescaled", Linear(4, 5), ReLU(), Linear(5, 3))
    w, layout = case.w.copy(), case.L.network.layout
    for part, factor in (("0.weight", 4.0), ("0.bias", 4.0), ("2.weight", 0.25)):
        w[layout[part]] *= factor
    before, after = DETERMINISTIC[name](case.L, case.w), DETERMINISTIC[name](case.L, w)
    if name in SCALE_MATTERS:
        assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
    else:
        assert_close(after, before)
    assert_close(exact.saliency(case.L, w), exact.saliency(case.L, case.w))


@each_criterion
def test_scores_leave_w_alone_keep_float32_and_put_what_is_gone_last(name):
    case = CASES[0]
    w = case.w.copy()
    active = np.arange(len(w)) % 3 > 0
    scores = DETERMINISTIC[name](case.L, w, active=active)
    assert (w == case.w).all()
    assert (scores[~active] == -np.inf).all()
    assert np.isfinite(scores[active]).all()
    if name != "movement":  # its trajectory here is made from w
        assert (scores == DETERMINISTIC[name](case.L, w * active, active=active)).all(), "what is gone counts as 0"
    assert DETERMINISTIC[name](case.L, w.astype(np.float32)).dtype == np.float32


def test_obs_inverts_the_hessian_of_the_active_weights_alone():
    case = make_case("restricted", Linear(4, 3), l2=0.5)
    active = np.arange(len(case.w)) % 2 > 0
    H = curvature.hessian(case.L, case.w * active)[np.ix_(active, active)]
    scores = criteria.obs(case.L, case.w, active=active)
    assert_close(scores[active], case.w[active] ** 2 / (2 * np.diag(np.linalg.inv(H))))
    assert (criteria.obs(case.L, case.w, active=np.zeros(len(active), bool)) == -np.inf).all()


def test_at_the_minimum_of_a_quadratic_obs_is_the_rise_after_reoptimising():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    L = case.L
    w = optimizers.newton(L, case.w).w
    scores = criteria.obs(L, w)
    for j in range(len(w)):
        kept = np.arange(len(w)) != j
        assert_close(scores[j], optimizers.newton(L, w, mask=kept).value - L(w), 1e-10)


def test_on_a_quadratic_obs_gradient_is_the_rise_after_reoptimising_from_any_point():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    L, w = case.L, case.w
    scores = criteria.obs_gradient(L, w)
    for j in range(len(w)):
        kept = np.arange(len(w)) != j
        assert_close(scores[j], optimizers.newton(L, w, mask=kept).value - L(w), 1e-10)
    assert_close(criteria.obs_gradient(L, optimizers.newton(L, w).w), criteria.obs(L, optimizers.newton(L, w).w), 1e-10)


HESSIANS = {
    "obs": lambda L, w, chosen: criteria.obs(L, w, active=chosen, damping=DAMPING),
    "obs_gradient": lambda L, w, chosen: criteria.obs_gradient(L, w, active=chosen, damping=DAMPING),
    "combinatorial": lambda L, w, chosen: criteria.combinatorial(L, w, 3, among=chosen),
    "updates.obs": lambda L, w, chosen: updates.obs(L, w, np.arange(len(w)) % 2 > 0, active=chosen, damping=DAMPING),
}


@pytest.mark.parametrize("name", HESSIANS)
@pytest.mark.parametrize("case", CASES[::9], ids=identify)
def test_hessians_larger_than_the_limit_are_of_chosen_weights_alone_or_refused(name, case, monkeypatch):
    chosen = np.arange(len(case.w)) % 3 > 0
    if chosen.sum() < 3:
        pytest.skip("too few weights to choose from")
    expected = HESSIANS[name](case.L, case.w, chosen)
    monkeypatch.setattr("minimal_nn.curvature.hessians.LARGEST", 8 * int(chosen.sum()) ** 2)
    monkeypatch.setattr("minimal_nn.memory.BUDGET", 3 * case.w.nbytes * 4)
    found = HESSIANS[name](case.L, case.w, chosen)
    gone = np.isneginf(expected)
    assert (np.isneginf(found) == gone).all()
    assert_close(found[~gone].astype(float), expected[~gone].astype(float), 1e-9)
    argument = "among" if name == "combinatorial" else "active"
    with pytest.raises(ValueError, match=f"{argument}: expected at most {chosen.sum()} weights.*got {len(case.w)}"):
        HESSIANS[name](case.L, case.w, None)


@pytest.mark.parametrize("name", HESSIANS)
def test_hessians_of_a_large_network_are_refused_before_they_are_begun(name):
    L = Objective(Network(Linear(300, 200)), SquaredError(), np.ones((1, 300)), np.zeros((1, 200)))
    with pytest.raises(ValueError, match="expected at most 32768 weights, whose Hessian takes 8 GiB, got 60200"):
        HESSIANS[name](L, np.ones(60_200), None)


def test_obs_gradient_is_restricted_to_the_active_weights():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    active = np.arange(len(case.w)) % 3 > 0
    w = case.w * active
    scores = criteria.obs_gradient(case.L, case.w, active=active)
    for j in np.flatnonzero(active):
        kept = active & (np.arange(len(w)) != j)
        assert_close(scores[j], optimizers.newton(case.L, w, mask=kept).value - case.L(w), 1e-10)


@pytest.mark.parametrize("name", ["magnitude_scaled", "lamp", "grasp", "snip", "woodfisher"])
def test_what_is_normalised_or_multiplied_by_a_matrix_sees_the_active_weights_alone(name):
    """Removing the inactive weights from the layer by hand, through the rows of a smaller network, changes nothing."""
    case = make_case("smaller", Linear(6, 3), loss=SquaredError(), n=20)
    smaller = Objective(Network(Linear(4, 3)), SquaredError(), case.L.x[:, :4], case.L.y)
    kept = case.L.network.layout.unflatten(np.ones(len(case.w), bool))
    kept["0.weight"][4:] = False
    active = case.L.network.layout.flatten(kept)
    found = DETERMINISTIC[name](case.L, case.w, active=active)[active]
    assert_close(found, DETERMINISTIC[name](smaller, case.w[active]))


def test_taylor_second_is_exact_where_the_loss_is_quadratic():
    case = make_case("quadratic", Linear(4, 2), loss=SquaredError(), n=30, l2=0.1)
    assert_close(criteria.taylor_second(case.L, case.w), exact.saliency(case.L, case.w))


def test_obd_and_fisher_are_one_score_on_relu_networks_without_decay():
    case = next(c for c in CASES if c.name == "relu")
    assert_close(criteria.obd(case.L, case.w), criteria.fisher(case.L, case.w))


def test_obs_on_an_indefinite_hessian_is_an_error_that_names_the_remedy():
    with pytest.raises(ValueError, match=r"least eigenvalue.*use l2 > 0 .* or pass a damping above"):
        criteria.obs(CASES[0].L, CASES[0].w)


def test_random_is_uniform_and_drawn_by_its_generator_alone():
    case = make_case("random", Linear(100, 50), n=1)
    a, b = (criteria.random(case.L, case.w, rng=np.random.default_rng(3)) for _ in range(2))
    assert (a == b).all()
    assert 0 <= a.min() < 0.01 < 0.99 < a.max() < 1
    assert a.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * len(a)))
    with pytest.raises(ValueError, match=r"rng: expected a numpy.random.Generator"):
        criteria.random(case.L, case.w, rng=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda L, w: criteria.obd(L, w[:-1]), "w: expected shape"),
        (lambda L, w: criteria.obd(L, w + 0j), "w: expected dtype float"),
        (lambda L, w: criteria.obd(L.network, w), "objective: expected a minimal_nn.Objective, got Network"),
        (lambda L, w: criteria.combinatorial(None, w, 1), "objective: expected a minimal_nn.Objective, got None"),
        (lambda L, w: criteria.obd(L, w, active=np.ones(3, bool)), "active: expected shape"),
        (lambda L, w: criteria.obd(L, w, active=np.ones(len(w))), "active: expected dtype bool"),
        (lambda L, w: criteria.obs(L, w, damping=-1), "damping: expected a finite number in"),
    ],
)
def test_criteria_refuse_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(CASES[0].L, CASES[0].w)


def test_signatures_are_those_that_callers_use():
    for name, entry in criteria.REGISTRY.items():
        parameters = inspect.signature(entry.function).parameters
        assert list(parameters)[:2] == ["objective", "w"], name
        assert parameters["active"].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters["active"].default is None
        assert set(entry.options) <= set(parameters), name
        assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values()), name
    assert str(inspect.signature(criteria.obs)) == (
        "(objective: 'Objective', w: 'np.ndarray', *, active: 'np.ndarray | None' = None, damping: 'float' = 0.0)"
        " -> 'np.ndarray'"
    )
    assert pydoc.render_doc(criteria.obd, renderer=pydoc.plaintext).splitlines()[2].startswith("obd(objective: ")


def test_the_registry_lists_every_criterion_and_what_it_says_is_so():
    """A criterion needs labels, or examples, where other ones change its scores."""
    assert set(criteria.REGISTRY) == set(DETERMINISTIC) | {"random", "fisher_sampled", "combinatorial"}
    assert set(criteria.REGISTRY) == set(criteria.__all__) - {"REGISTRY", "Entry", "information", "units"}
    case = make_case("needs", Linear(4, 5), Tanh(), Linear(5, 3), n=12, l2=0.1)
    L, w = case.L, case.w
    other_y = Objective(L.network, L.loss, L.x, (L.y + 1) % 3, L.l2)
    other_x = Objective(L.network, L.loss, L.x[::-1] * 0.5, L.y, L.l2)
    for name, entry in criteria.REGISTRY.items():
        if entry.returns == "mask":
            call = partial(entry.function, k=9)
        elif name == "movement":
            call = partial(entry.function, trajectory=np.stack([w, 0.9 * w]))
        elif "rng" in entry.options:
            call = lambda L, w, f=entry.function: f(L, w, rng=np.random.default_rng(0))  # noqa: E731
        else:
            call = DETERMINISTIC[name]
        same = call(L, w)
        assert ("labels" in entry.needs) == (call(other_y, w) != same).any(), name
        assert ("examples" in entry.needs) == (call(other_x, w) != same).any(), name
        assert entry.cost
        assert entry.family
    needs_options = {name: entry.options for name, entry in criteria.REGISTRY.items() if entry.options}
    assert needs_options == {"random": ("rng",), "fisher_sampled": ("rng",), "movement": ("trajectory",)}


def test_the_sampled_fisher_is_unbiased_and_drawn_by_its_generator_alone():
    case = make_case("sampled", Linear(4, 5), Tanh(), Linear(5, 3), n=20)
    rng = np.random.default_rng(0)
    draws = np.array([criteria.fisher_sampled(case.L, case.w, samples=2, rng=rng) for _ in range(400)])
    error = draws.mean(axis=0) - criteria.fisher(case.L, case.w)
    assert (np.abs(error) <= 5 * draws.std(axis=0) / np.sqrt(400) + 1e-15).all()
    wide = [criteria.fisher_sampled(case.L, case.w, samples=32, rng=rng) for _ in range(100)]
    ratio = draws.std(axis=0).mean() / np.std(wide, axis=0).mean()
    assert ratio == pytest.approx(4, rel=0.2), "the error falls with 1/√samples"
    a, b = (criteria.fisher_sampled(case.L, case.w, rng=np.random.default_rng(3)) for _ in range(2))
    assert (a == b).all()


def test_fisher_is_the_diagonal_of_gauss_newton():
    for case in CASES:
        if isinstance(case.L.loss, SoftmaxCrossEntropy | SquaredError):
            G = curvature.gauss_newton(case.L, case.w)
            assert_close(criteria.fisher(case.L, case.w), 0.5 * np.diag(G) * case.w**2, scale=1e-3)


def test_obd_recursive_is_exact_on_the_top_two_linear_layers_for_squared_error_and_not_below():
    case = make_case("recursive", Linear(4, 5), Tanh(), Linear(5, 4), Tanh(), Linear(4, 2), loss=SquaredError(), l2=0.1)
    found, right = criteria.obd_recursive(case.L, case.w), criteria.obd(case.L, case.w)
    top = np.arange(len(found)) >= case.L.network.layout["2.weight"].start
    assert_close(found[top], right[top])
    assert np.abs(found - right)[~top].max() > 1e-3 * np.abs(right).max()


def test_snip_does_not_change_with_the_scale_of_the_loss_and_adds_up_to_one():
    case = make_case("scaled", Linear(4, 5), Tanh(), Linear(5, 3))
    seven = Objective(case.L.network, SoftmaxCrossEntropy(scale=7.0), case.L.x, case.L.y)
    assert_close(criteria.snip(seven, case.w), criteria.snip(case.L, case.w))
    assert criteria.snip(case.L, case.w).sum() == pytest.approx(1, abs=1e-14)
    active = np.arange(len(case.w)) % 2 > 0
    assert criteria.snip(case.L, case.w, active=active)[active].sum() == pytest.approx(1, abs=1e-14)
    assert (criteria.snip(case.L, np.zeros_like(case.w)) == 0).all()


def test_lamp_and_scaled_magnitude_at_their_edges():
    net = Network(Linear(3, 1, bias=False))
    L = Objective(net, SquaredError(), np.eye(3), np.zeros((3, 1)))
    assert_close(criteria.lamp(L, np.array([1.0, 2, 3])), [1 / 14, 4 / 13, 1])
    assert_close(criteria.lamp(L, np.array([2.0, -2, 2])), [1 / 3, 1 / 2, 1]), "ties: the lower index goes first"
    assert criteria.lamp(L, np.zeros(3)).tolist() == [0, 0, 0]
    assert_close(criteria.lamp(L, np.array([1.0, 2, 3]), active=np.array([True, False, True]))[[0, 2]], [1 / 10, 1])
    assert criteria.magnitude_scaled(L, np.zeros(3)).tolist() == [0, 0, 0]
    assert criteria.magnitude_scaled(L, np.full(3, -2.0)).tolist() == [np.inf] * 3
    assert_close(criteria.magnitude_scaled(L, np.array([1.0, 2, 3])), np.array([1, 2, 3]) / np.sqrt(2 / 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exponent", [-1, 1])
def test_lamp_has_no_underflow_or_overflow_at_any_scale_of_a_layer(dtype, exponent):
    net = Network(Linear(4, 1, bias=False))
    L = Objective(net, SquaredError(), np.eye(4), np.zeros((4, 1)))
    w = np.array([3.0, -1, 2, -1], dtype)
    far = np.ldexp(w, exponent * (np.finfo(dtype).maxexp - 8))
    assert (criteria.lamp(L, far) == criteria.lamp(L, w)).all()
    assert_close(criteria.lamp(L, w).astype(float), np.array([1, 1 / 15, 4 / 13, 1 / 14]), np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_deviation_of_equal_weights_is_zero_whatever_rounds(dtype):
    net = Network(Linear(77, 1, bias=False))
    L = Objective(net, SquaredError(), np.ones((1, 77)), np.zeros((1, 1)))
    constants = [dtype(v) for v in (0.1, 1 / 3, -0.7, 1e-6, 123.4)]
    assert any(np.full(77, v, dtype).std() > 0 for v in constants), "by rounding of the mean"
    for value in constants:
        w = np.full(77, value, dtype)
        assert (criteria.magnitude_scaled(L, w) == np.inf).all()
        w[3] = np.nextafter(value, dtype(1000))
        assert (criteria.magnitude_scaled(L, w) == np.inf).all()
        w[3] = value * dtype(1.01)
        assert_close(criteria.magnitude_scaled(L, w)[0], abs(float(value)) / w.astype(float).std(), 1e-2)


def test_the_hand_case_of_grasp_and_snip():
    """One example x = (1, 1), w = (1, −2), target 0: to remove w_1 takes ‖g‖² from 2 to 8, to remove w_2 leaves it."""
    L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), np.ones((1, 2)), np.zeros((1, 1)))
    w = np.array([1.0, -2.0])
    assert criteria.grasp(L, w).tolist() == [-2, 4]
    assert_close(criteria.snip(L, w), [1 / 3, 2 / 3])
    assert criteria.taylor_signed(L, w).tolist() == [1, -2]
    norms = [np.sum(L.gradient(v) ** 2) for v in (w, w * [0, 1], w * [1, 0])]
    assert norms == [2, 8, 2]


def test_movement_rewards_weights_that_move_away_from_zero():
    L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), np.eye(2), np.array([[3.0], [0.5]]))
    w, path = np.ones(2), []
    for _ in range(5):
        path.append(w)
        w = w - 0.1 * L.gradient(w)
    scores = criteria.movement(L, w, trajectory=np.array(path))
    assert scores[0] > 0 > scores[1], "the first grows towards 3, the second falls towards ½"
    gradients = np.array([L.gradient(at) for at in path])
    assert_close(criteria.movement(L, w, trajectory=np.array(path), gradients=gradients), scores)
    with pytest.raises(ValueError, match=r"trajectory: expected shape \(any, 2\)"):
        criteria.movement(L, w, trajectory=w)
    with pytest.raises(ValueError, match=r"gradients: expected shape \(5, 2\)"):
        criteria.movement(L, w, trajectory=np.array(path), gradients=gradients[1:])


def test_a_singular_hessian_an_indefinite_one_and_a_dead_unit_are_defined():
    x = np.array([[1.0, 2], [2, 4], [3, 6]])  # two inputs that are one
    L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), x, x[:, :1])
    w = np.array([1.0, 1])
    for singular in (criteria.obs, criteria.obs_gradient, criteria.obs_layerwise):
        with pytest.raises(ValueError, match=r"positive definite matrix, got least eigenvalue .* pass a damping above"):
            singular(L, w)
        assert np.isfinite(singular(L, w, damping=1e-3)).all()
    negative = make_case("negative", Linear(4, 5), Tanh(), Linear(5, 3), n=9)
    assert criteria.obd(negative.L, negative.w).min() < 0, "away from a minimum, and not clipped"
    dead = make_case("dead", Linear(4, 5), ReLU(), Linear(5, 3), alter=lambda p: p["0.bias"].__setitem__(1, -99.0))
    into = dead.L.network.layout.unflatten(np.arange(len(dead.w)))
    silent = np.append(into["0.weight"][:, 1], into["0.bias"][1])
    for name in ("taylor", "taylor_squared", "obd", "obd_recursive", "fisher", "fisher_empirical", "snip", "grasp"):
        scores = DETERMINISTIC[name](dead.L, dead.w)
        assert (scores[silent] == 0).all(), name
        assert (scores[into["2.weight"][1]] == 0).all(), name


@each_criterion
def test_masks_of_every_criterion_at_no_and_at_all_removals(name):
    case = CASES[0]
    scores = DETERMINISTIC[name](case.L, case.w)
    assert masks.smallest(scores, 0).all()
    assert not masks.smallest(scores, 1).any()
