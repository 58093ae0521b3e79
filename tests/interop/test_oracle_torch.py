"""Imported torch modules beside torch.func, in the module's own layout; what cannot be imported is a named error."""

from __future__ import annotations

import copy
import functools
import itertools

import numpy as np
import pytest

from pruning import oracle
from tests.cases import assert_close

torch = pytest.importorskip("torch")
nn, F = torch.nn, torch.nn.functional
prune = pytest.importorskip("torch.nn.utils.prune")

pytestmark = pytest.mark.filterwarnings("default")  # what torch warns of is torch's
ACTIVATIONS = (nn.Tanh, nn.ReLU, nn.Sigmoid, nn.Softplus, nn.GELU, nn.SiLU, nn.Identity)


class Draw:
    """Seeded choices of a module, its loss and its data."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([7, seed])
        torch.manual_seed(seed)

    def some(self, *of):
        return of[self.rng.integers(len(of))]

    def width(self) -> int:
        return int(self.rng.integers(2, 6))

    def phi(self, inplace: bool = False) -> nn.Module:
        """An activation; torch can differentiate one that works in place where nobody needs its input."""
        kind = self.some(*ACTIVATIONS)
        return kind(inplace=bool(self.some(0, 1))) if inplace and kind in (nn.ReLU, nn.SiLU) else kind()

    def norm(self, width: int, images: bool = False) -> nn.Module:
        norm = (nn.BatchNorm2d if images else nn.BatchNorm1d)(width, eps=self.some(1e-5, 1e-3))
        for tensor, low in ((norm.running_mean, -1), (norm.running_var, 0.3), (norm.weight, 0.5), (norm.bias, -1)):
            tensor.data.copy_(torch.tensor(self.rng.uniform(low, 1.5, width)))
        return norm

    def vectors(self, inputs: int, outputs: int) -> list[nn.Module]:
        """A Linear layer and what may stand behind it."""
        layers = [nn.Linear(inputs, outputs, bias=bool(self.some(1, 1, 0)))]
        layers += [self.norm(outputs)] if self.some(0, 0, 1) else []
        layers += [self.phi(inplace=True)]
        return layers + ([nn.Dropout(0.5)] if self.some(0, 0, 1) else [])

    def images(self, inputs: int, outputs: int) -> list[nn.Module]:
        """A convolution that keeps the image's size, or nearly, and what may stand behind it."""
        options = self.some(
            {"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "padding": "same"}, {"kernel_size": 1},
            {"kernel_size": 2, "stride": 1}, {"kernel_size": (3, 3), "stride": (2, 2), "padding": (1, 1)},
        )  # fmt: skip
        layers = [nn.Conv2d(inputs, outputs, bias=bool(self.some(0, 1)), **options)]
        layers += [self.norm(outputs, images=True)] if self.some(0, 1) else []
        return [*layers, self.phi(inplace=True)]


class Sum(nn.Module):
    """A residual block, its sum written in one of the usual ways."""

    def __init__(self, way: int, *layers: nn.Module) -> None:
        super().__init__()
        self.way, self.f, self.relu = way, nn.Sequential(*layers), nn.ReLU(inplace=True)

    def forward(self, x):
        if self.way == 0:
            return x + self.f(x)
        if self.way == 1:
            return self.relu(torch.add(self.f(x), x))
        if self.way == 2:
            identity, out = x, self.f(x)
            out += identity
            return out
        return F.relu(self.f(x).add_(x))


class Functional(nn.Module):
    """A forward pass of functions, with parameters of its own and a mask."""

    def __init__(self, draw: Draw, channels: int, outputs: int) -> None:
        super().__init__()
        self.filters = nn.Parameter(0.5 * torch.randn(channels, 1, 3, 3))
        self.norm, self.inner = draw.norm(channels, images=True), nn.Linear(channels * 4, 4)
        self.W, self.b = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(3))
        self.V, self.way = nn.Parameter(torch.randn(outputs, 3)), draw.some(0, 1, 2, 3)
        self.register_buffer("mask", torch.tensor([[1.0, 0, 1], [1, 1, 1], [0, 1, 1], [1, 1, 0]]))

    def forward(self, x):
        x = F.conv2d(x, self.filters, None, 1, 1)
        bn = self.norm
        x = F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, bn.training, eps=bn.eps)
        x = F.avg_pool2d(x.tanh(), 2) if self.way % 2 else F.max_pool2d(F.relu(x), (2, 2))
        rows = (
            lambda: x.view(x.size(0), -1),
            lambda: x.reshape(-1, x.shape[1] * x.shape[2] * x.size(3)),
            lambda: torch.flatten(x, 1),
            lambda: x.flatten(start_dim=1).contiguous(),
        )
        h = F.linear(rows[self.way](), self.inner.weight, self.inner.bias)
        h = h * torch.sigmoid(h) if self.way < 2 else F.gelu(F.dropout(h, 0.5, self.training))
        h = torch.matmul(h, self.W * self.mask) + self.b if self.way else self.b + h @ (self.mask * self.W)
        return F.softplus(h) @ (self.V.t() if self.way else self.V.T)


def draw_module(draw: Draw, kind: int, outputs: int) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a module of one of six families in eval mode and the shape of its inputs."""
    a, b = draw.width(), draw.width()
    if kind == 0:
        shape, layers = (a,), [*draw.vectors(a, b), *draw.vectors(b, draw.width())][: draw.some(1, 9)]
        model = nn.Sequential(*layers, nn.LazyLinear(outputs))
    elif kind == 1:
        shape, inner = (a,), nn.Sequential(*draw.vectors(b, a), nn.Sequential(draw.phi()))
        names = {"start": nn.Sequential(*draw.vectors(a, b)), "middle": inner, "end": nn.Linear(a, outputs)}
        model = nn.Sequential()
        for name, module in names.items():
            model.add_module(name, module)
    elif kind == 2:
        shape, inside = (a,), Sum(draw.some(0, 1), nn.Linear(b, b), draw.phi())
        block = Sum(draw.some(0, 1, 2, 3), *draw.vectors(b, 3), *draw.some([], [nn.Tanh()]), nn.Linear(3, b))
        model = nn.Sequential(nn.Linear(a, b), block, draw.phi(), *draw.some([inside], []), nn.Linear(b, outputs))
    elif kind == 3:
        shape, layers = (draw.some(1, 2), 7, draw.some(6, 7)), []
        layers += draw.images(shape[0], 2) + draw.some(
            [nn.AvgPool2d(2)], [nn.MaxPool2d(2)], [nn.MaxPool2d(2, stride=1)]
        )
        layers += draw.some([], draw.images(2, 3))
        model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(outputs))
    elif kind == 4:
        shape, model = (1, 4, 4), Functional(draw, draw.some(1, 2), outputs)
    else:
        shape, same = (1, 4, 4), nn.Conv2d(2, 2, 3, padding=1)
        block = Sum(draw.some(0, 1, 2, 3), same, draw.norm(2, images=True), draw.phi(), nn.Conv2d(2, 2, 1, bias=False))
        pooled = draw.some(nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((2, 2)), nn.AvgPool2d(3, 1))
        model = nn.Sequential(nn.Conv2d(1, 2, 1), block, pooled, nn.Flatten(), nn.LazyLinear(outputs))
    model.eval()(torch.zeros(2, *shape))  # lazy layers take their shape
    return model, shape


def draw_loss(draw: Draw, n: int, outputs: int, which: int):
    """Return the loss and the reduction of that number, and targets for it."""
    reduction, kind = ("mean", "sum", "none")[which % 3], which // 3 % 3
    if kind == 0:
        labels = torch.tensor(draw.rng.integers(0, outputs, n))
        y = draw.some(labels, torch.tensor(draw.rng.dirichlet(np.ones(outputs), n)))
        return nn.CrossEntropyLoss(reduction=reduction, label_smoothing=draw.some(0.0, 0.1)), y
    if kind == 1:
        labels = draw.rng.integers(0, 2, (n, outputs)).astype(float)
        return nn.BCEWithLogitsLoss(reduction=reduction), torch.tensor(draw.some(labels, draw.rng.random((n, outputs))))
    loss = draw.some(nn.MSELoss(reduction=reduction), functools.partial(F.mse_loss, reduction=reduction))
    return loss, torch.tensor(draw.rng.standard_normal((n, outputs)))


def masked(model) -> dict:
    """The masks that the forward pass of Functional puts on its weights, over the flat vector of parameters."""
    keep = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    if isinstance(model, Functional):
        keep["W"] = model.mask
    return torch.cat([keep[name].ravel() for name, _ in model.named_parameters()])


class Reference:
    """torch.func's derivatives of a module's loss in all its parameters as one vector, in float64."""

    def __init__(self, model, loss, x, y, l2: float) -> None:
        self.model, self.loss, self.x, self.y, self.l2 = copy.deepcopy(model).double(), loss, x.double(), y, l2
        self.shapes = {name: p.shape for name, p in self.model.named_parameters()}
        self.keep = masked(self.model)
        self.v = torch.cat([p.detach().ravel() for p in self.model.parameters()]) * self.keep

    def outputs(self, v, x=None):
        parts = v.split([shape.numel() for shape in self.shapes.values()])
        parameters = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return torch.func.functional_call(self.model, parameters, (self.x if x is None else x,))

    def objective(self, v):
        return self.loss(self.outputs(v), self.y).mean() + 0.5 * self.l2 * (v @ v)

    def hessian(self):
        return torch.func.hessian(self.objective)(self.v)

    def gauss_newton(self):
        z, J = self.outputs(self.v), torch.func.jacrev(self.outputs)(self.v)
        of_outputs = torch.func.hessian(lambda z: self.loss(z, self.y).mean())(z).reshape(z.numel(), z.numel())
        return J.reshape(z.numel(), -1).T @ of_outputs @ J.reshape(z.numel(), -1)

    def fisher(self):
        """The mean over examples of the expected square of the score, by all labels the model could draw."""
        z, J = self.outputs(self.v), torch.func.jacrev(self.outputs)(self.v)
        N, C = z.shape
        kind = type(self.loss).__name__
        F_total = 0
        for n in range(N):
            if kind == "CrossEntropyLoss":
                pairs = [(torch.softmax(z[n], 0)[c], lambda z, c=c: torch.log_softmax(z, 0)[c]) for c in range(C)]
            elif kind == "BCEWithLogitsLoss":
                pairs = [
                    self._bernoulli(z[n], torch.tensor(label).double()) for label in itertools.product((0, 1), repeat=C)
                ]
            else:  # a Gaussian of unit variance: the points z ± √C e_c have its second moments
                ends = [(z[n] + s * C**0.5 * e) for e in torch.eye(C).double() for s in (1, -1)]
                pairs = [(1 / (2 * C), lambda z, y=y: -0.5 * ((z - y) ** 2).sum()) for y in ends]
            scores = [(p, J[n].T @ torch.func.grad(log_p)(z[n])) for p, log_p in pairs]
            F_total = F_total + sum(p * torch.outer(s, s) for p, s in scores) / N
        return self.scale(C) * F_total

    @staticmethod
    def _bernoulli(z, label):
        log_p = lambda z: -F.binary_cross_entropy_with_logits(z, label, reduction="sum")  # noqa: E731
        return log_p(z).exp(), log_p

    def scale(self, C: int) -> float:
        """What torch's loss multiplies the mean over examples of −log p by."""
        reduction = self.loss.keywords["reduction"] if isinstance(self.loss, functools.partial) else self.loss.reduction
        kind = type(self.loss).__name__
        own = {"CrossEntropyLoss": 1, "BCEWithLogitsLoss": 1 / C}.get(kind, 2 / C)
        return own if reduction != "sum" else {"CrossEntropyLoss": 1, "BCEWithLogitsLoss": 1}.get(kind, 2) * len(self.x)

    def empirical(self):
        """The mean over examples of g_n g_nᵀ, where the loss is the mean over examples of ℓ_n."""

        def contribution(v, n):
            loss = self.loss(self.outputs(v, self.x[n : n + 1]), self.y[n : n + 1]).mean()
            summed = getattr(self.loss, "reduction", None) or self.loss.keywords["reduction"]
            return loss * len(self.x) if summed == "sum" else loss

        rows = torch.stack([torch.func.grad(contribution)(self.v, n) for n in range(len(self.x))])
        return rows.T @ rows / len(self.x)

    def saliency(self):
        with torch.no_grad():
            before, found = self.objective(self.v), []
            for j in range(len(self.v)):
                removed = self.v.clone()
                removed[j] = 0
                found.append(self.objective(removed) - before)
        return torch.stack(found)


def joined(tensors: dict) -> np.ndarray:
    return np.concatenate([a.ravel() for a in tensors.values()])


def matrix(blocks: dict, shapes: dict) -> np.ndarray:
    """Join blocks [a][b], laid out like the module's parameters, in the order of its state_dict."""
    for a, b in itertools.product(shapes, shapes):
        assert blocks[a][b].shape == (*shapes[a], *shapes[b])
    size = {name: shape.numel() for name, shape in shapes.items()}
    return np.block([[blocks[a][b].reshape(size[a], size[b]) for b in shapes] for a in shapes])


@pytest.mark.parametrize("seed", range(120))
def test_derivatives_and_saliency_equal_torchs_in_the_modules_layout(seed):
    draw = Draw(seed)
    outputs, n = draw.some(1, 2, 3), draw.some(1, 4, 5)
    model, shape = draw_module(draw, seed % 6, outputs)
    x = torch.tensor(draw.rng.standard_normal((n, *shape)), dtype=torch.float32)
    loss, y = draw_loss(draw, n, outputs, seed // 6)
    l2 = draw.some(0.0, 0.1)
    model = model.double() if seed % 2 else model
    before = copy.deepcopy(model.state_dict())
    case = oracle.from_torch(model, loss, x, y, l2=l2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    truth = Reference(model, loss, x, y, l2)
    assert {name: a.shape for name, a in case.parameters.items()} == truth.shapes
    assert list(case.parameters) == [name for name in model.state_dict() if name in truth.shapes]
    keep = truth.keep.numpy()  # a masked weight is no variable of the module
    both = np.outer(keep, keep)
    assert case.L(case.w) == pytest.approx(float(truth.objective(truth.v)), rel=1e-12)
    assert_close(joined(case.parameters), truth.v.numpy(), 0.0)
    assert_close(keep * joined(case.gradient()), torch.func.grad(truth.objective)(truth.v).numpy(), 1e-10, scale=1e-3)
    for ours, theirs in (
        (case.hessian(), truth.hessian()),
        (case.gauss_newton(), truth.gauss_newton()),
        (case.fisher(), truth.fisher()),
        (case.fisher("empirical"), truth.empirical()),
    ):
        assert_close(both * matrix(ours, truth.shapes), both * theirs.numpy(), 1e-10, scale=1e-3)
    assert_close(joined(case.exact()), truth.saliency().numpy(), 1e-10, scale=abs(case.L(case.w)))


X, Y = torch.linspace(-1, 1, 20).view(5, 4), torch.tensor([0, 2, 1, 1, 0])
IMAGES = torch.linspace(-1, 1, 5 * 2 * 6 * 6).view(5, 2, 6, 6)


class Forward(nn.Module):
    """Two layers a and b and whatever forward(self, x) makes of them."""

    def __init__(self, forward, **modules) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
        for name, module in modules.items():
            setattr(self, name, module)
        self.how = forward

    def forward(self, x):
        return self.how(self, x)


def imported(model, loss=None, x=X, y=Y, **options):
    return oracle.from_torch(model, loss or nn.CrossEntropyLoss(), x, y, **options)


def assert_same_function(case, model, loss=None, x=X, y=Y):
    """The case's derivatives are those of torch.func for a module that computes the same."""
    truth = Reference(model, loss or nn.CrossEntropyLoss(), x, y, 0.0)
    assert list(case.parameters) == list(truth.shapes)
    assert_close(joined(case.gradient()), torch.func.grad(truth.objective)(truth.v).numpy(), 1e-10)
    assert_close(matrix(case.hessian(), truth.shapes), truth.hessian().numpy(), 1e-10)
    assert_close(joined(case.exact()), truth.saliency().numpy(), 1e-10, scale=case.L(case.w))


def chain(*layers):
    return nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 3))


def over_images(*layers, features=None):
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3) if features is None else nn.Linear(features, 3))


def changed(model, name, value):
    dict(model.named_parameters())[name].data.view(-1)[0] = value
    return model


def tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def hooked():
    model = chain(nn.Tanh())
    model[1].register_forward_hook(lambda module, inputs, output: output + 1)
    return model


def overwritten_behind_the_trace(self, x):
    h = self.a(x)
    k = h
    h *= torch.sigmoid(h)  # fx sees a new value, torch multiplies k
    return self.b(k)


def a_view_overwritten(self, x):
    h = self.a(x)
    self.c(h).relu_()
    return self.b(h)


def cut_off(self, x):
    with torch.no_grad():  # fx does not see it
        h = self.a(x)
    return self.b(h)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 3)

    def forward(self, x, other):
        return self.a(x + other)


REFUSED_MODULES = {
    "nothing": (lambda: "model", "model: expected a torch.nn.Module, got 'model'"),
    "no parameters": (lambda: nn.Sequential(nn.Tanh()), "model: expected at least one parameter, got none"),
    "complex": (
        lambda: nn.Sequential(nn.Linear(4, 3, dtype=torch.complex64)),
        "parameter 0.weight: expected a real.*complex64",
    ),
    "nan": (
        lambda: changed(chain(), "1.bias", torch.nan),
        r"model: parameter 1.bias: expected finite numbers, got nan",
    ),
    "meta": (lambda: nn.Sequential(nn.Linear(4, 3, device="meta")), "parameter 0.weight: is on the meta device"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "parameter 0.weight: is not initialised; run the model once"),
    "tied weights": (tied, r"2 \(Linear.*takes 0.weight, as another layer does"),
    "one module twice": (
        lambda: Forward(lambda s, x: s.b(s.a(s.a(x)))),
        r"a \(Linear.*takes a.weight, as another layer",
    ),
    "data parallel": (lambda: nn.DataParallel(chain()), "model: DataParallel wraps a module; pass that, model.module"),
    "data parallel inside": (
        lambda: nn.Sequential(nn.DataParallel(nn.Linear(4, 3))),
        "^0 .*put the module that it wraps",
    ),
    "weight_norm, old": (
        lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 3))),
        "^0 .*got weight_g; remove what",
    ),
    "spectral_norm, old": (
        lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 3))),
        "^0 .*got weight_orig; remove",
    ),
    "weight_norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
        r"^0 .*remove its parametrization \(weight\) first",
    ),
    "unused": (lambda: Forward(lambda s, x: s.a(x)), "parameters that its outputs do not need.*: b.weight, b.bias"),
    "dropout in training": (
        lambda: chain(nn.Dropout(0.5)).train(),
        r"1 \(Dropout\(p=0.5.*training mode; call model.eval",
    ),
    "batch norm in training": (
        lambda: chain(nn.BatchNorm1d(4)).train(),
        r"1 \(BatchNorm1d.*training mode; call model.eval",
    ),
    "batch norm without statistics": (
        lambda: chain(nn.BatchNorm1d(4, track_running_stats=False)).eval(),
        r"1 \(BatchNorm1d.*expected running statistics",
    ),
    "batch norm without scale": (
        lambda: chain(nn.BatchNorm1d(4, affine=False)).eval(),
        "1 .*expected a weight and a bias",
    ),
    "layer norm": (lambda: chain(nn.LayerNorm(4)), r"1 \(LayerNorm.*cannot be expressed by our layers"),
    "lstm": (
        lambda: nn.Sequential(nn.LSTM(4, 3)),
        r"0 \(LSTM\(4, 3\)\): expected only weight and bias.*got weight_ih_l0",
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(4, 3)), r"0 \(Embedding.*cannot be expressed by our layers"),
    "softmax": (lambda: chain(nn.Softmax(1)), r"1 \(Softmax.*leave it out, the loss takes logits"),
    "leaky relu": (lambda: chain(nn.LeakyReLU()), r"1 \(LeakyReLU.*cannot be expressed by our layers"),
    "gelu by tanh": (
        lambda: chain(nn.GELU("tanh")),
        r"1 \(GELU.*expected the exact form, approximate='none', got 'tanh'",
    ),
    "softplus with beta": (
        lambda: chain(nn.Softplus(2)),
        r"1 \(Softplus.*expected beta=1 and a threshold of 20 or more",
    ),
    "wrong width": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 3)),
        r"^1 \(Linear.*expected inputs of shape \(5,\)",
    ),
    "flatten of the batch": (lambda: chain(nn.Flatten(0)), r"1 \(Flatten.*cannot be expressed"),
    "a subclass": (lambda: chain(type("Tanh", (nn.Tanh,), {"__module__": "torch.nn.mine"})()), "1 .*cannot be"),
    "hook": (hooked, "model: its outputs are not those of the network that was read from it"),
    "two inputs": (TwoInputs, "model: expected one input, got also other"),
    "two outputs": (lambda: Forward(lambda s, x: (s.b(s.a(x)), x)), "model: expected one tensor as its output"),
    "a branch": (lambda: Forward(lambda s, x: s.b(x) + s.a(x)[:, :3]), r"a \(Linear.*got a branch"),
    "concatenation": (
        lambda: Forward(lambda s, x: s.b(torch.cat([s.a(x), x], 1))),
        r"cat \(a call of cat\): cannot be",
    ),
    "a shortcut with weights": (
        lambda: Forward(lambda s, x: s.b(s.a(x) + s.c(x)), c=nn.Linear(4, 4)),
        r"^c \(Linear.*expected a chain of layers",
    ),
    "a doubled value": (
        lambda: Forward(lambda s, x: s.b(s.a(x + x))),
        r"add \(a call of add\): only a sum x \+ f\(x\)",
    ),
    "a scaled sum": (
        lambda: Forward(lambda s, x: s.b(torch.add(x, s.a(x), alpha=2))),
        "add .*two terms.* and no options",
    ),
    "a constant": (lambda: Forward(lambda s, x: s.b(s.a(x) + 1)), r"add \(a call of add\): only a sum x \+ f\(x\)"),
    "a factor": (lambda: Forward(lambda s, x: s.b(s.a(x) * 2)), r"mul \(a call of mul\): of products only"),
    "a square": (lambda: Forward(lambda s, x: s.b(s.a(x).tanh() * s.a(x))), r"a \(Linear.*got a branch"),
    "a square of one value": (lambda: Forward(lambda s, x: s.b(x * x) + s.a(x)), "mul .*of products only"),
    "x tanh(x)": (lambda: Forward(lambda s, x: s.b(x * torch.tanh(x)) + s.a(x)), r"mul .*of products only x · sigmoid"),
    "difference": (lambda: Forward(lambda s, x: s.b(1 - s.a(x))), r"rsub|sub \(a call of r?sub\): cannot be expressed"),
    "control flow": (
        lambda: Forward(lambda s, x: s.b(s.a(x)) if x.sum() > 0 else x),
        "Forward cannot be traced by torch.fx",
    ),
    "dropout, functional": (lambda: Forward(lambda s, x: s.b(F.dropout(s.a(x)))), "dropout .*is in training mode"),
    "softmax, functional": (lambda: Forward(lambda s, x: F.log_softmax(s.b(s.a(x)), 1)), "log_softmax .*takes logits"),
    "mean of features": (lambda: Forward(lambda s, x: s.b(s.a(x)).mean(1)), "mean .*only the mean over both axes"),
    "columns": (lambda: Forward(lambda s, x: s.b(s.a(x).view(4, -1))), r"view .*only rows.*got shape \(4, 5\)"),
    "a view that does not fit": (lambda: Forward(lambda s, x: s.b(s.a(x).view(7, -1))), "view .*invalid for input"),
    "a mask of other numbers": (
        lambda: Forward(lambda s, x: F.linear(s.a(x), s.b.weight * torch.full((3, 4), 0.5))),
        "mul .*a mask of 0 and 1",
    ),
    "a weight of weights": (
        lambda: Forward(lambda s, x: F.linear(s.a(x), s.b.weight @ s.a.weight)),
        "matmul .*of weights only their transpose",
    ),
    "a weight that moves": (
        lambda: Forward(lambda s, x: F.linear(s.a(x), s.b(x))),
        "b .*|linear .*expected a parameter",
    ),
    "a bias before": (lambda: Forward(lambda s, x: s.b(F.relu(s.a(x)) + s.a.bias)), "add .*only as the bias"),
    "overwritten behind the trace": (lambda: Forward(overwritten_behind_the_trace), "its outputs are not those of"),
    "a part cut off": (lambda: Forward(cut_off), "model: torch's gradient is not that of its outputs"),
    "detached": (
        lambda: Forward(lambda s, x: s.b(s.a(x).detach())),
        r"detach \(a call of detach\): cannot be expressed",
    ),
    "not differentiable": (
        lambda: Forward(lambda s, x: s.b(F.relu(torch.sigmoid(s.a(x)), inplace=True))),
        "model: torch cannot differentiate it: one of the variables needed for gradient",
    ),
    "a view overwritten": (lambda: Forward(a_view_overwritten, c=nn.Identity()), "b .*or was overwritten"),
}

REFUSED_IMAGES = {
    "groups": (
        lambda: over_images(nn.Conv2d(2, 4, 3, groups=2)),
        r"^0 \(Conv2d.*expected groups=1 and dilation=1, got 2",
    ),
    "dilation": (lambda: over_images(nn.Conv2d(2, 2, 3, dilation=2)), "^0 .*expected groups=1 and dilation=1"),
    "circular": (
        lambda: over_images(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
        "^0 .*padding_mode='zeros', got",
    ),
    "rectangular kernel": (
        lambda: over_images(nn.Conv2d(2, 2, (3, 2))),
        r"^0 .*kernel: expected the same whole number",
    ),
    "two strides": (lambda: over_images(nn.Conv2d(2, 2, 2, (1, 2))), r"^0 .*stride: expected the same whole number"),
    "same, even": (lambda: over_images(nn.Conv2d(2, 2, 2, padding="same")), "^0 .*an even kernel pads one side more"),
    "transposed": (lambda: over_images(nn.ConvTranspose2d(2, 2, 3)), r"^0 \(ConvTranspose2d.*cannot be expressed"),
    "pooling with padding": (lambda: over_images(nn.MaxPool2d(2, padding=1)), "^0 .*expected padding=0"),
    "pooling rounded up": (lambda: over_images(nn.AvgPool2d(4, ceil_mode=True)), "^0 .*expected ceil_mode=False"),
    "pooling with a divisor": (lambda: over_images(nn.AvgPool2d(2, divisor_override=3)), "^0 .*no divisor_override"),
    "adaptive, no multiple": (lambda: over_images(nn.AdaptiveAvgPool2d(4)), "^0 .*a multiple of the output's 4"),
    "adaptive, two sizes": (lambda: over_images(nn.AdaptiveAvgPool2d((2, 3))), "^0 .*output_size: expected the same"),
    "adaptive maximum": (lambda: over_images(nn.AdaptiveMaxPool2d(1)), r"^0 \(AdaptiveMaxPool2d.*cannot be expressed"),
    "channels": (lambda: over_images(nn.Conv2d(3, 2, 3), features=32), r"^0 .*expected images of shape \(3, H, W\)"),
    "images without rows": (lambda: nn.Sequential(nn.Conv2d(2, 2, 3)), r"model: expected outputs of shape \(N, C\)"),
    "a linear layer on images": (lambda: nn.Sequential(nn.Linear(6, 3)), r"^0 .*expected inputs of shape \(6,\)"),
}
REFUSED = [(name, *row, X) for name, row in REFUSED_MODULES.items()]
REFUSED += [(name, *row, IMAGES) for name, row in REFUSED_IMAGES.items()]


@pytest.mark.parametrize(("make", "message", "x"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_cannot_be_imported_is_an_error_that_names_it(make, message, x):
    model = make()
    lazy = isinstance(model, nn.Sequential) and x is IMAGES
    model = model if not lazy else initialised(model)
    with pytest.raises(ValueError, match=message) as error:
        imported(model, x=x)
    assert "\n" not in str(error.value)


def initialised(model):
    """Let lazy layers take their shape, where the model runs at all."""
    if any(isinstance(layer, nn.LazyLinear) for layer in model):
        model(IMAGES)
    return model


CE, BCE, MSE = nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.MSELoss
T = torch.linspace(0, 1, 15).view(5, 3)
REFUSED_LOSSES = [
    (CE(weight=torch.ones(3)), Y, "loss: weight cannot be expressed"),
    (BCE(pos_weight=torch.ones(3)), T, "loss: pos_weight cannot be expressed"),
    (BCE(weight=torch.ones(3)), T, "loss: weight cannot be expressed"),
    (CE(ignore_index=2), Y, "y: has labels that the loss ignores"),
    (nn.NLLLoss(), Y, r"loss: expected CrossEntropyLoss\(\), .* got NLLLoss\(\)"),
    (nn.BCELoss(), T, "loss: expected .* got BCELoss"),
    (CE, Y, "loss: expected .* got <class"),
    (lambda z, y: F.cross_entropy(z, y), Y, "loss: expected .* got <function"),
    ("cross_entropy", Y, "loss: expected .* got 'cross_entropy'"),
    (functools.partial(F.mse_loss, size_average=False), T, "loss: size_average cannot be expressed"),
    (functools.partial(F.mse_loss, reduction="max"), T, "reduction: expected one of mean, sum, none, got 'max'"),
    (type("MSELoss", (MSE,), {})(), T, "loss: expected"),
    (MSE(), T[:, 0], r"y: expected the shape of the outputs, \(5, 3\), got float32 of shape \(5,\)"),
    (MSE(), T[:1], r"y: expected the shape of the outputs, \(5, 3\)"),
    (BCE(), 2 * T, r"y: expected probabilities or labels in \[0, 1\]"),
    (CE(), Y.float(), "y: expected dtype integer"),
    (CE(), Y + 1, "y: expected labels in 0..2 for 3 outputs, got 3"),
    (CE(), Y[:4], "y: expected 5 targets for 5 examples, got 4"),
    (CE(), T, "y: expected rows of probabilities"),
    (CE(), "labels", "y: expected an array of numbers"),
    (CE(), torch.complex(T, T), "y: expected an array of numbers"),
]


@pytest.mark.parametrize(("loss", "y", "message"), REFUSED_LOSSES)
def test_what_is_not_a_loss_or_a_target_is_refused(loss, y, message):
    with pytest.raises(ValueError, match=message):
        imported(chain(nn.Tanh()), loss, y=y)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"x: expected at least one example, shape \(N, ...\)"),
        (X[:0], "x: expected at least one example"),
        (X * torch.nan, "x: expected finite numbers"),
        (X.to(torch.complex64), "x: expected dtype|x: expected an array of numbers"),
        (X[:, :3], r"^0 \(Linear.*expected inputs of shape \(4,\) for each example, got \(3,\)"),
        ([[1.0, 2.0], [3.0]], "x: expected an array of numbers"),
    ],
)
def test_bad_inputs_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        imported(chain(nn.Tanh()), x=x)


def test_a_target_of_the_wrong_shape_is_refused_where_torch_would_broadcast_it():
    model, y = nn.Sequential(nn.Linear(4, 1)), torch.ones(5)
    with pytest.raises(
        ValueError, match=r"y: expected the shape of the outputs, \(5, 1\), got float32 of shape \(5,\)"
    ):
        imported(model, MSE(), y=y)
    flat = Forward(lambda s, x: s.c(x).squeeze(1), c=nn.Linear(4, 1))
    del flat.a, flat.b
    case = imported(flat, MSE(), y=y)
    assert case.L(case.w) == pytest.approx(float(F.mse_loss(flat.double()(X.double()), y.double())), rel=1e-12)


def test_a_pruned_model_is_that_which_prune_remove_leaves():
    model = chain(nn.Tanh())
    prune.l1_unstructured(model[0], "weight", 0.4)
    prune.random_unstructured(model[2], "bias", 1)
    prune.l1_unstructured(model[2], "weight", 0.2)
    weight, state = model[0].weight, copy.deepcopy(model.state_dict())
    case = imported(model)
    assert model[0].weight is weight
    assert model[0].weight.grad_fn is not None
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    for layer, name in ((0, "weight"), (2, "bias"), (2, "weight")):
        prune.remove(model[layer], name)
    assert sorted(case.parameters) == sorted(model.state_dict())
    assert sum(int((a == 0).sum()) for a in case.parameters.values()) == 6 + 1 + 2
    plain = imported(model)
    for name, score in plain.exact().items():
        assert np.array_equal(case.parameters[name], plain.parameters[name])
        assert_close(case.exact()[name], score, 1e-12, scale=plain.L(plain.w))
    assert_same_function(plain, model)


def test_a_pruned_parameter_of_a_module_of_ones_own_is_masked_too():
    model = Forward(lambda s, x: s.b(s.a(x) @ s.own), own=nn.Parameter(torch.eye(4)))
    prune.custom_from_mask(model, "own", torch.tril(torch.ones(4, 4)))
    case = imported(model)
    assert_close(case.parameters["own"], np.eye(4), 0.0)
    assert "own_orig" not in case.parameters


def test_a_masked_layer_of_ones_own_is_imported_masked():
    mask = torch.tensor([[1.0, 0, 1, 0]] * 3)
    model = Forward(lambda s, x: F.linear(torch.tanh(s.a(x)), s.mask * s.b.weight, s.b.bias))
    model.register_buffer("mask", mask)
    case = imported(model)
    assert_close(case.parameters["b.weight"], (model.b.weight * mask).detach().numpy().astype(float), 0.0)


def relu_over_its_input(self, x):
    h = self.a(x)
    return self.b(h + self.c(F.relu(h, inplace=True)))


def test_an_input_overwritten_in_place_is_read_as_torch_computes_it():
    torch.manual_seed(3)
    model = Forward(relu_over_its_input, c=nn.Linear(4, 4))
    plain = Forward(lambda s, x: (lambda h: s.b(h + s.c(h)))(F.relu(s.a(x))), c=model.c)
    plain.a, plain.b = model.a, model.b
    case = imported(model)
    assert "ReLU(), Residual(Linear(4, 4))" in repr(case.L.network)
    assert_same_function(case, plain)


def test_a_parameter_with_two_names_goes_by_the_first():
    model = chain(nn.Tanh())
    model.register_module("again", model[0])
    with pytest.raises(ValueError, match=r"0 \(Linear.*takes 0.weight, as another layer does"):
        imported(model)
    twice = Forward(lambda s, x: s.b(s.first(x)))
    twice.first = twice.a
    before = copy.deepcopy(twice.state_dict())
    case = imported(twice)
    assert all(torch.equal(before[name], value) for name, value in twice.state_dict().items())
    assert list(case.parameters) == ["a.weight", "a.bias", "b.weight", "b.bias"]
    assert_same_function(case, twice)
    used = Forward(lambda s, x: s.b(s.c(x)), c=nn.Linear(4, 4))
    used.c.weight, used.c.bias = used.a.weight, used.a.bias  # a itself is never called
    assert_same_function(imported(used), used)


def test_a_single_layer_is_a_model():
    model = nn.Linear(4, 3)
    assert_same_function(imported(model), model)
    prune.l1_unstructured(model, "weight", 0.5)
    case = imported(model)
    assert case.L.network.layers == imported(prune.remove(model, "weight")).L.network.layers
    assert (case.parameters["weight"] == 0).sum() == 6
    listed = Forward(lambda s, x: F.linear(s.b(s.a(x)), s.more[0], s.more[1]))
    listed.more = nn.ParameterList([torch.randn(3, 3), torch.randn(3)])
    assert_same_function(imported(listed), listed)


def test_what_hangs_on_shapes_alone_is_read():
    model = Forward(lambda s, x, mask=None: s.b(s.a(x).view(x.size(0), x.shape[-1] * x.dim() // x.ndim)))
    assert_same_function(imported(model), model)
    assert_same_function(imported(model, x=X.tolist(), y=Y.tolist()), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_as_the_numbers_it_holds(dtype):
    model = chain(nn.Tanh()).to(dtype)
    assert_same_function(imported(model), model)


def test_frozen_parameters_are_parameters_and_the_global_state_stays():
    torch.manual_seed(5)
    model = chain(nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
    model[0].requires_grad_(False)
    state = torch.get_rng_state()
    case = imported(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert list(case.parameters)[:2] == ["0.weight", "0.bias"]
    assert all(p.grad is None for p in model.parameters())


def test_softplus_above_its_threshold_is_as_near_as_torchs_own():
    model = chain(nn.Softplus())
    model[0].bias.data += 30
    case = imported(model)
    truth = Reference(model, CE(), X, Y, 0.0)
    assert_close(joined(case.gradient()), torch.func.grad(truth.objective)(truth.v).numpy(), 1e-8)


def test_the_sum_of_a_sum_and_its_input_is_a_block_in_a_block():
    model = Forward(lambda s, x: s.b(x + s.a(x) + x))
    case = imported(model)
    assert "Residual(Residual(Linear(4, 4)))" in repr(case.L.network)
    assert_same_function(case, model)


@pytest.mark.parametrize("name", ["fisher", "exact"])
def test_three_lines_tell_a_right_score_from_a_wrong_one(name):
    torch.manual_seed(0)
    model = chain(nn.Tanh()).double()
    case = imported(model, x=X.double())
    truth = Reference(model, CE(), X, Y, 0.0)
    found = 0.5 * truth.fisher().diagonal() * truth.v**2 if name == "fisher" else truth.saliency()
    scores = dict(zip(truth.shapes, found.split([s.numel() for s in truth.shapes.values()]), strict=True))
    scores = {key: value.view(truth.shapes[key]) for key, value in scores.items()}
    case.assert_matches(scores, name)
    with pytest.raises(AssertionError, match="times 2"):
        case.assert_matches({key: 2 * value for key, value in scores.items()}, name)
