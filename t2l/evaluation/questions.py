"""Which questions are asked: inputs of tasks, each with the text that makes its adapter and with what its prompt shows.

The claim that a description matters is the distance between the wordings ``unseen`` and ``shuffled``: the same tasks
and inputs, an adapter from another task's description. ``junk`` shows that it is no mere effect of having any adapter,
``static`` (one adapter, the mean over training descriptions) that it is none of having an average one.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from t2l.errors import DataError
from t2l.evaluation.methods import Method
from t2l.tasks.task import Example, Task
from t2l.text.conditioning import key_of

JUNK_LENGTH = 40
NUM_WORDINGS = 8
"""Descriptions of each task that an evaluation uses; its inputs take turns."""


@dataclass(frozen=True, slots=True)
class Question:
    """One input of a task, as one method puts it.

    key: the text that the adapter is made from; None: the base model alone.
    definition, shots: stand in the prompt. metric: names the scorer of the answer.
    """

    task: str
    input: str
    answer: str
    key: str | None
    definition: str | None = None
    shots: tuple[Example, ...] = ()
    metric: str = "exact_match"


def _seen(tasks: Sequence[Task], t: int, i: int) -> str:
    texts = tasks[t].descriptions
    return texts[i % NUM_WORDINGS * 11 % len(texts)]


def _unseen(tasks: Sequence[Task], t: int, i: int) -> str:
    texts = tasks[t].unseen_descriptions
    return texts[i % NUM_WORDINGS % len(texts)]


def _shuffled(tasks: Sequence[Task], t: int, i: int) -> str:
    """The unseen wording of another task of the split, another one for each input."""
    if len(tasks) < 2:
        raise DataError(f"task '{tasks[t].name}' is alone in its split: there is no other description to shuffle in")
    return _unseen(tasks, (t + 1 + i * 31 % (len(tasks) - 1)) % len(tasks), i)


def _junk(tasks: Sequence[Task], t: int, i: int) -> str:
    rng = random.Random(f"junk:{t}:{i % NUM_WORDINGS}")
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz   ", k=JUNK_LENGTH)).strip() or "q"


WORDINGS: dict[str, Callable[[Sequence[Task], int, int], str]] = {
    "unseen": _unseen,
    "seen": _seen,
    "shuffled": _shuffled,
    "junk": _junk,
    "static": lambda tasks, t, i: "",
}
"""(tasks of the split, number of the task, number of the input) -> the text that describes the task."""


def questions(
    method: Method,
    wording: str | None,
    tasks: Sequence[Task],
    inputs_per_task: int,
    names: Collection[str] | None = None,
) -> list[Question]:
    """The first inputs of each task's test examples, as a method puts them under a wording.

    names: ask about these tasks only; what is asked does not depend on it. Raises DataError if the wording ``shuffled``
    has no other task to take a description from, or a task has too few training examples for the method's shots.
    """
    asked: list[Question] = []
    for t, task in enumerate(tasks):
        if names is None or task.name in names:
            number = min(inputs_per_task, len(task.test))
            asked += [_question(method, wording, tasks, t, i) for i in range(number)]
    return asked


def _question(method: Method, wording: str | None, tasks: Sequence[Task], t: int, i: int) -> Question:
    task, example = tasks[t], tasks[t].test[i]
    text = "" if wording is None else WORDINGS[wording](tasks, t, i)
    return Question(
        task=task.name,
        input=example.input,
        answer=example.output,
        key=None if method.condition is None else key_of(method.condition, task, example, text),
        definition=text if method.definition else None,
        shots=_shots(task, example, i, method.shots),
        metric=task.metric,
    )


def _shots(task: Task, asked: Example, i: int, number: int) -> tuple[Example, ...]:
    """Training examples of distinct inputs, none of them the one asked about; inputs take turns as with wordings."""
    found: dict[str, Example] = {}
    for k in range(len(task.train)):
        if len(found) == number:
            break
        shot = task.train[(i % NUM_WORDINGS * number + k) % len(task.train)]
        if shot.input != asked.input:
            found.setdefault(shot.input, shot)
    if len(found) < number:
        raise DataError(f"task '{task.name}' has fewer than {number} training examples to show in a prompt")
    return tuple(found.values())
