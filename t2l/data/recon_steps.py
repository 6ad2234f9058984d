"""The batches of reconstruction: which adapters of the library, made from which descriptions.

Axes: B adapters of a batch.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from t2l.config import RunConfig
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.sampler import TaskSampler, check_shares


@dataclass(frozen=True)
class ReconBatch:
    """adapter_index_B: places in the library; description_index_B: in the DescriptionTable, always on the CPU."""

    adapter_index_B: Tensor
    description_index_B: Tensor
    adapters_in_step: int

    @property
    def count(self) -> int:
        return len(self.description_index_B)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, adapter_index_B=self.adapter_index_B.to(device, non_blocking=True))


class ReconSteps(Sequence[list[ReconBatch]]):
    """Maps a step to this worker's micro-batches; one description a task and step, as the paper (or several)."""

    unit = "adapters"

    def __init__(self, config: RunConfig, numbers: DescriptionNumbers, rank: int = 0, world_size: int = 1) -> None:
        check_shares(config.train, world_size)
        self._config, self._numbers = config, numbers
        self._sampler = TaskSampler(len(numbers.counts), config.seed, config.train.tasks_per_step, rank, world_size)

    def __len__(self) -> int:
        return self._config.train.steps

    def __getitem__(self, step: int) -> list[ReconBatch]:  # type: ignore[override]
        train = self._config.train
        drawn = [
            (slot.task, self._draw(slot.task, step, slot.place, i))
            for slot in self._sampler(step)
            for i in range(train.samples_per_task)
        ]
        parts = [drawn[start :: train.micro_batches] for start in range(train.micro_batches)]
        return [self._batch(part) for part in parts]

    def loader(self, start: int, pin: bool) -> Iterator[list[ReconBatch]]:
        """Steps from `start` to the end, in order."""
        return (self[step] for step in range(start, len(self)))

    def _draw(self, task: int, step: int, place: int, sample: int) -> int:
        rng = random.Random(f"{self._config.seed}:{step}:{place}:{sample}")
        return self._numbers.starts[task] + rng.randrange(self._numbers.counts[task])

    def _batch(self, drawn: Sequence[tuple[int, int]]) -> ReconBatch:
        tasks, descriptions = zip(*drawn, strict=True)
        train = self._config.train
        in_step = train.tasks_per_step * train.samples_per_task
        return ReconBatch(torch.tensor(tasks), torch.tensor(descriptions), in_step)
