"""Three figures of a sweep: score by variant, against the compression ratio, against the number of training tasks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from t2l.report.style import COLOURS, MARKERS, panels, score_axis, styled
from tune.results import Row

Place = Callable[[Row], float | None]


def draw(rows: Sequence[Row], variants: dict[str, str], folder: Path) -> list[Path]:
    """Write the figures as PNG into `folder`; `variants` tells each trial's. Trials without a score are left out."""
    scored = [row for row in rows if row.score is not None]
    order = sorted(set(variants.values()), reverse=True)
    places: dict[str, tuple[str, Place]] = {
        "variant": ("hypernetwork variant", lambda row: order.index(variants[row.trial])),
        "compression": (
            "adapter parameters of all training tasks / trained parameters",
            lambda row: row.compression_ratio,
        ),
        "train_tasks": ("training tasks", lambda row: row.train_tasks),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with styled():
        for name, (label, place) in places.items():
            figure, [axes] = panels(1, width=5.5)
            for variant, colour, marker in zip(order, COLOURS, MARKERS, strict=False):
                mine = [row for row in scored if variants[row.trial] == variant]
                at, scores = [place(row) for row in mine], [row.score for row in mine]  # None: not known, not drawn
                axes.scatter(
                    np.array(at, float),
                    np.array(scores, float),
                    s=36,
                    alpha=0.8,
                    color=colour,
                    marker=marker,
                    label=variant,
                )
            if name == "variant":
                axes.set_xticks(range(len(order)), order)
            else:
                axes.set_xscale("log")
                axes.legend(title="variant")
            axes.set_xlabel(label)
            score_axis(axes, "validation score")
            path = folder / f"score_by_{name}.png"
            figure.savefig(path, dpi=150)
            paths.append(path)
    return paths
