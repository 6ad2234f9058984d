"""Samples are a function of (seed, step, place) alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny import tiny_config, tiny_tokenizer

from t2l.config import RunConfig
from t2l.data.collate import SftBatch
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.errors import ConfigError
from t2l.tasks.task import Task

Sample = tuple[tuple[int, ...], tuple[int, ...], int]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return tiny_config(Path("unused"), Path("unused"), tasks_per_step=5, samples_per_task=2)


@pytest.fixture(scope="module")
def tasks(config: RunConfig) -> Sequence[Task]:
    return build_suite(config.data).train


def steps(config: RunConfig, tasks: Sequence[Task], rank: int = 0, world_size: int = 1) -> SftSteps:
    numbers = DescriptionNumbers.of(config.condition, tasks, config.data.num_descriptions)
    return SftSteps(config, tasks, numbers, tiny_tokenizer(), rank, world_size)


def samples(batches: Sequence[SftBatch]) -> list[Sample]:
    """(input ids, labels, description) of every row."""
    found = []
    for batch in batches:
        rows = batch.label_positions_K // batch.input_ids_B_T.shape[1]
        for i, length in enumerate(batch.lengths_B.tolist()):
            ids = tuple(batch.input_ids_B_T[i, :length].tolist())
            found.append((ids, tuple(batch.label_ids_K[rows == i].tolist()), int(batch.description_index_B[i])))
    return found


def with_train(config: RunConfig, **changes: int) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("parts", [1, 2])
def test_any_number_of_workers_sees_the_same_step(
    config: RunConfig, tasks: Sequence[Task], world_size: int, parts: int
) -> None:
    cut = with_train(config, micro_batches=parts)
    for step in (0, 4):
        whole = samples(steps(config, tasks)[step])
        shared = [s for rank in range(world_size) for s in samples(steps(cut, tasks, rank, world_size)[step])]
        assert sorted(shared) == sorted(whole)


def test_the_loader_goes_on_where_it_is_told(config: RunConfig, tasks: Sequence[Task]) -> None:
    ours = steps(config, tasks)
    loaded = [samples(batches) for batches in ours.loader(start=3, pin=False)]
    assert loaded == [samples(ours[step]) for step in range(3, config.train.steps)]


def test_each_sample_draws_a_description_of_its_own_task(config: RunConfig, tasks: Sequence[Task]) -> None:
    ours, count = steps(config, tasks), config.data.num_descriptions
    drawn = [sample[2] for step in range(100) for sample in samples(ours[step])]
    assert set(drawn) == set(range(len(tasks) * count)), "every description comes up"
    step_tasks = [sample[2] // count for sample in samples(ours[0])]
    assert len(set(step_tasks)) == config.train.tasks_per_step


@pytest.mark.parametrize("definition", ["never", "always", "dropout"])
def test_the_prompt_holds_the_description_as_the_settings_say(
    config: RunConfig, tasks: Sequence[Task], definition: str
) -> None:
    data = config.data.model_copy(update={"definition": definition, "max_prompt_tokens": 4096})
    ours = steps(config.model_copy(update={"data": data}), tasks)
    tokenizer = tiny_tokenizer()
    texts = DescriptionNumbers.of("description", tasks, data.num_descriptions).texts
    rows = [row for step in range(10) for row in samples(ours[step])]
    shown = [texts[number] in str(tokenizer.decode(list(ids))) for ids, _, number in rows]
    assert (any(shown), all(shown)) == {"never": (False, False), "always": (True, True), "dropout": (True, False)}[
        definition
    ]


def test_more_micro_batches_than_samples_are_refused(config: RunConfig, tasks: Sequence[Task]) -> None:
    with pytest.raises(ConfigError, match="micro_batches is 5"):
        steps(with_train(config, micro_batches=5), tasks, 0, 3)
