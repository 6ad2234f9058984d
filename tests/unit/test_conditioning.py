"""What adapters are made from: training's texts, an evaluation's keys and the names that a model knows agree."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_config, tiny_tokenizer

from t2l.data.descriptions import DescriptionNumbers
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.errors import DataError
from t2l.tasks.task import Example, Task
from t2l.text.conditioning import key_of, known_names, training_texts
from t2l.text.normalize import MAX_CHARACTERS, clean_description

CONFIG = tiny_config(Path("unused"), Path("unused"), tasks_per_step=3)
TASKS = build_suite(CONFIG.data).train[:3]


@pytest.mark.parametrize("condition", ["description", "one_hot", "input", "static"])
def test_keys_of_training_questions_are_training_texts(condition: str) -> None:
    task = TASKS[0]
    key = key_of(condition, task, task.train[1], task.descriptions[1])
    assert key in training_texts(condition, task, 4)
    names = known_names(condition, TASKS)
    assert (key in names) == (condition in ("one_hot", "static"))


def test_names_are_those_of_all_tasks_or_a_single_one() -> None:
    assert known_names("one_hot", TASKS) == tuple(task.name for task in TASKS)
    assert known_names("static", TASKS) == ("",)
    assert known_names("description", TASKS) == ()


def test_an_adapter_made_from_an_input_answers_that_input() -> None:
    config = CONFIG.model_copy(update={"condition": "input"})
    numbers = DescriptionNumbers.of("input", TASKS, 4)
    tokenizer = tiny_tokenizer()
    steps = SftSteps(config, TASKS, numbers, tokenizer)
    for step in range(6):
        [batch] = steps[step]
        for ids, number in zip(batch.input_ids_B_T, batch.description_index_B, strict=True):
            assert numbers.texts[number] in str(tokenizer.decode(ids))


def test_a_task_without_texts_is_named() -> None:
    bare = Task("bare", (), (), TASKS[0].train, TASKS[0].test)
    with pytest.raises(DataError, match="task 'bare' has no descriptions"):
        DescriptionNumbers.of("description", [TASKS[0], bare], 4)


def test_of_a_long_input_an_adapter_is_made_from_the_beginning() -> None:
    long = Example("It begins " + "and goes on " * MAX_CHARACTERS, "answer")
    task = replace(TASKS[0], train=(long,))
    key = key_of("input", task, long, "")
    assert [key] == training_texts("input", task, 4)
    assert clean_description(key).startswith("It begins and goes on")
