"""The exact saliency: the fast form equals a plain loop of forward passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimal_nn import (
    GELU,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Flatten,
    Identity,
    Linear,
    Network,
    Objective,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    SoftmaxCrossEntropy,
    Softplus,
    SquaredError,
    Tanh,
    memory,
)
from pruning import exact
from pruning.exact import polynomials, removals
from tests.cases import CASES, assert_close, identify, make_case

each_case = pytest.mark.parametrize("case", CASES, ids=identify)


@each_case
def test_saliency_equals_a_plain_loop_of_forward_passes(case):
    L, w = case.L, case.w
    plain = []
    for j in range(len(w)):
        e_j = np.eye(len(w))[j]
        plain.append(L((1 - e_j) * w) - L(w))
    scale = abs(L(w))
    assert_close(exact.saliency(L, w), plain, scale=scale)
    assert_close(exact.reference(L, w), plain, scale=scale)


@each_case
def test_saliency_in_pieces_is_the_same(case, monkeypatch):
    whole = exact.saliency(case.L, case.w)
    monkeypatch.setattr(memory.pieces, "__defaults__", (1.0,))
    assert_close(exact.saliency(case.L, case.w), whole, scale=abs(case.L(case.w)))


@each_case
def test_saliency_by_polynomials_and_lines_wherever_they_apply(case, monkeypatch):
    """On networks of this size weights are removed one by one unless the threshold says otherwise."""
    one_by_one = exact.saliency(case.L, case.w)
    monkeypatch.setattr(removals, "WORTHWHILE", 1)
    assert_close(exact.saliency(case.L, case.w), one_by_one, scale=abs(case.L(case.w)))


def test_every_route_has_its_cases_and_their_counts_add_up(monkeypatch):
    found = {"channels": 0, "prefix": 0, "lines": 0, "polynomials": 0}
    monkeypatch.setattr(removals, "WORTHWHILE", 1)
    for case in CASES:
        counts = exact.routes(case.L.network)
        assert sum(counts.values()) == len(case.w)
        residual = [layer for layer in case.L.network.layers if isinstance(layer, Residual)]
        assert ("prefix" in counts) == any(layer.parameter_shapes() for layer in residual)
        for by in counts:
            found[by] += 1
    assert min(found.values()) >= 3, found


@pytest.mark.parametrize("phi", [Tanh(), ReLU()])
def test_no_parameter_of_the_lenets_takes_a_forward_pass_of_its_own(phi):
    chain = Network(Linear(784, 300), phi, Linear(300, 100), phi, Linear(100, 10))
    pool = phi, AvgPool2d(2)
    cnn = Network(Conv2d(1, 6, 5), *pool, Conv2d(6, 16, 5), *pool, Flatten(), Linear(256, 180), phi, Linear(180, 10))
    for network, size in ((chain, 266_610), (cnn, 50_642)):
        counts = exact.routes(network)
        assert "prefix" not in counts
        assert sum(counts.values()) == size


phis = st.sampled_from([Identity(), Tanh(), ReLU(), Sigmoid(), Softplus(), SiLU(), GELU()])


@settings(max_examples=40, deadline=None)
@given(
    inputs=st.integers(24, 40),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    mixed=st.lists(phis, min_size=3, max_size=3),
    same=st.booleans(),
    norm=st.booleans(),
    sparse=st.booleans(),
    size=st.sampled_from([0.1, 1.0, 10.0]),
    loss=st.sampled_from([SoftmaxCrossEntropy(), SquaredError()]),
    seed=st.integers(0, 2**16),
)
def test_any_wide_first_layer_agrees_with_a_loop(inputs, widths, mixed, same, norm, sparse, size, loss, seed):
    layers = [Linear(inputs, widths[0])]
    for phi, a, b in zip(mixed, widths, [*widths[1:], 2], strict=False):
        layers += [mixed[0] if same else phi, *([BatchNorm(a)] if norm else []), Linear(a, b)]

    def alter(p):
        p["0.weight"][...] *= size

    case = make_case("drawn", *layers, loss=loss, n=7, l2=0.1, alter=alter, seed=seed)
    if sparse:
        case.L.x[np.random.default_rng(seed).random(case.L.x.shape) < 0.7] = 0
    assert_close(exact.saliency(case.L, case.w), exact.reference(case.L, case.w), scale=abs(case.L(case.w)))


def test_a_polynomial_of_too_low_a_degree_is_not_used():
    x, scale = np.linspace(-1, 1, 50)[:, None], 1.0
    steep = lambda b, n, t: np.tanh(40 * t)  # noqa: E731
    _, done = polynomials.sums(x, np.ones((1, 1)), range(1), steep, scale, np.ones((1, 50)))
    assert not done[0]
    cubic = lambda b, n, t: t**3 - 2 * t  # noqa: E731
    total, done = polynomials.sums(x, np.full((1, 1), 2.0), range(1), cubic, scale, np.ones((1, 50)) * x.T)
    assert done[0]
    assert_close(total[0, 0, 0], (x * ((-2 * x) ** 3 + 4 * x)).sum())


def naive_groups(L, w, ids):
    return np.array([L(np.where(ids == g, 0, w)) - L(w) for g in range(ids.max() + 1)])


@each_case
def test_groups_of_every_shape_equal_forward_passes_without_them(case):
    L, w = case.L, case.w
    rng, P, layout = np.random.default_rng(0), len(case.w), case.L.network.layout
    whole_layers = np.zeros(P, int)
    for name in layout:
        whole_layers[layout[name]] = int(name.split(".")[0])
    anywhere = rng.integers(-1, 4, P)
    anywhere[0] = 5  # group 4 is empty
    blocks = np.arange(P) // 3
    columns = np.full(P, -1)
    first = next(iter(layout))
    columns[layout[first]] = np.arange(layout[first].stop - layout[first].start) % layout.shapes[first][-1]
    for ids in (whole_layers, anywhere, blocks, columns, np.arange(P)):
        assert_close(exact.saliency(L, w, groups=ids), naive_groups(L, w, ids), scale=abs(L(w)))
    singles = exact.saliency(L, w, groups=np.arange(P))
    assert_close(singles, exact.saliency(L, w), scale=abs(L(w)))


@each_case
def test_gates_on_units_equal_a_forward_pass_with_their_output_at_zero(case):
    L, w, layers = case.L, case.w, case.L.network.layers
    trace = L.network.trace(w, L.x)
    p = L.network.parameters(w)
    for i, layer in enumerate(layers):
        gate = i
        while gate + 1 < len(layers) and type(layers[gate + 1]).__name__ in PHI:
            gate += 1
        expected = []
        for u in range(trace[gate + 1].shape[1]):
            h = trace[gate + 1].copy()
            h[:, u] = 0
            for later, own in zip(layers[gate + 1 :], p[gate + 1 :], strict=True):
                h = later.forward(own, h)
            expected.append(L.loss.value(h, L.y).mean() - L.loss.value(trace[-1], L.y).mean())
        assert_close(exact.saliency(L, w, units=i), expected, scale=abs(L(w))), layer


PHI = {"Identity", "Tanh", "ReLU", "Sigmoid", "Softplus", "SiLU", "GELU"}


@each_case
def test_per_example_sums_equal_totals(case):
    L, w = case.L, case.w
    ids = np.arange(len(w)) % 4
    penalty = 0.5 * L.l2 * w**2
    for options, saved in (({}, penalty), ({"groups": ids}, np.bincount(ids, penalty)), ({"units": 0}, 0)):
        each = exact.saliency(L, w, per_example=True, **options)
        assert each.shape[0] == L.n_examples
        assert_close(each.mean(axis=0) - saved, exact.saliency(L, w, **options), scale=abs(L(w)))
    losses = L.per_example_losses(w)
    removed = np.where(np.arange(len(w)) == 1, 0, w)
    assert_close(exact.saliency(L, w, per_example=True)[:, 1], L.per_example_losses(removed) - losses, scale=1.0)


@each_case
def test_weights_of_the_examples_give_the_saliency_of_every_subset(case, monkeypatch):
    monkeypatch.setattr(removals, "WORTHWHILE", 1)
    L, w = case.L, case.w
    if L.n_examples < 2:
        return
    halves = np.arange(L.n_examples) % 2 == 0, np.arange(L.n_examples) % 2 == 1
    omega = np.array([half / half.sum() for half in halves])
    found = exact.weighted_saliencies(L, w, omega)
    for s, half in zip(found, halves, strict=True):
        part = L.subset(half)
        assert_close(s - 0.5 * L.l2 * w**2, exact.saliency(part, w), scale=abs(L(w)))


@each_case
def test_split_half_gives_the_saliency_of_both_halves(case):
    L, w = case.L, case.w
    if L.n_examples < 2:
        with pytest.raises(ValueError, match="L: expected at least 2 examples to split, got 1"):
            exact.split_half(L, w, rng=np.random.default_rng(0))
        return
    halves = exact.split_half(L, w, splits=2, rng=np.random.default_rng(5))
    rng, n = np.random.default_rng(5), L.n_examples // 2
    for first, second in zip(halves.first, halves.second, strict=True):
        order = rng.permutation(L.n_examples)
        assert_close(first, exact.saliency(L.subset(order[:n]), w), scale=abs(L(w)))
        assert_close(second, exact.saliency(L.subset(order[n:]), w), scale=abs(L(w)))
    assert_close(halves.whole, exact.saliency(L, w), scale=abs(L(w)))
    penalty = -0.5 * L.l2 * w**2
    for s in (*halves.first, *halves.second, halves.whole):
        assert (s[halves.dead] == penalty[halves.dead]).all(), "weights on inputs of 0 are worth exactly their penalty"


def test_split_half_tells_weights_on_inputs_of_zero_apart():
    case = make_case("dead", Linear(4, 5), ReLU(), Linear(5, 3), zero_input=2)
    p = case.L.network.layout.unflatten(w := case.w.copy())
    p["0.weight"][:, 3] = 0
    p["0.bias"][3] = -1
    dead = case.L.network.layout.unflatten(exact.split_half(case.L, w, 1, rng=np.random.default_rng(0)).dead)
    assert dead["0.weight"][2].all()
    assert not dead["0.weight"][[0, 1, 3]].any()
    assert dead["2.weight"][3].all()
    assert not dead["2.weight"][[0, 1, 2, 4]].any()
    assert not dead["0.bias"].any()
    assert not dead["2.bias"].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": np.zeros(5, int)}, r"groups: expected shape \(6,\)"),
        ({"groups": np.zeros(6)}, "groups: expected dtype integer"),
        ({"groups": np.full(6, -1)}, "groups: expected ids >= 0"),
        ({"groups": np.array([0, 0, 0, 0, 0, -2])}, "groups: expected ids >= 0"),
        (
            {"groups": np.array([0, 0, 0, 0, 0, 10**12])},
            "groups: expected ids below the 6 parameters, got 1000000000000",
        ),
        ({"executor": 3}, "executor: expected a concurrent.futures.Executor, got 3"),
        ({"units": 1}, "units: expected the index of one of 1 layers, got 1"),
        ({"units": -1}, "units: expected"),
        ({"units": 0, "groups": np.zeros(6, int)}, "units: expected None where groups are given"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(options, message):
    L = Objective(Network(Linear(2, 2)), SoftmaxCrossEntropy(), np.eye(2), np.array([0, 1]))
    with pytest.raises(ValueError, match=message):
        exact.saliency(L, np.ones(6), **options)


@pytest.mark.parametrize("dtype", [np.complex128, np.float16])
def test_other_dtypes_than_float32_and_float64_are_refused(dtype):
    L = Objective(Network(Linear(2, 2)), SoftmaxCrossEntropy(), np.eye(2), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"w: expected (dtype float|float64 or float32), got"):
        exact.saliency(L, np.ones(6, dtype))


def test_a_loss_that_overflows_is_an_error_and_no_nan():
    net = Network(Linear(2, 1, bias=False), ReLU(), Linear(1, 1, bias=False))
    L = Objective(net, SquaredError(), np.ones((1, 2)), np.zeros((1, 1)))
    w = np.array([1e160, -1e160, 1.0])
    with pytest.raises(FloatingPointError, match=r"not finite; the largest \|w\| is 1e\+160"):
        exact.saliency(L, w)


def test_a_dip_between_the_points_of_a_polynomial_is_seen():
    """All Chebyshev points lie where tanh is saturated; three removals do not."""
    w = np.zeros(25)
    w[:3], w[24] = (1000, 2000, -2000), 1
    x = np.zeros((1, 24))
    x[0, :3] = 1
    net = Network(Linear(24, 1, bias=False), Tanh(), Linear(1, 1, bias=False))
    L = Objective(net, SquaredError(), x, np.zeros((1, 1)))
    assert exact.saliency(L, w)[0] == -0.5
    assert_close(exact.saliency(L, w), exact.reference(L, w))


def test_a_dead_channel_before_flatten_is_worth_nothing():
    net = Network(Conv2d(1, 2, 3), ReLU(), Conv2d(2, 2, 3), Flatten(), Linear(8, 3))
    rng = np.random.default_rng(0)
    L = Objective(net, SoftmaxCrossEntropy(), rng.normal(size=(4, 1, 6, 6)), np.array([0, 1, 2, 0]))
    w = rng.normal(size=L.n_parameters)
    net.parameters(w)[0]["weight"][:, 0] = 0
    for bias in (0.0, -100.0):
        net.parameters(w)[0]["bias"][0] = bias
        assert_close(exact.saliency(L, w), exact.reference(L, w), scale=L(w))
        assert exact.saliency(L, w, units=0)[0] == 0
        assert not exact.saliency(L, w, groups=np.arange(len(w)))[:9].any()


def test_per_example_refuses_what_does_not_fit_into_memory(monkeypatch):
    monkeypatch.setattr(memory, "BUDGET", 1000)
    case = CASES[0]
    with pytest.raises(ValueError, match=r"per_example: expected \(9, \d+\) within 0 MiB"):
        exact.saliency(case.L, case.w, per_example=True)


def test_hand_case_of_a_least_squares_problem():
    x = np.array([[1.0, 0], [1, 1], [2, 1], [0, 1]])
    L = Objective(Network(Linear(2, 1, bias=False)), SquaredError(), x, x @ [[1.0], [2.0]])
    assert exact.saliency(L, np.array([2.0, 1.0])).tolist() == [3 / 2, 3 / 8]
    assert exact.saliency(L, np.array([1.0, 2.0])).tolist() == [3 / 4, 3 / 2]


def test_hand_case_of_a_relu_that_switches_off():
    """x = (1, 2), W = [[1, −1], [1, 1]], v = (1, −2), y = 2, no biases: removing W_22 leaves the loss at ½."""
    net = Network(Linear(2, 2, bias=False), ReLU(), Linear(2, 1, bias=False))
    L = Objective(net, SquaredError(), np.array([[1.0, 2.0]]), np.array([[2.0]]))
    assert exact.saliency(L, np.array([1.0, -1, 1, 1, 1, -2])).tolist() == [1.5, 4, 4, 0, 7.5, 0]


def test_weights_of_a_dead_unit_or_a_dead_input_are_worth_exactly_their_penalty():
    dead = next(c for c in CASES if c.name == "dead relu unit")
    s = dead.L.network.layout.unflatten(exact.saliency(dead.L, dead.w))
    assert not s["0.weight"][:, 0].any()
    assert not s["2.weight"][0].any()
    zero = make_case("zero input", Linear(4, 5), Tanh(), Linear(5, 3), zero_input=2, n=70, l2=0.3)
    s = zero.L.network.layout.unflatten(exact.saliency(zero.L, zero.w))
    w = zero.L.network.layout.unflatten(zero.w)
    assert_close(s["0.weight"][2], -0.15 * w["0.weight"][2] ** 2)
    without = Objective(zero.L.network, zero.L.loss, zero.L.x, zero.L.y)
    assert not without.network.layout.unflatten(exact.saliency(without, zero.w))["0.weight"][2].any()


@pytest.mark.parametrize("phi", [Tanh(), ReLU()])
def test_weights_into_a_unit_that_nothing_hears_are_worth_exactly_nothing(phi, monkeypatch):
    """Unit 1 of the first layer is heard by unit 2 of the second alone, and that by none of the outputs."""
    case = make_case("unheard", Linear(30, 4), phi, Linear(4, 5), phi, Linear(5, 6), phi, Linear(6, 3), n=50)
    p = case.L.network.layout.unflatten(w := case.w.copy())
    p["2.weight"][1, [0, 1, 3, 4]] = 0
    p["4.weight"][2] = 0
    for threshold in (1, 1000):
        monkeypatch.setattr(removals, "WORTHWHILE", threshold)
        s = case.L.network.layout.unflatten(exact.saliency(case.L, w))
        assert not s["0.weight"][:, 1].any()
        assert not s["0.bias"][1]
        assert not s["2.weight"][:, 2].any()
        assert s["0.weight"][:, [0, 2, 3]].any()


def test_a_weight_that_is_zero_already_is_worth_exactly_nothing():
    case = next(c for c in CASES if c.name == "weights at zero")
    assert not exact.saliency(case.L, case.w)[case.w == 0].any()


def test_saliency_is_a_mean_over_examples():
    case = make_case("mean", Linear(4, 5), Tanh(), Linear(5, 3), n=8)
    halves = [exact.saliency(case.L.subset(half), case.w) for half in (slice(0, 3), slice(3, 8))]
    assert_close((3 * halves[0] + 5 * halves[1]) / 8, exact.saliency(case.L, case.w))


def test_rescaling_a_relu_layer_leaves_the_saliency_as_it_was():
    case = make_case("rescaled", Linear(4, 5), ReLU(), Linear(5, 3))
    w = case.w.copy()
    for name, factor in (("0.weight", 4.0), ("0.bias", 4.0), ("2.weight", 0.25)):
        w[case.L.network.layout[name]] *= factor
    assert_close(exact.saliency(case.L, w), exact.saliency(case.L, case.w))


def test_saliency_stays_in_float32():
    case = CASES[0]
    s = exact.saliency(case.L, case.w.astype(np.float32))
    assert s.dtype == np.float32
    assert_close(s, exact.saliency(case.L, case.w), 1e-5, scale=1.0)


def test_saliency_leaves_w_alone_and_refuses_a_wrong_one():
    L = Objective(Network(Linear(2, 2)), SoftmaxCrossEntropy(), np.eye(2), np.array([0, 1]))
    w = np.ones(6)
    exact.saliency(L, w)
    assert (w == 1).all()
    for f in (exact.saliency, exact.reference):
        with pytest.raises(ValueError, match=r"w: expected shape \(6,\)"):
            f(L, np.ones(5))
        with pytest.raises(ValueError, match="w: expected finite numbers, got nan at index"):
            f(L, np.array([1, np.nan, 1, 1, 1, 1]))
