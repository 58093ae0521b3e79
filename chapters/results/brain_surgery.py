"""The runs of chapter 8 that take longer than a chapter may: `python -m chapters.results.brain_surgery`.

Writes brain_surgery.json beside this file, about 15 minutes on one core. It holds the weights of the networks too, so
that the chapter can compute every criterion anew and check single numbers on them. MONK's published training sets are
read from MINIMAL_NN_DATA or downloaded.

- `removals`: every weight of small networks for digits removed and the rest re-optimised, or fine-tuned for a while.
- `monks`: weights deleted one by one from the networks of Hassibi and Stork 1993, by OBS, OBD and magnitude.
- `xor`: every parameter of solved XOR networks removed and the rest re-optimised.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from chapters.files import replace
from minimal_nn import (
    Linear,
    Network,
    Objective,
    Sigmoid,
    SoftmaxCrossEntropy,
    SquaredError,
    Tanh,
    curvature,
    datasets,
    optimizers,
)
from pruning import exact, small_nets, updates

RESULT = Path(__file__).with_suffix(".json")
COMMAND = "python -m chapters.results.brain_surgery"
FINE_TUNING = (3, 10, 30, 100, 300)  # steps of Adam on all examples, at the rate 1e-3
# problem: decay, damping, and how many labels the published pruned network has right, of training and test set
MONKS = {1: (1e-4, 1e-4, (124, 432)), 2: (1e-6, 1e-4, (169, 432)), 3: (3e-3, 1e-4, (114, 420))}
DECAYS = {1: (1e-5, 1e-4, 3e-4), 2: (1e-6, 1e-5, 1e-4), 3: (1e-4, 1e-3, 3e-3)}
RETRAINING = 30  # steps of L-BFGS after each deletion
METHODS = {
    f"{method}{label}": (method, steps)
    for label, steps in (("", RETRAINING), (", never trained again", 0))
    for method in ("obs", "obd", "magnitude")
}


def pooled_digits(l2: float = 1e-3, examples: int = 400) -> Objective:
    """Return the loss of a 16-5-10 tanh network on digits averaged over 2 × 2 pixels and standardised."""
    digits = datasets.digits()
    x = digits.x_train[:examples].reshape(examples, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(examples, 16)
    net = Network(Linear(16, 5), Tanh(), Linear(5, 10))
    return Objective(net, SoftmaxCrossEntropy(), (x - x.mean(axis=0)) / x.std(axis=0), digits.y_train[:examples], l2)


def removals(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """For each seed a minimum w, and for each weight the rises of the loss: re-optimised and while fine-tuning."""
    L, rows = pooled_digits(), []
    for seed in seeds:
        w = optimizers.stationary(L, L.network.init(np.random.default_rng(seed))).w
        weights = np.flatnonzero(L.network.layout.select("weight"))
        found = [exact.reoptimized(L, w, int(j)) for j in weights]
        row = {"seed": seed, "w": w.tolist(), "converged": all(f.converged for f in found)}
        for start in ("removed", "compensated"):
            row[start] = _short([f.results[start].value - L(w) for f in found])
        row["fine_tuned"] = [_short(fine_tuned(L, w, int(j))) for j in weights]
        rows.append(row)
        print(f"removals, seed {seed}", flush=True)
    return rows


def fine_tuned(L: Objective, w: np.ndarray, j: int) -> list[float]:
    """Return L − L(w) after each number of FINE_TUNING steps of Adam from w without weight j."""
    mask = np.arange(len(w)) != j
    rule, v, rises = optimizers.adam(1e-3), w * mask, []
    state = rule.start(v)
    for step in range(1, FINE_TUNING[-1] + 1):
        v, state = rule.step(v, L.gradient(v) * mask, state)
        if step in FINE_TUNING:
            rises.append(L(v) - L(w))
    return rises


def deletions(
    L: Objective, w: np.ndarray, method: str, damping: float, retraining: int = RETRAINING
) -> Iterator[np.ndarray]:
    """Yield w (P,) and what is left of it after each deletion, down to two parameters.

    M is the Gauss-Newton matrix plus (l2 + damping)·I over what is left. "obs" deletes the least w_j²/(2[M⁻¹]_jj) and
    moves the rest, "obd" the least ½ M_jj w_j², "magnitude" the least |w_j|; L-BFGS retrains for a few steps.
    """
    yield w
    left = np.arange(len(w))
    while len(left) > 2:
        G = curvature.gauss_newton(L, w)[np.ix_(left, left)] + L.l2 * np.eye(len(left))
        v = w[left]
        if method == "obs":
            surgery = updates.surgery(G, v, 1, damping=damping)
            gone, v = surgery.order[0], surgery.w
        else:
            gone = np.argmin(np.diag(G) * v**2 if method == "obd" else np.abs(v))
        w, left = np.zeros_like(w), np.delete(left, gone)
        w[left] = np.delete(v, gone)
        if retraining:
            mask = np.isin(np.arange(len(w)), left)
            w = optimizers.lbfgs(L, w, mask=mask, max_steps=retraining).w
        yield w


def monk(problem: int, seed: int, method: str, l2: float, damping: float, retraining: int = RETRAINING) -> dict:
    """Return one run: labels right before deletion, and the smallest networks that still do as well as published.

    `smallest` keeps the published training and test accuracy, `by_training` the training accuracy alone; each is
    [parameters, right in training, right in test], or None where no network on the path is as good.
    """
    data = datasets.monks(problem, published=True)
    L = small_nets.objective(f"monks-{problem}", l2, data)
    train, test = MONKS[problem][2]
    nets = deletions(L, trained(L, seed), method, damping, retraining)
    path = []
    for size, w in zip(range(L.n_parameters, 1, -1), nets, strict=True):
        path.append([size, right(L, w, data.x_train, data.y_train), right(L, w, data.x_test, data.y_test)])
    return {
        "seed": seed,
        "dense": path[0],
        "smallest": min((p for p in path if p[1] >= train and p[2] >= test), default=None),
        "by_training": min((p for p in path if p[1] >= train), default=None),
    }


def trained(L: Objective, seed: int) -> np.ndarray:
    """Return the stationary point that small_nets.trained reaches from a seed."""
    return small_nets.trained(L, seed).w


def right(L: Objective, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> int:
    """Return how many labels y (N,) in {0, 1} the outputs at the threshold ½ get right."""
    return int(((L.network.forward(w, x)[:, 0] > 0.5) == y).sum())


def monks(seeds: Sequence[int], few: Sequence[int]) -> dict[str, Any]:
    """For each problem the runs of each method over the seeds, and OBS under other decays and dampings over a few."""
    found = {}
    for problem, (l2, damping, _) in MONKS.items():
        data = datasets.monks(problem, published=True)
        L = small_nets.objective(f"monks-{problem}", l2, data)
        found[f"monks-{problem}"] = {
            "w": trained(L, 0).tolist(),
            "runs": {
                name: [monk(problem, seed, method, l2, damping, retraining) for seed in seeds]
                for name, (method, retraining) in METHODS.items()
            },
            "recipes": [
                {"l2": a, "damping": b, "runs": [monk(problem, s, "obs", a, b) for s in few]}
                for a in DECAYS[problem]
                for b in (1e-4, 1e-2)
            ],
        }
        print(f"MONK-{problem}", flush=True)
    return found


def interpolating_xor() -> Objective:
    """Return the loss of a 2-2-1 network with sigmoid units and a linear output on XOR: it can be exactly 0."""
    xor = datasets.xor()
    net = Network(Linear(2, 2), Sigmoid(), Linear(2, 1))
    return Objective(net, SquaredError(), xor.x_train, xor.y_train[:, None].astype(float))


def solved_xor(L: Objective, count: int) -> list[np.ndarray]:
    """Return the first `count` minima that classify XOR right: H positive definite, or with l2 = 0 a loss of 0."""
    found, seed = [], 0
    while len(found) < count:
        end = small_nets.trained(L, seed)
        seed += 1
        if right(L, end.w, L.x, L.y[:, 0]) == 4 and (_is_minimum(L, end) if L.l2 else end.value < 1e-12):
            found.append(end.w)
    return found


def _is_minimum(L: Objective, end: optimizers.Minimum) -> bool:
    return end.converged and bool(np.linalg.eigvalsh(curvature.hessian(L, end.w))[0] > 1e-8)


def xor(count: int, interpolating: int) -> dict[str, Any]:
    """For each decay, and for the loss that can be 0: solved networks w and the rise after each removal."""
    objectives = {f"{l2:g}": (small_nets.objective("xor", l2), count) for l2 in (1e-3, 1e-4, 1e-5)}
    objectives["interpolating"] = interpolating_xor(), interpolating
    found = {}
    for name, (L, n) in objectives.items():
        found[name] = [
            {"w": w.tolist(), "rises": _short([exact.reoptimized(L, w, j).rise for j in range(9)])}
            for w in solved_xor(L, n)
        ]
        print(f"XOR, {name}", flush=True)
    return found


def _short(values: Sequence[float]) -> list[float]:
    """Eight significant digits, which is more than the chapter prints."""
    return [float(f"{value:.8g}") for value in values]


def main() -> None:
    """Run everything and write RESULT."""
    sizes = {"removals": 8, "monks": 40, "recipes": 20, "xor": 60, "interpolating": 24}
    result = {
        "command": COMMAND,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "scipy": scipy.__version__},
        "seeds from 0, or solved networks": sizes,
        "xor": xor(sizes["xor"], sizes["interpolating"]),
        "monks": monks(range(sizes["monks"]), range(sizes["recipes"])),
        "removals": removals(range(sizes["removals"])),
    }
    replace(RESULT, json.dumps(result, indent=None, separators=(",", ":")).replace('},{"', '},\n{"') + "\n")


if __name__ == "__main__":
    main()
