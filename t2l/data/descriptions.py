"""The texts that training makes adapters from, encoded once, looked up by number in every step.

Mostly descriptions, and called so here; see t2l/text/conditioning.py for what else they may be.

Axes: D descriptions, S tokens of all descriptions together, N looked-up texts, T tokens of the longest of them,
F features.

The frozen encoder would say the same every time, so its states are kept: fp16, without padding, on the training device.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from t2l.data.shared import CHUNK, OnProgress
from t2l.errors import DataError
from t2l.tasks.task import Task
from t2l.text.conditioning import training_texts
from t2l.text.encoder import TextEncoder, TextFeatures


@dataclass(frozen=True)
class DescriptionNumbers:
    """All descriptions in the table's order, and where each task's stand: a task's are consecutive."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, condition: str, tasks: Sequence[Task], number: int) -> "DescriptionNumbers":
        """At most `number` texts of each task. Raises DataError for a task without any."""
        texts = [training_texts(condition, task, number) for task in tasks]
        counts = [len(own) for own in texts]
        if 0 in counts:
            raise DataError(f"task '{tasks[counts.index(0)].name}' has no {condition}s: give it one or leave it out")
        starts = itertools.accumulate(counts, initial=0)
        return cls(tuple(itertools.chain(*texts)), tuple(starts)[:-1], tuple(counts))


class DescriptionTable:
    """States of D descriptions, ragged: `states_S_F`, and how many of these rows each description has."""

    def __init__(self, states_S_F: Tensor, lengths_D: Tensor, device: torch.device | str) -> None:
        assert int(lengths_D.sum()) == len(states_S_F)
        self._lengths_D = lengths_D.cpu()
        self._states_S_F = states_S_F.to(device)
        ends_D = self._lengths_D.cumsum(0)
        self._spans_D_2 = torch.stack([ends_D - self._lengths_D, self._lengths_D], dim=1).to(device)

    def __len__(self) -> int:
        return len(self._lengths_D)

    def lookup(self, index_N: Tensor) -> TextFeatures:
        """States [N, T, F] and mask [N, T] on the table's device; `index_N` on the CPU, lest the host wait for T."""
        width = int(self._lengths_D[index_N].max())
        spans_N_2 = self._spans_D_2[index_N.to(self._spans_D_2.device, non_blocking=True)]
        offsets_T = torch.arange(width, device=spans_N_2.device)
        mask_N_T = offsets_T < spans_N_2[:, 1:]
        rows_N_T = (spans_N_2[:, :1] + offsets_T).where(mask_N_T, 0)
        return TextFeatures(self._states_S_F[rows_N_T] * mask_N_T[..., None], mask_N_T)

    @classmethod
    def encode(
        cls,
        texts: Sequence[str],
        encoder: TextEncoder,
        device: torch.device | str = "cpu",
        on_progress: OnProgress | None = None,
    ) -> "DescriptionTable":
        """Encode everything here and now."""
        parts = []
        for start in range(0, len(texts), CHUNK):
            parts.append(ragged(encoder.encode(texts[start : start + CHUNK])))
            if on_progress:
                on_progress(min(start + CHUNK, len(texts)), len(texts))
        return cls.of_parts(parts, device)

    @classmethod
    def of_parts(cls, parts: Sequence[dict[str, Tensor]], device: torch.device | str) -> "DescriptionTable":
        return cls(torch.cat([p["states"] for p in parts]), torch.cat([p["lengths"] for p in parts]), device)


def ragged(features: TextFeatures) -> dict[str, Tensor]:
    """A part of a table: only the real tokens, one text after another, in fp16 on the CPU."""
    mask = features.mask_N_T
    return {"states": features.states_N_T_D[mask].half().cpu(), "lengths": mask.sum(1).cpu()}
