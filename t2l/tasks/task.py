"""What every source of tasks gives: tasks with descriptions and examples, in disjoint splits."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Example:
    """One input and the answer that the task asks for."""

    input: str
    output: str


@dataclass(frozen=True)
class Task:
    """A task: many descriptions of one behaviour, and examples of it.

    ``descriptions`` are the wordings that training may use; ``unseen_descriptions`` share no wording with them and
    serve evaluation only. Sequences may be lazy; each index always gives the same value.
    ``metric`` names the scorer (t2l/evaluation/scorers.py) that says how right an answer is.
    """

    name: str
    descriptions: Sequence[str]
    unseen_descriptions: Sequence[str]
    train: Sequence[Example]
    test: Sequence[Example]
    metric: str = "exact_match"


@dataclass(frozen=True)
class TaskSuite:
    """Tasks by split. ``train`` and ``validation`` may steer training; the other splits are only for the final report.

    ``test`` holds unseen combinations of skills seen in training; ``extra`` holds further named test sets, each harder
    in a way that its name says.
    """

    train: tuple[Task, ...]
    validation: tuple[Task, ...]
    test: tuple[Task, ...]
    extra: dict[str, tuple[Task, ...]] = field(default_factory=dict)
