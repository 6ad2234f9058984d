"""Reading records that other people wrote, of which a few may be bad, or in two parts that shall be apart."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from t2l.errors import DataError
from t2l.tasks.task import Example

_NAMED = 5
"""Tasks in a note about many."""

T = TypeVar("T")
R = TypeVar("R")


class Records:
    """Keeps the good records and counts what is left out; with `strict`, the first bad one ends it all."""

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self._problems: list[str] = []
        self._left_out: dict[str, dict[str, int]] = {}

    def read(self, parse: Callable[[T], R], records: Iterable[T]) -> list[R]:
        """What `parse` makes of each; it raises DataError, naming file, place and field, for a bad one."""
        good: list[R] = []
        for record in records:
            try:
                good.append(parse(record))
            except DataError as error:
                if self._strict:
                    raise
                self._problems.append(str(error))
        return good

    def untested(self, task: str, train: Sequence[Example], test: Sequence[Example]) -> tuple[Example, ...]:
        """The training examples without those whose input is tested too. Raises DataError if none is left."""
        tested = {example.input for example in test}
        kept = tuple(example for example in train if example.input not in tested)
        if train and not kept:
            raise DataError(f"all training inputs of the task '{task}' are also tested: give it others")
        self.leave_out("training examples left out, as their inputs are tested too", task, len(train) - len(kept))
        return kept

    def leave_out(self, what: str, task: str, number: int) -> None:
        """Note that so many of a task were left out; what: which, and why."""
        if number:
            self._left_out.setdefault(what, {})[task] = number

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, for people."""
        notes = [f"{what}: {_counted(number_of)}" for what, number_of in self._left_out.items()]
        if self._problems:
            number = "1 bad record was" if len(self._problems) == 1 else f"{len(self._problems):,} bad records were"
            notes.insert(0, f"{number} left out, the first: {self._problems[0]}")
        return tuple(notes)


def _counted(number_of: dict[str, int]) -> str:
    """Such as "7 of one task, 2 of another"; of many tasks those with the most."""
    most = sorted(number_of, key=lambda task: -number_of[task])
    named = ", ".join(f"{number_of[task]:,} of {task}" for task in most[:_NAMED])
    others = sum(number_of[task] for task in most[_NAMED:])
    return f"{named}, {others:,} of {len(most) - _NAMED:,} others" if others else named
