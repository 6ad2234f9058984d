"""The trials of a sweep on the terminal."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2l.cluster.progress import LiveDisplay, duration

_MOST_ROWS = 24


@dataclass(frozen=True)
class TrialLine:
    """A trial as the table shows it. `state` is waiting, finished, stopped or failed, else what it is doing."""

    name: str
    state: str
    step: int
    steps: int
    score: float | None = None
    loss: float | None = None
    seconds_left: float | None = None

    @property
    def ended(self) -> bool:
        return self.state in ("finished", "stopped", "failed")

    @property
    def done(self) -> float:
        """Share of the trial that is done."""
        return 1.0 if self.ended else self.step / self.steps

    @property
    def cells(self) -> tuple[str, ...]:
        return (
            self.name,
            self.state,
            f"{self.step:,}/{self.steps:,}",
            "-" if self.score is None else f"{self.score:.3f}",
            "-" if self.loss is None else f"{self.loss:.4f}",
            "-" if self.seconds_left is None else duration(self.seconds_left),
        )


class SweepTable(LiveDisplay):
    """Shows trials: a live table on a terminal, else a line for each start, score and end."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(console)
        self._start, self._done_before = time.monotonic(), -1.0
        self._said: dict[str, tuple[Any, ...]] = {}

    def show(self, lines: Sequence[TrialLine]) -> None:
        if self._console.is_terminal:
            self._live.update(self._table(lines))
            return
        for line in lines:
            news = (line.ended and line.state, line.score, line.state != "waiting")
            if self._said.get(line.name, (False, None, False)) != news:
                self._said[line.name] = news
                self._console.print("  ".join(line.cells[:2]) + self._numbers(line) + f"  ({self._summary(lines)})")

    def _table(self, lines: Sequence[TrialLine]) -> Table:
        table = Table(title=self._summary(lines))
        for column in ("trial", "state"):
            table.add_column(column)
        for column in ("step", "score", "loss", "left"):
            table.add_column(column, justify="right")
        ranked = sorted(lines, key=lambda line: (line.ended, line.state == "waiting", -(line.score or 0.0)))
        for line in ranked[:_MOST_ROWS]:
            table.add_row(*map(Text, line.cells))
        return table

    @staticmethod
    def _numbers(line: TrialLine) -> str:
        _, _, step, score, loss, _ = line.cells
        return "" if line.score is None else f"  step {step}  score {score}  loss {loss}"

    def _summary(self, lines: Sequence[TrialLine]) -> str:
        """Such as: 2 of 6 trials ended, at most 7:30 left. At most, as more may be stopped early."""
        done, ended = sum(line.done for line in lines), sum(line.ended for line in lines)
        if self._done_before < 0:
            self._done_before = done  # a resumed sweep starts with work that took no time now
        fresh, passed = done - self._done_before, time.monotonic() - self._start
        left = f", at most {duration(passed / fresh * (len(lines) - done))} left" if fresh > 0.05 else ""
        return f"{ended} of {len(lines)} trials ended{left}"
