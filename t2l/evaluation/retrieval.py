"""Answers out of a library of LoRAs: the average of them all, and the one of the nearest task.

Axes: N texts, M reference descriptions, D features.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from t2l.lora.library import Library
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.text.encoder import TextEncoder

REFERENCES = 4
"""Training descriptions of each task that a text is compared with."""
_CHUNK = 64


def mean_adapter(chunks: Iterator[LoraWeights]) -> LoraWeights:
    """The mean over all adapters of all chunks, one adapter; A and B each by itself, as the paper's average LoRA."""
    first = next(chunks)
    total, number = first.mean() * len(first), len(first)
    for chunk in chunks:
        total, number = total + chunk.mean() * len(chunk), number + len(chunk)
    return total * (1 / number)


def average_of(library: Library, tasks: Sequence[str]) -> LoraWeights:
    """One adapter, the mean of those of these tasks."""
    spec = library.weights(tasks[:1]).spec
    starts = range(0, len(tasks), _CHUNK)
    return mean_adapter(library.weights(tasks[start : start + _CHUNK], spec) for start in starts)


class Nearest:
    """Finds, for a text, the task whose training descriptions hold the one most alike (cosine of its embedding)."""

    def __init__(self, encoder: TextEncoder, tasks: Sequence[Task]) -> None:
        self._encoder = encoder
        described = [(task.name, text) for task in tasks for text in task.descriptions[:REFERENCES]]
        self._names = [name for name, _ in described]
        self._references_M_D = self._embed([text for _, text in described])

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The name of the nearest task, for each text."""
        nearest_N = (self._embed(texts) @ self._references_M_D.T).argmax(1)
        return [self._names[place] for place in nearest_N.tolist()]

    def _embed(self, texts: Sequence[str]) -> Tensor:
        """Sentence vectors [N, D] of equal length, so that their products rank as cosines do."""
        features = self._encoder.encode(texts)
        assert features.states_N_T_D.shape[1] == 1
        return torch.nn.functional.normalize(features.states_N_T_D[:, 0].float(), dim=-1)
