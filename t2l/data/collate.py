"""From token lists to the tensors of one training batch.

Axes: B rows (sequences), T tokens of the longest row, K labels of all rows together, J likeliest tokens of a teacher.

Everything that depends on the data is settled here, on the CPU: the step itself then needs no mask and no boolean
indexing, which would make the host wait for the device.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor

from t2l.errors import DataError

PAD_TO = 8
"""Widths are multiples of this: matrix units like it, and shapes repeat more often."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sample as token ids; `description` is its place in the DescriptionTable.

    teacher: instead of certainty about each token of the answer, ids and probabilities [len(answer), J].
    """

    prompt: list[int]
    answer: list[int]
    description: int
    teacher: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class SftBatch:
    """Rows for one forward pass, padded on the right: with causal attention, padding then changes no label's logits.

    input_ids_B_T: prompt and answer, without the last token of the answer, which predicts nothing.
    label_positions_K: where in the flattened [B * T] the state stands that predicts the label.
    label_weights_K: 1 / (labels of the row * rows of the whole step): weighted losses of all batches of a step, on all
        workers, add up to the mean over sequences of the mean over their tokens.
    description_index_B: always on the CPU, as the table knows lengths there.
    teacher_*: of all rows or of none.
    rows_in_step, count: rows of the whole step on all workers; tokens here that are not padding.
    """

    input_ids_B_T: Tensor
    lengths_B: Tensor
    label_positions_K: Tensor
    label_ids_K: Tensor
    label_weights_K: Tensor
    description_index_B: Tensor
    rows_in_step: int
    count: int
    teacher_ids_K_J: Tensor | None = None
    teacher_probs_K_J: Tensor | None = None

    def pin_memory(self) -> Self:
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device | str) -> Self:
        """Start copying to a device; does not wait for it."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        moving = {name: tensor for name, tensor in vars(self).items() if isinstance(tensor, Tensor)}
        del moving["description_index_B"]
        return replace(self, **{name: function(tensor) for name, tensor in moving.items()})


def cut_left(ids: list[int], limit: int) -> list[int]:
    """The last `limit` tokens: what stands next to the answer matters most (as the paper's code does)."""
    return ids[-limit:]


def collate(rows: Sequence[Row], rows_in_step: int, pad_id: int) -> SftBatch:
    """Rows -> tensors. Raises DataError for a row without a prompt or an answer."""
    if empty := next((row for row in rows if not row.prompt or not row.answer), None):
        raise DataError(
            f"a sample needs tokens in both prompt and answer, but has {len(empty.prompt)} and {len(empty.answer)}"
        )
    width = _width(rows)
    ids = torch.full((len(rows), width), pad_id)
    positions: list[int] = []
    labels: list[int] = []
    weights: list[float] = []
    for i, row in enumerate(rows):
        ids[i, : len(row) - 1] = torch.tensor((row.prompt + row.answer)[:-1])
        first = i * width + len(row.prompt) - 1
        positions += range(first, first + len(row.answer))
        labels += row.answer
        weights += [1 / (len(row.answer) * rows_in_step)] * len(row.answer)
    return SftBatch(
        input_ids_B_T=ids,
        lengths_B=torch.tensor([len(row) - 1 for row in rows]),
        label_positions_K=torch.tensor(positions),
        label_ids_K=torch.tensor(labels),
        label_weights_K=torch.tensor(weights),
        description_index_B=torch.tensor([row.description for row in rows]),
        rows_in_step=rows_in_step,
        count=sum(len(row) - 1 for row in rows),
        **_teacher(rows),
    )


def _width(rows: Sequence[Row]) -> int:
    return math.ceil((max(map(len, rows)) - 1) / PAD_TO) * PAD_TO


def _teacher(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Rows without a teacher among those with one are sure of their labels."""
    width = next((row.teacher[0].shape[1] for row in rows if row.teacher), None)
    if width is None:
        return {}
    parts = [row.teacher or _sure(row.answer, width) for row in rows]
    return {
        "teacher_ids_K_J": torch.cat([ids for ids, _ in parts]),
        "teacher_probs_K_J": torch.cat([probs for _, probs in parts]),
    }


def _sure(answer: Sequence[int], width: int) -> tuple[Tensor, Tensor]:
    ids = torch.tensor(answer)[:, None].expand(-1, width)
    return ids, torch.eye(width)[0].expand(len(answer), -1)


def micro_batches(rows: Sequence[Row], number: int) -> list[Sequence[Row]]:
    """Split into `number` parts of like length, cut where the least padding is computed.

    Parts of equal size would compute .18 as much again as there is for 128 rows in 8 parts, these .10 (lengths
    log-normal, sigma .5); more parts, less padding.
    """
    assert len(rows) >= number
    ordered = sorted(rows, key=len)
    place = np.arange(len(rows) + 1)
    width = np.array([0, *(_width([row]) for row in ordered)])
    # [start, end]: what a part of these rows computes; the last row is its longest.
    area = np.where(place[:, None] < place, (place - place[:, None]) * width.astype(float), np.inf)
    least = area[0]  # of the first rows up to each end, in one part; then in two, and so on
    starts = []
    for _ in range(number - 1):
        total = least[:, None] + area
        starts.append(total.argmin(0))
        least = total.min(0)
    cuts = [len(rows)]
    for start in reversed(starts):
        cuts.append(int(start[cuts[-1]]))
    return [ordered[start:end] for start, end in pairwise([0, *reversed(cuts)])]


def in_parts(rows: Sequence[Row], number: int) -> list[Sequence[Row]]:
    """Split into `number` parts of nearly equal size, in order."""
    assert len(rows) >= number
    cuts = [len(rows) * i // number for i in range(number + 1)]
    return [rows[start:end] for start, end in pairwise(cuts)]
