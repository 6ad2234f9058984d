"""Reading records that other people wrote, of which a few may be bad."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from t2l.errors import DataError

T = TypeVar("T")
R = TypeVar("R")


class Records:
    """Keeps the good records and counts the bad ones; with `strict`, the first bad one ends it all."""

    def __init__(self, strict: bool = False) -> None:
        self._strict = strict
        self._problems: list[str] = []

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

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, for people."""
        if not self._problems:
            return ()
        number = "1 bad record was" if len(self._problems) == 1 else f"{len(self._problems):,} bad records were"
        return (f"{number} left out, the first: {self._problems[0]}",)
