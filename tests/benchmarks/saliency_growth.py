"""How the time of the exact saliency grows with the examples, with the width and with the parameters; its picture."""

from __future__ import annotations

from pathlib import Path

from minimal_nn import Linear, ReLU, Tanh
from minimal_nn.layers import Layer
from pruning import exact, plots
from tests.benchmarks import problems
from tests.benchmarks.growth import Curve
from tests.benchmarks.problems import Problem
from tests.benchmarks.timing import median_seconds

EXAMPLES = (1000, 1800, 3200, 5600, 10000)  # of 200-50-50-10; below 1,000 fixed costs count
WIDTHS = (20, 36, 64, 114, 200)  # h of 200-h-h-10, 500 examples
INPUTS = (100, 180, 320, 570, 1000)  # a of a-50-50-10, 500 examples: P is nearly proportional to it
TITLES = {"N": "examples N, 200-50-50-10", "width": "width h, 200-h-h-10", "P": "parameters P, a-50-50-10"}


def measure(repeats: int) -> list[Curve]:
    """Measure over a decade of each, with tanh and with ReLU, the rest fixed."""
    curves = []
    for phi in (Tanh(), ReLU()):
        name = type(phi).__name__
        nets = [_net(phi, 200, 50, n) for n in EXAMPLES]
        curves.append(Curve(name, "N", list(EXAMPLES), [_seconds(net, repeats) for net in nets]))
        nets = [_net(phi, 200, h, 500) for h in WIDTHS]
        curves.append(Curve(name, "width", list(WIDTHS), [_seconds(net, repeats) for net in nets]))
        nets = [_net(phi, a, 50, 500) for a in INPUTS]
        sizes = [net.L.n_parameters for net in nets]
        curves.append(Curve(name, "P", sizes, [_seconds(net, repeats) for net in nets]))
    return curves


def _net(phi: Layer, inputs: int, hidden: int, n: int) -> Problem:
    return problems.chain(n, Linear(inputs, hidden), phi, Linear(hidden, hidden), phi, Linear(hidden, 10))


def _seconds(problem: Problem, repeats: int) -> float:
    return median_seconds(lambda: exact.saliency(problem.L, problem.w), repeats)


def plot(curves: list[Curve], path: Path) -> None:
    """Draw seconds against each of the three on logarithmic axes, with the fitted slopes, and save it as PNG."""
    import matplotlib

    matplotlib.use("agg")
    fig, axes = plots.subplots(1, 3, size=(11.0, 3.8), sharey=True)
    with plots.style():
        for axis, (against, title) in zip(axes, TITLES.items(), strict=True):
            own = [curve for curve in curves if curve.against == against]
            for i, curve in enumerate(own):
                label = f"{curve.route}: slope {curve.slope:.2f}"
                axis.loglog(curve.sizes, curve.seconds, "os"[i % 2] + "-", color=f"C{i}", label=label)
            axis.set_xticks(own[0].sizes[::2], [f"{size:,}" for size in own[0].sizes[::2]])
            axis.set_xticks([], minor=True)
            axis.set_xlabel(title)
            axis.legend(loc="upper left")
        axes[0].set_ylabel("seconds, exact saliency of all")
        axes[0].set_ylim(top=4 * max(max(curve.seconds) for curve in curves))  # room for the legends
        fig.savefig(path, metadata={"Software": None})
    matplotlib.pyplot.close(fig)
