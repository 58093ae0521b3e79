"""What is measured: each row is a quantity, a problem, ours, a peer, and by how much ours must be faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from minimal_nn import ReLU, Tanh, curvature
from pruning import exact
from tests.benchmarks import peers_jax, peers_torch, problems
from tests.benchmarks.problems import Problem
from tests.benchmarks.timing import Comparison, Missing, Route, compare, relative_error


@dataclass(frozen=True)
class Row:
    """One comparison. `required` is the least ratio theirs/ours, `tolerance` the largest relative disagreement."""

    name: str
    quantity: str
    problem: Callable[[], Problem]
    ours: Callable[[Problem], Route]
    theirs: Callable[[Problem], Route]
    required: float
    tolerance: float = 1e-10


@dataclass(frozen=True)
class Result:
    """A row as measured; `comparison` is None, and `reason` says why, where it was not."""

    row: Row
    problem: str = ""
    peer: str = ""
    comparison: Comparison | None = None
    disagreement: float = float("inf")  # max|ours − theirs| / max|theirs|
    reason: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both routes gave the same result."""
        return self.disagreement <= self.row.tolerance

    @property
    def reached(self) -> bool:
        """Whether the row was measured, the results agree, and ours is as much faster as required."""
        return self.comparison is not None and self.agrees and self.comparison.ratio >= self.row.required


def measure(row: Row, repeats: int) -> Result:
    """Measure one row; what the peer raises, whatever it is, becomes the reason why it is not measured."""
    try:
        problem = row.problem()
    except Missing as reason:
        return Result(row, reason=str(reason))
    ours = row.ours(problem)
    our_result = ours.read(ours.run())  # outside the try below: an error of ours is an error
    try:
        theirs = row.theirs(problem)
        disagreement = relative_error(our_result, theirs.read(theirs.run()))
    except Missing as reason:
        return Result(row, repr(problem), reason=str(reason))
    except Exception as error:
        return Result(row, repr(problem), reason=f"{type(error).__name__}: {error}")
    return Result(row, repr(problem), theirs.name, compare(ours, theirs, repeats), disagreement)


def _ours(name: str, function: Callable[..., np.ndarray], *arguments: str) -> Callable[[Problem], Route]:
    return lambda problem: Route(name, lambda: function(problem.L, problem.w, *arguments))


def _mlp() -> Problem:
    return problems.mlp(64, 20, 20, 10, n=1000)


_hessian = _ours("hessian", curvature.hessian)
_diagonal = _ours("hessian_diagonal", curvature.hessian_diagonal)
_gauss_newton = _ours("gauss_newton", curvature.gauss_newton)
_fisher = _ours("fisher, true", curvature.fisher, "true")
_empirical = _ours("fisher, empirical", curvature.fisher, "empirical")
_curvlinops = peers_torch.curvlinops_on_identity


def _saliency(problem: Problem) -> Route:
    return Route(
        "exact.saliency", lambda: exact.saliency(problem.L, problem.w), lambda s: s[peers_torch.sampled(problem)]
    )


def _masks(problem: Problem, shared: bool) -> np.ndarray:
    """Return 2,000 masks: random ones, or such that each unit of the first layer has one of 5 columns."""
    rng, layout = np.random.default_rng(0), problem.L.network.layout
    masks = rng.random((2000, problem.L.n_parameters)) < 0.5
    if shared:
        first = next(iter(layout))
        inputs, units = layout.shapes[first]
        pool = rng.random((5, inputs, units)) < 0.5
        chosen = rng.integers(0, 5, (len(masks), units))
        columns = pool[chosen, :, np.arange(units)]  # (masks, units, inputs)
        masks[:, layout[first]] = columns.swapaxes(1, 2).reshape(len(masks), -1)
        masks[:, layout["0.bias"]] = True
    return masks


def _losses(shared: bool) -> dict[str, Callable[[Problem], Route]]:
    def ours(problem: Problem) -> Route:
        masks = _masks(problem, shared)
        return Route("exact.losses", lambda: exact.losses(problem.L, problem.w, masks))

    def loop(problem: Problem) -> Route:
        L, w, masks = problem.L, problem.w, _masks(problem, shared)
        return Route("a loop over L(w * mask)", lambda: [L(w * mask) for mask in masks])

    return {"ours": ours, "theirs": loop}


_loop, S_CNN = peers_torch.loop_over_masked_weights, "exact saliency, LeNet-5-like CNN"
LOSSES, _digits = "losses of 2,000 masks, 64-20-10", partial(problems.mlp, 64, 20, 10, n=500)
H_MLP, H_CNN = "Hessian, MLP 64-20-20-10", "Hessian, CNN 4-8 channels, 8×8"
ROWS = (
    Row("hessian-mlp-jax", H_MLP, _mlp, _hessian, peers_jax.hessian, 12),
    Row("hessian-mlp-torch", H_MLP, _mlp, _hessian, peers_torch.torch_func_hessian, 10),
    Row("hessian-mlp-curvlinops", H_MLP, _mlp, _hessian, _curvlinops("HessianLinearOperator"), 40),
    Row("hessian-cnn-jax", H_CNN, lambda: problems.cnn(500), _hessian, peers_jax.hessian, 20),
    Row(
        "diagonal-lenet-backpack",
        "Hessian diagonal, LeNet-300-100",
        lambda: problems.lenet_300_100(200),
        _diagonal,
        peers_torch.backpack_diagonal,
        8,
    ),
    Row("gauss-newton-mlp", "Gauss-Newton, the MLP", _mlp, _gauss_newton, _curvlinops("GGNLinearOperator"), 10),
    # curvlinops has no exact Fisher matrix, but for softmax it is the Gauss-Newton matrix
    Row("fisher-true-mlp", "true Fisher, the MLP", _mlp, _fisher, _curvlinops("GGNLinearOperator"), 10),
    Row("fisher-empirical-mlp", "empirical Fisher, the MLP", _mlp, _empirical, _curvlinops("EFLinearOperator"), 10),
    Row(
        "training-step-lenet",
        "training step, LeNet-300-100, batch 100, float32",
        lambda: problems.lenet_300_100(100, dtype=np.float32),
        peers_torch.our_training_step,
        peers_torch.training_step,
        1,
        tolerance=1e-5,
    ),
    *(
        Row(
            f"saliency-lenet-{type(phi).__name__.lower()}",
            f"exact saliency, LeNet-300-100, {type(phi).__name__}",
            partial(problems.trained_lenet, phi),
            _saliency,
            _loop,
            200,
        )
        for phi in (ReLU(), Tanh())
    ),
    Row("saliency-cnn-float64", S_CNN, problems.trained_cnn, _saliency, _loop, 500),
    Row(
        "saliency-cnn-float32",
        f"{S_CNN}, float32",
        partial(problems.trained_cnn, np.float32),
        _saliency,
        _loop,
        150,
        tolerance=1e-3,
    ),
    Row("losses-random", LOSSES, _digits, **_losses(False), required=1),
    Row(
        "losses-shared",
        f"{LOSSES} that share columns",
        partial(problems.mlp, 64, 20, 10, n=500),
        **_losses(True),
        required=5,
    ),
)
