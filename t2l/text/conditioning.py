"""What an adapter is made from, by a run's `condition`.

description  a description of the task: T2L
one_hot      the task's name, as a code of its own: shows what is lost or won by reading words (paper, ablations)
input        the input to answer: Hyperdecoders (Ivison and Peters 2022, https://arxiv.org/abs/2203.08304)
static       nothing: the same adapter for every task, a multi-task LoRA
"""

from collections.abc import Sequence

from t2l.tasks.task import Example, Task
from t2l.text.normalize import MAX_CHARACTERS

READ = ("description", "input")
"""Conditions whose texts an encoder reads; those of the others are names, known by their place in a list."""


def key_of(condition: str, task: Task, example: Example, description: str) -> str:
    """The text behind the adapter that answers one input of a task."""
    return {"description": description, "one_hot": task.name, "input": _read(example), "static": ""}[condition]


def training_texts(condition: str, task: Task, number: int) -> list[str]:
    """What training makes a task's adapters from: at most `number` descriptions or inputs, else one name."""
    if condition == "description":
        return task.descriptions[:number]  # type: ignore[return-value]
    if condition == "input":
        return [_read(example) for example in task.train[:number]]
    return [task.name if condition == "one_hot" else ""]


def known_names(condition: str, tasks: Sequence[Task]) -> tuple[str, ...]:
    """The names that a trained model knows; none where it reads texts."""
    if condition in READ:
        return ()
    return tuple(dict.fromkeys(text for task in tasks for text in training_texts(condition, task, 1)))


def _read(example: Example) -> str:
    """As much of an input as a description may have: its beginning, as encoders cut off what they have no room for."""
    return example.input[:MAX_CHARACTERS]
