"""What every source of tasks gives: tasks with descriptions and examples, in disjoint splits."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

Metric = Literal["exact_match", "rouge_l", "choice", "true_false", "number", "pass_at_1"]
"""Names of scorers, see t2l/evaluation/scorers.py."""


@dataclass(frozen=True, slots=True)
class Example:
    """One input and the answer that the task asks for; `also`: other answers that are as right, but not trained on.

    `prefill`: how an answer to the input begins, which the prompt gives when it is asked about.
    """

    input: str
    output: str
    also: tuple[str, ...] = ()
    prefill: str = ""

    @property
    def answers(self) -> tuple[str, ...]:
        """All right ones."""
        return (self.output, *self.also)


@dataclass(frozen=True)
class Task:
    """A task: many descriptions of one behaviour, and examples of it.

    ``descriptions`` are the wordings that training may use; ``unseen_descriptions`` share no wording with them and
    serve evaluation only. Sequences may be lazy; each index always gives the same value.
    ``metric`` names the scorer (t2l/evaluation/scorers.py) that says how right an answer is.
    ``max_new_tokens``: longest answer; None: a little more than the right ones. ``each_description``: each input is
    asked about under each of the unseen descriptions, rather than they take turns.
    """

    name: str
    descriptions: Sequence[str]
    unseen_descriptions: Sequence[str]
    train: Sequence[Example]
    test: Sequence[Example]
    metric: str = "exact_match"
    max_new_tokens: int | None = None
    each_description: bool = False

    def as_held_out(self) -> Self:
        """The task as one that training never sees: without unseen wordings of its own, any of its wordings is one."""
        return self if len(self.unseen_descriptions) else replace(self, unseen_descriptions=self.descriptions)


@dataclass(frozen=True)
class TaskSuite:
    """Tasks by split. ``train`` and ``validation`` may steer training; the other splits are only for the final report.

    ``test`` holds unseen combinations of skills seen in training; ``extra`` holds further named test sets, each harder
    in a way that its name says. ``notes`` tell people what was left out.
    """

    train: tuple[Task, ...]
    validation: tuple[Task, ...]
    test: tuple[Task, ...]
    extra: dict[str, tuple[Task, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_descriptions(self, most: int) -> Self:
        """With the first so many descriptions of each task: those that training uses."""

        def cut(tasks: Sequence[Task]) -> tuple[Task, ...]:
            return tuple(replace(task, descriptions=task.descriptions[:most]) for task in tasks)

        extra = {name: cut(tasks) for name, tasks in self.extra.items()}
        return replace(self, train=cut(self.train), validation=cut(self.validation), test=cut(self.test), extra=extra)
