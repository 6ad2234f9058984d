"""Task sharding: each task once an epoch over all workers, whatever their number, resumable anywhere."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2l.config import TrainConfig
from t2l.data.sampler import TaskSampler, check_shares, epoch_order
from t2l.errors import ConfigError

workers = st.integers(1, 16)


def stream(num_tasks: int, seed: int, per_step: int, world: int, steps: range) -> list[int]:
    """Tasks of whole steps, put together from what each worker says it takes."""
    samplers = [TaskSampler(num_tasks, seed, per_step, rank, world) for rank in range(world)]
    tasks: list[int] = []
    for step in steps:
        slots = sorted((slot for sampler in samplers for slot in sampler(step)), key=lambda slot: slot.place)
        assert [slot.place for slot in slots] == list(range(per_step)), "each place of a step goes to one worker"
        tasks += [slot.task for slot in slots]
    return tasks


@given(st.integers(1, 300), st.integers(0, 10), st.integers(0, 40), workers)
def test_each_task_once_an_epoch(num_tasks: int, seed: int, more: int, world: int) -> None:
    per_step = world + more
    tasks = stream(num_tasks, seed, per_step, world, range(3 * num_tasks // per_step + 1))
    for epoch in range(len(tasks) // num_tasks):
        counts = Counter(tasks[epoch * num_tasks : (epoch + 1) * num_tasks])
        assert counts == Counter(range(num_tasks))


@given(st.integers(1, 300), st.integers(0, 10), workers, workers, st.integers(0, 50))
def test_the_stream_is_the_same_for_any_number_of_workers(n: int, seed: int, one: int, other: int, step: int) -> None:
    steps = range(step, step + 3)
    assert stream(n, seed, 16, one, steps) == stream(n, seed, 16, other, steps)


@given(st.integers(1, 300), st.integers(0, 10), st.integers(0, 40), workers, st.integers(0, 60))
def test_it_resumes_anywhere(num_tasks: int, seed: int, more: int, world: int, start: int) -> None:
    per_step = world + more
    whole = stream(num_tasks, seed, per_step, world, range(start + 2))
    assert whole[start * per_step :] == stream(num_tasks, seed, per_step, world, range(start, start + 2))


lives = st.lists(st.tuples(workers, st.integers(0, 15)), max_size=6)


@given(st.integers(1, 60), st.integers(0, 10), st.integers(1, 7), lives)
def test_each_task_once_an_epoch_though_workers_come_and_go(
    num_tasks: int, seed: int, checkpoint_every: int, lives: list[tuple[int, int]]
) -> None:
    """A life: so many workers train so many steps; the next ones go on from the last checkpoint."""
    trained: list[list[int]] = []  # tasks of each step
    for world, steps in [*lives, (1, num_tasks)]:
        del trained[len(trained) // checkpoint_every * checkpoint_every :]
        start = len(trained)
        trained += [stream(num_tasks, seed, 16, world, range(i, i + 1)) for i in range(start, start + steps)]
    tasks = [task for step in trained for task in step]
    for epoch in range(len(tasks) // num_tasks):
        assert sorted(tasks[epoch * num_tasks : (epoch + 1) * num_tasks]) == list(range(num_tasks))


@given(workers, st.integers(0, 40), st.integers(0, 20))
def test_shares_differ_by_one_at_most(world: int, more: int, step: int) -> None:
    sizes = [len(TaskSampler(7, 0, world + more, rank, world)(step)) for rank in range(world)]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_order_depends_on_seed_and_epoch() -> None:
    assert epoch_order(50, 0, 0) == epoch_order(50, 0, 0)
    assert epoch_order(50, 0, 0) != epoch_order(50, 0, 1) != epoch_order(50, 1, 0)


def test_too_few_tasks_for_the_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="tasks_per_step is 2 but"):
        check_shares(TrainConfig(tasks_per_step=2), num_workers=3)
    with pytest.raises(ConfigError, match=r"micro_batches is 2, more than a worker's samples"):
        check_shares(TrainConfig(tasks_per_step=4, micro_batches=2), num_workers=3)
    check_shares(TrainConfig(tasks_per_step=4, micro_batches=2), num_workers=2)
    with pytest.raises(ConfigError, match="no training tasks"):
        TaskSampler(0, 0, 2)
