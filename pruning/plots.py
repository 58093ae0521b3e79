"""Figures: one style, an alt text for each, and the same bytes from the same data.

matplotlib and IPython are imported where they are used, so that importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pruning.scoreboard import Scoreboard

STYLE = Path(__file__).with_name("book.mplstyle")


def style() -> AbstractContextManager[None]:
    """The style of the book as a context; matplotlib's global settings are as before when it ends."""
    import matplotlib.style

    return matplotlib.style.context(STYLE)


def use_style() -> None:
    """Take the style of the book for all figures that follow; a chapter calls it once, at its start."""
    import matplotlib.style

    matplotlib.style.use(STYLE)


def subplots(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **options: Any
) -> tuple[Figure, Any]:
    """A figure of `rows` by `columns` axes in the style of the book, as `matplotlib.pyplot.subplots` returns it.

    `size` is the width and height in inches (6.4 by 3.8 unless given); `options` go to matplotlib.
    """
    import matplotlib.pyplot as plt

    with style():
        return plt.subplots(rows, columns, **(options | {"figsize": size} if size else options))


def save(fig: Figure, path: Path) -> None:
    """Write the figure in the format that the name of `path` ends in, and close it."""
    import matplotlib.pyplot as plt

    with style():
        fig.savefig(path, format=path.suffix[1:].lower())
    plt.close(fig)


def show(fig: Figure, *, alt: str) -> None:
    """Display the figure in a notebook as PNG, and close it.

    `alt` says in words what a reader should see; it goes into the metadata of the output, from where
    `python -m chapters` hands it to the HTML book. The PNG does not name the software that drew it, so that the same
    figure gives the same bytes. Raises ValueError when `alt` is empty.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt must say in words what the figure shows; got {alt!r}")
    import matplotlib.pyplot as plt
    from IPython.display import Image, display

    buffer = BytesIO()
    with style():
        fig.savefig(buffer, format="png", metadata={"Software": None})
    plt.close(fig)
    display(Image(data=buffer.getvalue(), format="png", alt=alt))


def scatter(axis: Axes, truth: np.ndarray, scores: np.ndarray, **points: Any) -> None:
    """Draw scores against the exact saliency, each as a share of its largest size, on symmetric logarithmic axes.

    The axes are linear within ±1 % of the largest, so that signs and several orders of size both show.
    """
    x, y = (values / (np.abs(values).max(initial=0) or 1.0) for values in (truth, scores))
    axis.scatter(x, y, **{"s": 5, "linewidths": 0, "alpha": 0.6, "rasterized": True} | points)
    axis.set_xscale("symlog", linthresh=0.01)
    axis.set_yscale("symlog", linthresh=0.01)
    for set_limits, values, limits in ((axis.set_xlim, x, axis.get_xlim()), (axis.set_ylim, y, axis.get_ylim())):
        set_limits(min(limits[0], -0.015, 1.5 * values.min(initial=0)), 1.5)


def against_exact(boards: Mapping[str, Scoreboard]) -> Figure:
    """Draw one panel for each criterion: its scores against the exact saliency of every candidate.

    `boards` maps a label to a scoreboard; several of them share the panels in different colours. In each panel
    stands the rank correlation ρ (Spearman).
    """
    names = [name for name in next(iter(boards.values())).scores if name != "exact"]
    columns = 3
    rows = -(-len(names) // columns)
    fig, axes = subplots(rows, columns, size=(7.4, 2.2 * rows + 0.7), squeeze=False, sharex=True, sharey=True)
    with style():
        for axis, name in zip(axes.flat, names, strict=False):
            axis.set_title(name)
            for i, (label, board) in enumerate(boards.items()):
                scatter(axis, board.saliency[board.among], board.scores[name][board.among], color=f"C{i}", label=label)
                rho = next(row.spearman for row in board.rows if row.criterion == name)
                axis.text(0.04, 0.05 + 0.14 * i, f"ρ = {rho:.2f}", color=f"C{i}", fontsize=11, transform=axis.transAxes)
            _sparse_symlog_ticks(axis)
        for axis in axes.flat[len(names) :]:
            axis.set_axis_off()
        if len(boards) > 1:
            fig.legend(
                *axes.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(boards), markerscale=4
            )
        fig.supxlabel("exact saliency, share of the largest", fontsize=13)
        fig.supylabel("score, share of the largest", fontsize=13)
    return fig


def by_layer(saliencies: Mapping[str, np.ndarray]) -> Figure:
    """Draw where the exact saliency lives: the distribution of |s| in each layer, and the layers' shares of Σ|s|.

    `saliencies` maps a layer's name to those of its weights. The axis begins at 10⁻⁷ of the
    largest: what is below, and what is worth exactly 0, is where a curve starts.
    """
    fig, (left, right) = subplots(1, 2, size=(7.4, 3.6))
    sums = {name: float(np.abs(s).sum()) for name, s in saliencies.items()}
    total, count = sum(sums.values()) or 1.0, sum(len(s) for s in saliencies.values())
    largest = max(float(np.abs(s).max(initial=0)) for s in saliencies.values()) or 1.0
    with style():
        for i, (name, s) in enumerate(saliencies.items()):
            size = np.sort(np.abs(s))
            some = np.unique(np.linspace(0, len(size) - 1, 1000).astype(int))
            left.plot(size[some], (some + 1) / len(size), color=f"C{i}", label=name)
            for at, share, of, alpha in ((-0.2, sums[name] / total, "Σ|s|", 1), (0.2, len(s) / count, "weights", 0.35)):
                right.barh(i + at, share, 0.4, color=f"C{i}", alpha=alpha)
                right.text(share + 0.02, i + at, f"{_percent(share)} of {of}", va="center", fontsize=11)
        left.set_xscale("log")
        left.set_xlim(1e-7 * largest, 2 * largest)
        left.set_xlabel("|exact saliency|")
        left.set_ylabel("share of the layer's weights below")
        right.set_yticks(range(len(saliencies)), list(saliencies))
        right.invert_yaxis()
        right.set_xlim(0, 1.9)
        right.set_xticks([0, 0.5, 1])
        right.spines["bottom"].set_bounds(0, 1)
        right.set_xlabel("share of all layers", loc="left")
        fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=min(4, len(saliencies)))
    return fig


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or not share else "< 1 %"


def _sparse_symlog_ticks(axis: Axes) -> None:
    for one in (axis.xaxis, axis.yaxis):
        one.set_ticks([-1, -0.01, 0.01, 1], ["−1", "−.01", ".01", "1"])
        one.set_ticks([], minor=True)
