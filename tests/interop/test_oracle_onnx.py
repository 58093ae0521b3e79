"""Imported ONNX graphs beside torch.func and onnx.reference, in the initializers' layout; refusals name the node."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest

from pruning import oracle
from tests.cases import assert_close

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

F = torch.nn.functional

pytestmark = pytest.mark.filterwarnings("default")  # what onnx and torch warn of is theirs
DTYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}


class Graph:
    """A graph that grows node by node; `last` is the name of its last value."""

    def __init__(self, seed: int = 0, dtype: type = np.float64, opset: int = 20) -> None:
        self.rng, self.dtype, self.opset = np.random.default_rng([11, seed]), np.dtype(dtype), opset
        self.nodes: list = []
        self.arrays: dict[str, np.ndarray] = {}
        self.last = "x"

    def some(self, *of):
        return of[self.rng.integers(len(of))]

    def tensor(self, name: str, *shape: int, low: float = -1.0) -> str:
        return self.constant(f"{name}{len(self.arrays)}", self.rng.uniform(low, 1, shape).astype(self.dtype))

    def constant(self, name: str, array: np.ndarray) -> str:
        self.arrays[name] = array
        return name

    def node(self, kind: str, *inputs: str, outputs: int = 1, **options) -> str:
        names = [f"v{len(self.nodes)}", *(f"v{len(self.nodes)}_{i}" for i in range(1, outputs))]
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"node{len(self.nodes) + 1}", **options))
        self.last = names[0]
        return self.last

    def then(self, kind: str, *inputs: str, **options) -> str:
        return self.node(kind, self.last, *inputs, **options)

    def model(self, inputs=("x",), outputs=None):
        element = DTYPES[self.dtype]
        info = [helper.make_tensor_value_info(name, element, None) for name in inputs]
        made = [helper.make_tensor_value_info(name, element, ["N", "C"]) for name in outputs or (self.last,)]
        for value in info:  # the checker wants a shape, and none is known
            value.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
        tensors = [numpy_helper.from_array(a, name) for name, a in self.arrays.items()]
        graph = helper.make_graph(self.nodes, "drawn", info, made, tensors)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)],
            ir_version=8,
        )

    def linear(self, inputs: int, outputs: int) -> None:
        way = self.some(0, 1, 2, 3, 4)
        if way == 0:
            self.then("Gemm", self.tensor("W", inputs, outputs), self.tensor("b", outputs))
        elif way == 1:
            self.then("Gemm", self.tensor("W", outputs, inputs), self.tensor("b", outputs), transB=1)
        elif way == 2:
            product = self.then("MatMul", self.tensor("W", inputs, outputs))
            terms = (product, self.tensor("b", outputs))
            self.node("Add", *(terms if self.some(0, 1) else terms[::-1]))
        elif way == 3:
            value, weight = self.last, self.tensor("W", outputs, inputs)
            self.node("MatMul", value, self.node("Transpose", weight, perm=[1, 0]))
        else:
            self.then("Gemm", self.tensor("W", inputs, outputs), alpha=1.0, beta=0.5)

    def phi(self) -> None:
        kind = self.some("Relu", "Tanh", "Sigmoid", "Softplus", "Gelu", "Silu", "Identity", "Dropout")
        if kind == "Silu":
            value = self.last
            factors = (value, self.node("Sigmoid", value))
            self.node("Mul", *(factors if self.some(0, 1) else factors[::-1]))
        else:
            self.then("Relu" if kind == "Gelu" and self.opset < 20 else kind)

    def norm(self, width: int) -> None:
        statistics = self.tensor("mean", width), self.tensor("variance", width, low=0.2)
        scale, shift = self.tensor("scale", width, low=0.3), self.tensor("shift", width)
        self.then("BatchNormalization", scale, shift, *statistics, epsilon=self.some(1e-5, 1e-2))

    def rows(self, shape: tuple[int, ...]) -> None:
        """Make rows of images of this shape, in one of the ways that exporters have."""
        way, size = self.some(0, 1, 2, 3), int(np.prod(shape))
        if way == 0:
            self.then("Flatten", axis=self.some(1, -3))
        elif way == 1:
            made = self.some([0, -1], [-1, size], [0, size])
            self.then("Reshape", self.constant(f"shape{len(self.nodes)}", np.array(made)))
        elif way == 2:
            made = self.constant(f"shape{len(self.nodes)}", np.array([-1, size]))
            value, copy = self.last, self.node("Identity", made)
            self.node("Reshape", value, copy)
        else:  # view(x.size(0), -1)
            value = self.last
            of_batch = self.node("Gather", self.node("Shape", value), self.constant("zero", np.array([0])), axis=0)
            rest = self.node("Constant", value=numpy_helper.from_array(np.array([-1]), "rest"))
            self.node("Reshape", value, self.node("Concat", of_batch, rest, axis=0))


def draw_vectors(seed: int) -> tuple[Graph, tuple[int, ...], int]:
    g = Graph(seed, opset=13 if seed % 3 == 0 else 20)
    a, b, C = (int(n) for n in g.rng.integers(1, 5, 3))
    g.linear(a, b)
    g.phi()
    if g.some(0, 1):
        g.norm(b)
    if g.some(0, 1):
        start = g.last
        g.linear(b, 3)
        g.phi()
        g.linear(3, b)
        terms = (start, g.last)
        g.node(g.some("Add", "Sum"), *(terms if g.some(0, 1) else terms[::-1]))
        g.phi()
    g.linear(b, C)
    return g, (a,), C


def draw_images(seed: int) -> tuple[Graph, tuple[int, ...], int]:
    g = Graph(seed, opset=13 if seed % 3 == 0 else 20)
    C, channels = int(g.rng.integers(1, 4)), g.some(1, 2)
    options, side = g.some(
        ({"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}, 6),
        ({"auto_pad": "SAME_UPPER"}, 6),
        ({"auto_pad": "VALID", "group": 1}, 4),
        ({"strides": [2, 2], "dilations": [1, 1]}, 2),
        ({"strides": [2, 2], "pads": [1, 1, 1, 1]}, 3),
    )
    g.then("Conv", g.tensor("W", 2, channels, 3, 3), *((g.tensor("b", 2),) if g.some(0, 1) else ()), **options)
    if g.some(0, 1):
        g.norm(2)
    g.phi()
    if g.some(0, 1):
        start = g.last
        g.then("Conv", g.tensor("W", 2, 2, 1, 1))
        g.node("Add", start, g.last)
    pool = g.some("AveragePool", "MaxPool", "GlobalAveragePool", "ReduceMean")
    if pool in ("AveragePool", "MaxPool"):
        g.then(pool, kernel_shape=[2, 2], **g.some({}, {"strides": [1, 1]}))
        g.rows((2, side - 1, side - 1))
        g.linear(2 * (side - 1) ** 2, C)
    else:
        if pool == "GlobalAveragePool":
            g.then(pool)
            g.rows((2, 1, 1)) if g.some(0, 1) else g.then("Squeeze", g.constant("axes", np.array([2, 3])))
        elif g.opset < 18:
            g.then(pool, axes=[2, 3], keepdims=0)
        else:
            g.then(pool, g.constant("axes", np.array([2, -1])), keepdims=0)
        g.linear(2, C)
    return g, (channels, 6, 6), C


def by_torch(g: Graph, p: dict, x):
    """Run the graph's nodes by torch's functions, with the parameters p."""
    values = {name: torch.tensor(a) for name, a in g.arrays.items()} | p | {"x": x}
    plain = {"Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Softplus": F.softplus, "Gelu": F.gelu,
             "Identity": lambda a: a, "Dropout": lambda a: a, "Mul": torch.mul, "Add": torch.add, "Sum": torch.add,
             "MatMul": torch.matmul, "Transpose": lambda a: a.T, "Flatten": lambda a: a.flatten(1),
             "Reshape": lambda a, _: a.flatten(1), "Squeeze": lambda a, _: a.flatten(1),
             "ReduceMean": lambda a, *_: a.mean((2, 3)), "GlobalAveragePool": lambda a: a.mean((2, 3), keepdim=True),
             "Shape": lambda a: None, "Gather": lambda *_: None, "Constant": lambda: None,
             "Concat": lambda *_: None}  # fmt: skip
    for node in g.nodes:
        given = [values[name] for name in node.input]
        o = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Gemm":
            found = given[0] @ (given[1].T if o.get("transB") else given[1]) + (given[2] if len(given) > 2 else 0)
        elif node.op_type == "Conv":
            padding = 1 if o.get("auto_pad") == b"SAME_UPPER" else o.get("pads", [0])[0]
            found = F.conv2d(*given, stride=o.get("strides", [1])[0], padding=padding)
        elif node.op_type == "BatchNormalization":
            value, scale, shift, mean, variance = given
            found = F.batch_norm(value, mean, variance, scale, shift, eps=o["epsilon"])
        elif node.op_type in ("AveragePool", "MaxPool"):
            pool = F.avg_pool2d if node.op_type == "AveragePool" else F.max_pool2d
            found = pool(given[0], 2, o.get("strides", [1])[0])
        else:
            found = plain[node.op_type](*given)
        values[node.output[0]] = found
    return values[g.last]


def draw_loss(rng, n: int, C: int):
    """Return a loss's name and reduction, targets, and the loss by torch's functional of that name."""
    kind, reduction = rng.choice(["cross_entropy", "mse", "bce_with_logits"]), str(rng.choice(["mean", "sum"]))
    y = rng.integers(0, C, n) if kind == "cross_entropy" else rng.random((n, C))
    function = {"cross_entropy": F.cross_entropy, "mse": F.mse_loss}.get(kind, F.binary_cross_entropy_with_logits)
    return str(kind), reduction, y, lambda z: function(z, torch.tensor(y), reduction=reduction)


def parameters_of(g: Graph) -> dict[str, np.ndarray]:
    """Everything whose name begins as weights, biases, scales and shifts do."""
    return {name: a for name, a in g.arrays.items() if name.rstrip("0123456789") in ("W", "b", "scale", "shift")}


def joined(tensors: dict) -> np.ndarray:
    return np.concatenate([a.ravel() for a in tensors.values()])


@pytest.mark.parametrize("seed", range(60))
def test_derivatives_and_saliency_equal_torchs_and_the_reference_evaluators_in_the_initializers_layout(seed):
    g, shape, C = (draw_vectors, draw_images)[seed % 2](seed)
    n = g.some(1, 4)
    x = g.rng.standard_normal((n, *shape))
    kind, reduction, y, loss = draw_loss(g.rng, n, C)
    l2 = g.some(0.0, 0.1)
    model = g.model()
    case = oracle.from_onnx(model, kind, x, y, l2=l2, reduction=reduction)
    own = parameters_of(g)
    assert {name: a.shape for name, a in case.parameters.items()} == {name: a.shape for name, a in own.items()}
    assert all(np.array_equal(case.parameters[name], a) for name, a in own.items())
    v = torch.tensor(joined(own))

    def outputs(v):
        parts = v.split([a.size for a in own.values()])
        p = {name: part.reshape(a.shape) for (name, a), part in zip(own.items(), parts, strict=True)}
        return by_torch(g, p, torch.tensor(x))

    def objective(v):
        return loss(outputs(v)) + 0.5 * l2 * (v @ v)

    z, J = outputs(v), torch.func.jacrev(outputs)(v).reshape(n * C, -1)
    G = J.T @ torch.func.hessian(loss)(z).reshape(n * C, n * C) @ J
    assert case.L(case.w) == pytest.approx(float(objective(v)), rel=1e-12)
    assert_close(joined(case.gradient()), torch.func.grad(objective)(v).numpy(), 1e-10, scale=1e-3)
    for blocks, theirs in ((case.hessian(), torch.func.hessian(objective)(v)), (case.gauss_newton(), G)):
        for a, b in itertools.product(own, own):
            assert blocks[a][b].shape == own[a].shape + own[b].shape
        ours = np.block([[blocks[a][b].reshape(own[a].size, own[b].size) for b in own] for a in own])
        assert_close(ours, theirs.numpy(), 1e-10, scale=1e-3)
    runs = [lambda p: by_torch(g, {name: torch.tensor(a) for name, a in p.items()}, torch.tensor(x))]
    kinds = {node.op_type for node in g.nodes}
    if "Gelu" not in kinds and not (g.opset < 14 and "BatchNormalization" in kinds):  # which it has not in float64
        evaluator = ReferenceEvaluator(model)
        runs.append(lambda p: torch.tensor(evaluator.run(None, {"x": x, **p})[0]))
    for run in runs:
        assert_close(joined(case.exact()), saliency_by_loop(run, own, loss, l2), 1e-10, scale=case.L(case.w))


def saliency_by_loop(run, own, loss, l2):
    """Remove one entry of one initializer after the other and run the graph."""

    def value(p):
        return float(loss(run(p))) + 0.5 * l2 * sum((a**2).sum() for a in p.values())

    before, found = value(own), []
    for name, a in own.items():
        for place in np.ndindex(a.shape):
            removed = a.copy()
            removed[place] = 0
            found.append(value(own | {name: removed}) - before)
    return np.array(found)


class Block(torch.nn.Module):
    """What exporters meet: a convolution with batch norm and SiLU around which the input is added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.BatchNorm2d(2)

    def forward(self, x):
        return x + F.silu(self.norm(self.conv(x)))


class Exported(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.fc = torch.nn.Conv2d(1, 2, 2), Block(), torch.nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(self.block(self.stem(x)), 2)
        return self.fc(F.gelu(x.view(x.size(0), -1)))


def test_what_torch_exports_is_what_torch_has():
    torch.manual_seed(0)
    model, buffer, x, y = Exported().eval(), io.BytesIO(), torch.randn(4, 1, 5, 5), torch.tensor([0, 2, 1, 1])
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)  # the exporter merges initializers of equal values
    torch.onnx.export(
        model, (x,), buffer, dynamo=False, opset_version=20, input_names=["x"], dynamic_axes={"x": {0: "N"}},
        training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
    )  # fmt: skip
    theirs = oracle.from_torch(model, torch.nn.CrossEntropyLoss(), x, y)
    ours = oracle.from_onnx(onnx.load_from_string(buffer.getvalue()), "cross_entropy", x, y)
    assert sorted(ours.parameters) == sorted(theirs.parameters)
    for name, s in theirs.exact().items():
        assert_close(ours.exact()[name], s, 1e-10, scale=ours.L(ours.w))


def simple(last: str = "Relu", seed: int = 0, **options) -> Graph:
    """x (N, 4) through a Gemm, one node, and another Gemm to three outputs."""
    g = Graph(seed)
    g.then("Gemm", g.tensor("W", 4, 4), g.tensor("b", 4))
    g.then(last, **options)
    g.then("Gemm", g.tensor("W", 4, 3), g.tensor("b", 3))
    return g


X, Y = np.linspace(-1, 1, 20).reshape(5, 4), np.array([0, 2, 1, 1, 0])
IMAGES = np.linspace(-1, 1, 5 * 2 * 36).reshape(5, 2, 6, 6)


def test_a_file_and_the_model_itself_give_the_same_case_named_after_the_graph(tmp_path):
    g = simple("Tanh")
    path = tmp_path / "model.onnx"
    onnx.save(g.model(), path)
    cases = [oracle.from_onnx(m, "cross_entropy", X, Y) for m in (path, str(path), g.model())]
    assert [case.name for case in cases] == ["drawn"] * 3
    assert oracle.from_onnx(path, "cross_entropy", X, Y, name="mine").name == "mine"
    assert all(np.array_equal(case.w, cases[0].w) for case in cases)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_numbers_are_those_of_the_file_in_float64(dtype):
    g = simple("Gelu")
    g.arrays = {name: a.astype(dtype) for name, a in g.arrays.items()}
    g.dtype = np.dtype(dtype)
    model = g.model()
    before = model.SerializeToString()
    case = oracle.from_onnx(model, "cross_entropy", X, Y)
    assert model.SerializeToString() == before
    for name, a in g.arrays.items():
        assert np.array_equal(case.parameters[name], a.astype(np.float64))


def test_weights_may_stand_in_constants_and_functions():
    g = simple("Tanh")
    plain = oracle.from_onnx(g.model(), "cross_entropy", X, Y)
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(a)) for name, a in g.arrays.items()
    ]
    arrays, g.arrays, g.nodes = g.arrays, {}, [*constants, *g.nodes]
    case = oracle.from_onnx(g.model(), "cross_entropy", X, Y)
    assert sorted(case.parameters) == sorted(arrays)
    assert np.array_equal(case.exact()["W0"], plain.exact()["W0"])
    one = helper.make_node("Tanh", ["a"], ["b"])
    body = helper.make_function("mine", "Act", ["a"], ["b"], [one], [helper.make_opsetid("", 20)])
    g = simple("Tanh")
    g.nodes[1] = helper.make_node("Act", ["v0"], ["v1"], domain="mine")
    model = g.model()
    model.functions.append(body)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    assert np.array_equal(oracle.from_onnx(model, "cross_entropy", X, Y).exact()["W0"], plain.exact()["W0"])


def test_one_number_for_each_example_may_come_as_rows_of_one():
    g = Graph()
    g.then("Gemm", g.tensor("W", 4, 1), g.tensor("b", 1))
    case = oracle.from_onnx(g.model(), "mse", X, np.ones((5, 1)))
    g.then("Squeeze", g.constant("axes", np.array([1])))
    flat = oracle.from_onnx(g.model(), "mse", X, np.ones((5, 1)))
    assert case.L(case.w) == flat.L(flat.w)


def test_nodes_that_the_output_does_not_need_do_not_count():
    g = simple("Tanh")
    last = g.last
    g.node("Softmax", last)
    g.last = last
    assert "Softmax" not in repr(oracle.from_onnx(g.model(), "mse", X, np.ones((5, 3))))


def with_nodes(build):
    """A graph of two Gemms with what build(graph) puts between them."""
    g = Graph()
    g.then("Gemm", g.tensor("W", 4, 4), g.tensor("b", 4))
    build(g)
    g.then("Gemm", g.tensor("W", 4, 3), g.tensor("b", 3))
    return g


def over_images(kind, *shapes, **options):
    g = Graph()
    g.then(kind, *(g.tensor("W", *shape) for shape in shapes), **options)
    g.then("Flatten")
    g.then("Gemm", g.tensor("W", 1, 3))
    return g


def twice(g):
    g.then("Gemm", "W0", "b1")


def norm(g, **options):
    g.then("BatchNormalization", *(g.tensor(n, 4, low=0.1) for n in ("s", "t", "m", "v")), **options)


def no_parameters():
    g = Graph()
    g.then("Tanh")
    return g


def images_out():
    g = Graph()
    g.then("Conv", g.tensor("W", 2, 2, 3, 3))
    return g


REFUSED = {
    "leaky relu": (lambda: simple("LeakyRelu"), r"node2 \(LeakyRelu\): cannot be expressed by our layers"),
    "softmax": (lambda: simple("Softmax"), r"node2 \(Softmax\): .*leave it out, the loss takes logits"),
    "gelu by tanh": (lambda: simple("Gelu", approximate="tanh"), r"node2 \(Gelu\): approximate=tanh cannot"),
    "alpha": (
        lambda: with_nodes(lambda g: g.then("Gemm", g.tensor("W", 4, 4), alpha=2.0)),
        "node2 .*expected transA=0, alpha=1",
    ),
    "beta": (
        lambda: with_nodes(lambda g: g.then("Gemm", g.tensor("W", 4, 4), g.tensor("b", 4), beta=0.5)),
        r"node2 \(Gemm\): expected transA=0, alpha=1 and beta=1",
    ),
    "transA": (
        lambda: with_nodes(lambda g: g.then("Gemm", g.tensor("W", 5, 4), transA=1)),
        "node2 .*expected transA=0",
    ),
    "a bias of one number": (
        lambda: with_nodes(lambda g: g.then("Gemm", g.tensor("W", 4, 4), g.tensor("b", 1))),
        r"node2 .*b3 of shape \(4,\)",
    ),
    "a bias of rows": (
        lambda: with_nodes(lambda g: (g.then("MatMul", g.tensor("W", 4, 4)), g.then("Add", g.tensor("b", 1, 4)))),
        r"node3 \(Add\): b3 \(1, 4\) can be expressed only as the bias",
    ),
    "a bias after an activation": (
        lambda: with_nodes(lambda g: (g.then("Relu"), g.then("Add", g.tensor("b", 4)))),
        r"node3 \(Add\): .*only as the bias",
    ),
    "a bias of whole numbers": (
        lambda: with_nodes(
            lambda g: (g.then("MatMul", g.tensor("W", 4, 4)), g.then("Add", g.constant("i", np.arange(4))))
        ),
        r"node3 \(Add\): expected i to be an initializer of floating numbers",
    ),
    "computed weights": (
        lambda: with_nodes(
            lambda g: g.node("MatMul", "v0", g.node("Mul", g.tensor("W", 4, 4), g.constant("two", np.array(2.0))))
        ),
        r"node3 \(MatMul\): expected v1 to be an initializer",
    ),
    "the input on the right": (
        lambda: with_nodes(lambda g: g.node("MatMul", g.tensor("W", 5, 5), "v0")),
        r"node2 \(MatMul\): .*got a branch",
    ),
    "shared": (lambda: with_nodes(twice), r"node2 \(Gemm\): takes W0, as another layer does"),
    "a square": (
        lambda: with_nodes(lambda g: g.node("Mul", "v0", "v0")),
        r"node2 \(Mul\): of products only x · sigmoid",
    ),
    "a factor": (lambda: with_nodes(lambda g: g.then("Mul", g.tensor("f", 4))), r"node2 \(Mul\): of products only"),
    "a branch": (
        lambda: with_nodes(lambda g: (g.node("Tanh", "v0"), g.node("Relu", "v0"), g.node("Add", "v1", "v2"))),
        r"node3 \(Relu\): .*got a branch",
    ),
    "three terms": (
        lambda: with_nodes(lambda g: (g.node("Tanh", "v0"), g.node("Sum", "v1", "v0", "v0"))),
        r"node3 \(Sum\): .*two terms, got 3",
    ),
    "a clip": (lambda: simple("Clip"), r"node2 \(Clip\): cannot be expressed"),
    "an axis": (lambda: simple("ReduceSum", keepdims=1), r"node2 \(ReduceSum\): cannot be expressed"),
    "training": (lambda: with_nodes(lambda g: norm(g, training_mode=1, outputs=3)), "node2 .*: is in training mode"),
    "dropout": (
        lambda: with_nodes(
            lambda g: g.then("Dropout", g.constant("r", np.float32(0.5)), g.constant("t", np.array(True)))
        ),
        r"node2 \(Dropout\): is in training mode",
    ),
    "moving statistics": (
        lambda: with_nodes(lambda g: g.then("BatchNormalization", *(g.tensor(n, 4) for n in "st"), "v0", "v0")),
        r"node2 \(BatchNormalization\): expected v0 not to depend on the input",
    ),
    "columns": (
        lambda: with_nodes(lambda g: g.then("Reshape", g.constant("s", np.array([4, 5])))),
        r"node2 \(Reshape\): only rows",
    ),
    "unequal widths": (
        lambda: with_nodes(lambda g: g.then("Gemm", g.tensor("W", 5, 4))),
        "node2 .*expected inputs of shape",
    ),
    "another domain": (
        lambda: with_nodes(lambda g: g.then("Gelu", domain="com.microsoft")),
        r"node2 \(Gelu\): operators of com.microsoft",
    ),
    "branches of control": (
        lambda: with_nodes(lambda g: g.then("Einsum", g.tensor("W", 4, 4), equation="ab,bc->ac")),
        r"node2 \(Einsum\): cannot",
    ),
    "no parameters": (no_parameters, "model: expected at least one layer with parameters, got none"),
}
REFUSED_IMAGES = {
    "groups": (lambda: over_images("Conv", (2, 1, 3, 3), group=2), r"node1 \(Conv\): expected groups=1 and dilation=1"),
    "dilation": (
        lambda: over_images("Conv", (2, 2, 3, 3), dilations=[2, 2]),
        "node1 .*expected groups=1 and dilation=1",
    ),
    "uneven padding": (
        lambda: over_images("Conv", (2, 2, 2, 2), pads=[0, 0, 1, 1]),
        "node1 .*the same padding on all sides",
    ),
    "two strides": (lambda: over_images("Conv", (2, 2, 2, 2), strides=[1, 2]), "node1 .*stride: expected the same"),
    "a rectangle": (lambda: over_images("Conv", (2, 2, 3, 2)), "node1 .*kernel: expected the same whole number"),
    "same, even": (lambda: over_images("Conv", (2, 2, 2, 2), auto_pad="SAME_UPPER"), "node1 .*an even kernel pads"),
    "same, stride": (
        lambda: over_images("Conv", (2, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
        "node1 .*auto_pad=SAME_UPPER with",
    ),
    "transposed": (lambda: over_images("ConvTranspose", (2, 2, 3, 3)), r"node1 \(ConvTranspose\): cannot be expressed"),
    "pooling, rounded up": (
        lambda: over_images("MaxPool", kernel_shape=[4, 4], ceil_mode=1),
        "node1 .*expected ceil_mode=0",
    ),
    "pooling, padded": (
        lambda: over_images("MaxPool", kernel_shape=[2, 2], pads=[1] * 4),
        "node1 .*expected padding=0",
    ),
    "pooling of lines": (lambda: over_images("MaxPool", kernel_shape=[2]), "node1 .*expected windows of two axes"),
    "the mean of lines": (
        lambda: over_images("ReduceMean", keepdims=1),
        r"node1 \(ReduceMean\): only the mean over both axes",
    ),
    "flattened too much": (lambda: over_images("Flatten", axis=2), r"node1 \(Flatten\): only rows, .*got \[10, 36\]"),
    "a squeeze of nothing": (lambda: over_images("Squeeze"), r"node1 \(Squeeze\): only rows"),
    "four numbers of images": (images_out, r"model: expected outputs of shape \(N, C\), got \(5, 2, 4, 4\)"),
}


@pytest.mark.parametrize(
    ("make", "message", "x"),
    [(*row, X) for row in REFUSED.values()] + [(*row, IMAGES) for row in REFUSED_IMAGES.values()],
    ids=[*REFUSED, *REFUSED_IMAGES],
)
def test_what_cannot_be_imported_is_an_error_that_names_the_node(make, message, x):
    with pytest.raises(ValueError, match=message) as error:
        oracle.from_onnx(make().model(), "cross_entropy", x, Y)
    assert "\n" not in str(error.value)


def test_several_inputs_or_outputs_are_refused():
    g = Graph()
    g.node("Add", "x", "other")
    g.then("Gemm", g.tensor("W", 4, 3))
    with pytest.raises(ValueError, match=r"model: expected one input and one output, got \['x', 'other'\]"):
        oracle.from_onnx(g.model(inputs=("x", "other")), "cross_entropy", X, Y)
    g = simple()
    with pytest.raises(ValueError, match=r"expected one input and one output, got \['x'\] and \['v2', 'v0'\]"):
        oracle.from_onnx(g.model(outputs=("v2", "v0")), "cross_entropy", X, Y)


def test_a_file_that_holds_no_model_is_one_error(tmp_path):
    path, good = tmp_path / "model.onnx", simple().model().SerializeToString()
    for content in (b"", b"junk", good[: len(good) // 2], good[:-1], b"PK\x03\x04" + good):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model: expected an ONNX model, got one that cannot be read") as error:
            oracle.from_onnx(path, "cross_entropy", X, Y)
        assert "\n" not in str(error.value)
    for absent in (tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(ValueError, match="model: expected an ONNX model, got one that cannot be read"):
            oracle.from_onnx(absent, "cross_entropy", X, Y)
    with pytest.raises(ValueError, match=r"model: expected a path or an onnx\.ModelProto, got 3"):
        oracle.from_onnx(3, "cross_entropy", X, Y)


def test_a_file_with_wrong_bytes_is_one_error_or_a_case(tmp_path):
    rng, path, refused = np.random.default_rng(0), tmp_path / "model.onnx", 0
    graphs = [draw(seed) for seed in range(4) for draw in (draw_vectors, draw_images)]
    for _ in range(600):
        g, shape, C = graphs[rng.integers(len(graphs))]
        content = bytearray(g.model().SerializeToString())
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            content[place : place + rng.integers(2)] = rng.integers(0, 256, rng.integers(3), dtype=np.uint8).tobytes()
        path.write_bytes(content)
        try:
            oracle.from_onnx(path, "mse", np.ones((3, *shape)), np.ones((3, C)))
        except ValueError as error:
            refused += "\n" not in str(error)
    assert 300 < refused < 600


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "hinge"}, "loss: expected one of cross_entropy, mse, bce_with_logits, got 'hinge'"),
        ({"loss": torch.nn.MSELoss()}, "loss: expected one of"),
        ({"reduction": "max"}, "reduction: expected one of mean, sum, none, got 'max'"),
        ({"x": X[0]}, r"x: expected at least one example, shape \(N, ...\)"),
        ({"x": X * np.nan}, "x: expected finite numbers"),
        ({"x": X[:, :3]}, r"node1 \(Gemm\): Linear\(4, 4\): expected inputs of shape \(4,\)"),
        ({"y": Y + 1}, "y: expected labels in 0..2"),
        ({"y": Y[:4]}, "y: expected 5 targets for 5 examples, got 4"),
        ({"loss": "mse", "y": np.ones(5)}, r"y: expected the shape of the outputs, \(5, 3\)"),
        ({"l2": -1}, "l2: expected a finite number in"),
    ],
)
def test_bad_arguments_are_refused(changes, message):
    arguments = {"model": simple().model(), "loss": "cross_entropy", "x": X, "y": Y} | changes
    with pytest.raises(ValueError, match=message):
        oracle.from_onnx(**arguments)


def test_weights_that_are_no_numbers_are_refused():
    g = simple()
    g.arrays["W0"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"model\['W0'\]: expected finite numbers, got nan"):
        oracle.from_onnx(g.model(), "cross_entropy", X, Y)
