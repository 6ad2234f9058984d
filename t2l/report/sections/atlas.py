"""Where tasks lie: t-SNE of task embeddings and of the adapters made from them, coloured by what the tasks share.

Axes: N tasks, E embedding.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from t2l.lora.distance import inner_products
from t2l.report.document import Figure, Section
from t2l.report.style import COLOURS, GREY, panels
from t2l.tasks.task import Task
from t2l.text_to_lora import TextToLora

TASKS = 480
_BATCH = 64
_COMPONENTS = 50
_PERPLEXITY = 20
_NAMED = 7
"""Groups with a colour of their own; the rest is grey."""


def atlas(t2l: TextToLora, tasks: Sequence[Task]) -> Section | None:
    """One unseen description a task; None for fewer tasks than a map needs."""
    chosen = _spread(tasks, TASKS)
    if len(chosen) < 3 * _PERPLEXITY:
        return None
    texts = [task.unseen_descriptions[0] for task in chosen]
    parts = [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
    embedding_N_E = torch.cat([t2l.embed(part) for part in parts]).float().cpu()
    weights = t2l.from_embeddings(embedding_N_E.to(t2l.base.model.device)).weights.to("cpu", torch.float32)
    kernels = {"task embeddings": embedding_N_E @ embedding_N_E.T, "generated adapters": inner_products(weights)}
    parts_of_names = list(zip(*(task.name.split("/") for task in chosen), strict=False))
    figure, axes = panels(2, rows=len(parts_of_names), width=9, height=3.4 * len(parts_of_names))
    for column, (title, kernel_N_N) in enumerate(kernels.items()):
        points = _tsne(kernel_N_N)
        for row, groups in enumerate(parts_of_names):
            name = title if row == 0 else ""
            _map(axes[2 * row + column], points, groups, name, legend=column == 1)
    text = (
        f"t-SNE of {len(chosen)} tasks, one unseen description each. Adapters are compared by the change of the base "
        "model's weights that they make, summed over layers and modules. Each row colours the same points by another "
        "part of the task's name (family first; in the universe then what is picked and how it is rendered); the "
        f"{_NAMED} commonest have a colour."
    )
    return Section("Map of tasks", text, [Figure("atlas", "t-SNE of task embeddings and generated adapters", figure)])


def _spread(tasks: Sequence[Task], number: int) -> list[Task]:
    """At most so many, evenly spaced."""
    return [tasks[i * len(tasks) // number] for i in range(number)] if len(tasks) > number else list(tasks)


def _map(axes, points: np.ndarray, groups: Sequence[str], title: str, legend: bool) -> None:
    common = [group for group, _ in Counter(groups).most_common(_NAMED)]
    colour = dict(zip(common, COLOURS, strict=False))
    for group in [None, *common]:
        rows = [i for i, own in enumerate(groups) if (own if own in colour else None) == group]
        if rows:
            style = {"color": colour.get(group or "", GREY), "label": group or "others", "s": 12 if group else 6}
            axes.scatter(points[rows, 0], points[rows, 1], linewidths=0, **style)
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    if legend:  # both maps of a row share colours
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=1.5)


def _tsne(kernel_N_N: Tensor) -> np.ndarray:
    """Points [N, 2] from inner products, by way of their principal components."""
    from sklearn.manifold import TSNE

    centred = kernel_N_N.double() - kernel_N_N.double().mean(0)
    centred -= centred.mean(1, keepdim=True)
    values, vectors = torch.linalg.eigh(centred)
    components = vectors[:, -_COMPONENTS:] * values[-_COMPONENTS:].clamp(min=0).sqrt()
    components /= components.norm(dim=1).mean()
    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    tsne = cast(Any, TSNE(perplexity=perplexity, init="pca", random_state=0))  # pyright takes 14 s to infer its results
    return tsne.fit_transform(components.numpy())
