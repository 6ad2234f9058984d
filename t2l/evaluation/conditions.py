"""What is held against what: each condition says which text makes the adapter and which definition the prompt shows.

The claim that a description matters is the distance from ``t2l`` to ``shuffled``: the same tasks and inputs, an adapter
from another task's description. ``junk`` shows that it is no mere effect of having any adapter.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from t2l.tasks.task import Task

JUNK_LENGTH = 40
WORDINGS = 8
"""Descriptions of each task that an evaluation uses; its inputs take turns."""


@dataclass(frozen=True, slots=True)
class Question:
    """One input under one condition."""

    task: str
    input: str
    answer: str
    description: str | None
    """Makes the adapter; None: the base model alone."""
    definition: str | None
    """Stands in the prompt."""


Texts = Callable[[Sequence[Task], int, int], tuple[str | None, str | None]]
"""(tasks, number of the task, number of the input) -> (description, definition)."""


def _seen(task: Task, i: int) -> str:
    return task.descriptions[i % WORDINGS * 11 % len(task.descriptions)]


def _unseen(task: Task, i: int) -> str:
    return task.unseen_descriptions[i % WORDINGS % len(task.unseen_descriptions)]


def _other(tasks: Sequence[Task], t: int, i: int) -> str:
    """The unseen wording of another task of the split, another one for each input."""
    return _unseen(tasks[(t + 1 + i * 31 % (len(tasks) - 1)) % len(tasks)], i) if len(tasks) > 1 else ""


def _junk(t: int, i: int) -> str:
    return (
        "".join(
            random.Random(f"junk:{t}:{i % WORDINGS}").choices("abcdefghijklmnopqrstuvwxyz   ", k=JUNK_LENGTH)
        ).strip()
        or "q"
    )


CONDITIONS: dict[str, Texts] = {
    "base": lambda tasks, t, i: (None, None),
    "definition": lambda tasks, t, i: (None, _unseen(tasks[t], i)),
    "definition_seen": lambda tasks, t, i: (None, _seen(tasks[t], i)),
    "t2l_seen": lambda tasks, t, i: (_seen(tasks[t], i), None),
    "t2l": lambda tasks, t, i: (_unseen(tasks[t], i), None),
    "shuffled": lambda tasks, t, i: (_other(tasks, t, i), None),
    "junk": lambda tasks, t, i: (_junk(t, i), None),
}
"""``definition`` and ``t2l`` use unseen wording, ``*_seen`` training wording."""


def questions(condition: str, tasks: Sequence[Task], inputs_per_task: int) -> list[Question]:
    """The first inputs of each task's test examples under a condition."""
    texts = CONDITIONS[condition]
    found: list[Question] = []
    for t, task in enumerate(tasks):
        for i in range(min(inputs_per_task, len(task.test))):
            description, definition = texts(tasks, t, i)
            found.append(Question(task.name, task.test[i].input, task.test[i].output, description, definition))
    return found
