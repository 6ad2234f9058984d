"""How figures look: the colour-blind-safe palette of Okabe and Ito, direct labels, no chart junk."""

from contextlib import AbstractContextManager
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#999999"
_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e5e5e5",
    "legend.frameon": False,
}


def styled() -> AbstractContextManager[None]:
    """All figures are drawn inside it."""
    return rc_context(_SETTINGS)


def panels(columns: int, rows: int = 1, width: float = 7.5, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` x `columns` axes, row by row; size in inches. Needs no display and leaves no global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def ratio_axis(axes: Axes, label: str) -> None:
    """A logarithmic x axis with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.minorticks_off()
    axes.set_xlabel(label)


def score_axis(axes: Axes, label: str = "score (mean over tasks)") -> None:
    """A score's y axis, always all of [0, 1]."""
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel(label)
