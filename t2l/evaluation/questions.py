"""Which questions are asked: inputs of tasks, each with the text that makes its adapter and with what its prompt shows.

The claim that a description matters is the distance between the wordings ``unseen`` and ``shuffled``: the same tasks
and inputs, an adapter from another task's description. ``junk`` shows that it is no mere effect of having any adapter,
``static`` (one adapter, the mean over training descriptions) that it is none of having an average one.
"""

import itertools
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from t2l.errors import ConfigError, DataError
from t2l.evaluation.methods import Method
from t2l.evaluation.scorers import SCORERS
from t2l.tasks.task import Example, Task
from t2l.text.conditioning import key_of

JUNK_LENGTH = 40
NUM_WORDINGS = 8
"""Descriptions of each task that an evaluation uses; its inputs take turns."""


@dataclass(frozen=True, slots=True)
class Question:
    """One input of a task, as one method puts it.

    key: the text that the adapter is made from; None: the base model alone.
    also: answers as right as `answer`. definition, shots: stand in the prompt. metric: names the scorer of the answer.
    prefill: how the answer begins, which the prompt ends with. max_new_tokens: None: a little more than the answer's.
    """

    task: str
    input: str
    answer: str
    key: str | None
    definition: str | None = None
    shots: tuple[Example, ...] = ()
    metric: str = "exact_match"
    also: tuple[str, ...] = ()
    prefill: str = ""
    max_new_tokens: int | None = None

    def score(self, answer: str, scorer: str) -> float:
        """By the right answer that it comes closest to, as Super-NaturalInstructions is scored."""
        return max(SCORERS[scorer](answer, reference) for reference in (self.answer, *self.also))


def _seen(tasks: Sequence[Task], t: int, i: int) -> str:
    texts = tasks[t].descriptions
    return texts[i % NUM_WORDINGS * _stride(11, len(texts)) % len(texts)]


def _unseen(tasks: Sequence[Task], t: int, i: int) -> str:
    texts = tasks[t].unseen_descriptions
    return texts[i % NUM_WORDINGS % len(texts)]


def _shuffled(tasks: Sequence[Task], t: int, i: int) -> str:
    """The unseen wording of another task of the split, another one for each input."""
    others = [other for other in (*range(t + 1, len(tasks)), *range(t)) if tasks[other].unseen_descriptions]
    if not others:
        raise DataError(f"task '{tasks[t].name}' is alone in its split: there is no other description to shuffle in")
    return _unseen(tasks, others[i * _stride(31, len(others)) % len(others)], i)


def _stride(least: int, places: int) -> int:
    """Steps that come to all places before they come to one again."""
    return next(step for step in itertools.count(least) if math.gcd(step, places) == 1)


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
"""(tasks of the split, number of the task, number of the text) -> the text that describes the task."""
_NO_TEXT = (None, "static")


def questions(
    method: Method,
    wording: str | None,
    tasks: Sequence[Task],
    inputs_per_task: int,
    names: Collection[str] | None = None,
    run_code: bool = False,
) -> list[Question]:
    """The first inputs of each task's test examples, as a method puts them under a wording.

    names: ask about these tasks only; what is asked does not depend on it. run_code: answers may be run.
    Raises DataError if the wording ``shuffled`` has no other task to take a description from, or a task has too few
    training examples for the method's shots; ConfigError for a task whose answers are run where that is not allowed.
    """
    known = [(t, task) for t, task in enumerate(tasks) if names is None or task.name in names]
    if not run_code:
        refuse_code({task.name: task.metric for _, task in known})
    return [
        _question(method, wording, tasks, t, i, k)
        for t, task in known
        for i, k in _asked(wording, task, inputs_per_task)
    ]


def num_questions(wording: str | None, task: Task, inputs_per_task: int) -> int:
    """How many of them are about a task."""
    return len(_asked(wording, task, inputs_per_task))


def refuse_code(metrics: Mapping[str, str]) -> None:
    """Raise ConfigError if there is a task whose answers are run. metrics: of each task, by name."""
    if names := [name for name, metric in metrics.items() if metric == "pass_at_1"]:
        raise ConfigError(
            f"grading {' and '.join(names)} runs code that a model has written: allow that (--run-code; in training "
            "data.run_code=true), or leave such tasks out"
        )


def _asked(wording: str | None, task: Task, inputs_per_task: int) -> list[tuple[int, int]]:
    """Numbers of inputs, each with that of the text it is asked under: as many texts as inputs, or all for each."""
    inputs = range(min(inputs_per_task, len(task.test)))
    if not task.each_description or wording in _NO_TEXT:
        return [(i, i) for i in inputs]
    return [(i, k) for i in inputs for k in range(len(task.unseen_descriptions))]


def _question(method: Method, wording: str | None, tasks: Sequence[Task], t: int, i: int, k: int) -> Question:
    task, example = tasks[t], tasks[t].test[i]
    text = "" if wording is None else WORDINGS[wording](tasks, t, k)
    return Question(
        task=task.name,
        input=example.input,
        answer=example.output,
        key=None if method.condition is None else key_of(method.condition, task, example, text),
        definition=text if method.definition else None,
        shots=_shots(task, example, i, method.shots),
        metric=task.metric,
        also=example.also,
        prefill=example.prefill,
        max_new_tokens=task.max_new_tokens,
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
