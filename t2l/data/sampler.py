"""Which tasks each worker trains on at each step: a pure function of the seed and the step number.

All epochs stand one after another in one endless stream, each a shuffled list of all tasks. A step is the next
`tasks_per_step` places of the stream, dealt out to the workers in turn. So in every epoch each task comes exactly once
over all workers, whatever their number; every worker takes every step; and a step number is all there is to resume.
"""

import random
from dataclasses import dataclass
from functools import lru_cache

from t2l.config import TrainConfig
from t2l.errors import ConfigError


def check_shares(train: TrainConfig, num_workers: int) -> None:
    """Raises ConfigError where a step is too small to be split over so many workers and their micro-batches."""
    if train.tasks_per_step < num_workers:
        raise ConfigError(
            f"train.tasks_per_step is {train.tasks_per_step} but cluster.num_workers is {num_workers}: "
            "every worker needs at least one task a step"
        )
    if train.tasks_per_step // num_workers * train.samples_per_task < train.micro_batches:
        raise ConfigError(
            f"train.micro_batches is {train.micro_batches}, more than a worker's samples in a step: lower it, "
            "or raise train.tasks_per_step or train.samples_per_task"
        )


@dataclass(frozen=True)
class Slot:
    """One place in a step: its number among those of all workers (the root of its randomness), and the task there."""

    place: int
    task: int


@dataclass(frozen=True)
class TaskSampler:
    """The slots of one worker (`rank` of `world_size`), step by step. Workers' shares of a step differ by at most one
    slot, and `check_shares` says whether each has one.
    """

    num_tasks: int
    seed: int
    tasks_per_step: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world_size
        if self.num_tasks < 1:
            raise ConfigError("there are no training tasks: check the data settings")

    def __call__(self, step: int) -> list[Slot]:
        """This worker's slots at `step`, counted from 0."""
        first = step * self.tasks_per_step
        return [
            Slot(place, self._task_at(first + place))
            for place in range(self.rank, self.tasks_per_step, self.world_size)
        ]

    def _task_at(self, place: int) -> int:
        epoch, index = divmod(place, self.num_tasks)
        return epoch_order(self.num_tasks, self.seed, epoch)[index]


@lru_cache(maxsize=8)
def epoch_order(num_tasks: int, seed: int, epoch: int) -> tuple[int, ...]:
    """All tasks, shuffled by (seed, epoch) alone."""
    return tuple(random.Random(f"{seed}:{epoch}").sample(range(num_tasks), num_tasks))
