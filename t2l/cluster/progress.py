"""The live line of a run: step, loss, newest validation, how fast it is, how busy its workers are, time left."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

_SECONDS_BETWEEN_LINES = 10.0


class Status:
    """The newest news of a run, merged, and all its notes. On a cluster this is an actor, else it is just called."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._notes: list[str] = []

    def tell(self, news: Mapping[str, Any]) -> None:
        news = dict(news)
        if note := news.pop("note", None):
            self._notes.append(note)
        self._values |= news

    def read(self) -> tuple[dict[str, Any], list[str]]:
        return self._values, self._notes


class LiveDisplay:
    """Something that changes in place on a terminal, inside a `with` block; elsewhere it is printed."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()


class LiveLine(LiveDisplay):
    """Shows a Status: in place on a terminal, else as plain lines every ten seconds or so and after validations."""

    def __init__(self, steps: int, console: Console | None = None) -> None:
        super().__init__(console)
        self._steps = steps
        self._shown: tuple[float, Any] = (0.0, None)
        self._line, self._num_notes = "", 0

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if self._line:
            self._console.print(self._line, markup=False)

    def show(self, values: Mapping[str, Any], notes: list[str]) -> None:
        for note in notes[self._num_notes :]:
            self._console.print(f"note: {note}", markup=False)  # it may hold brackets
        self._num_notes = len(notes)
        line = status_line(values, self._steps)
        if not line or line == self._line:
            return
        self._line = line
        if self._console.is_terminal:
            self._live.update(Text(line))
            return
        last, validated = self._shown
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES or values.get("validated") != validated:
            self._shown = (time.monotonic(), values.get("validated"))
            self._console.print(line, markup=False)
            self._line = ""

    @property
    def console(self) -> Console:
        return self._console


def status_line(values: Mapping[str, Any], steps: int) -> str:
    """One line; the phase that the run is in, or its losses while it trains."""
    if "loss" not in values or values["phase"] != "training":
        return str(values.get("phase", ""))
    step, left = values["step"], (steps - values["step"]) * values["seconds_per_step"]
    parts = (
        f"step {step:,}/{steps:,}",
        f"loss {values['loss']:.4f}",
        f"validation {values['validation']:.3f} (step {values['validated']:,})" if "validated" in values else "",
        f"{values['rate']:,.0f} {values['unit']}/s",
        f"busy {values['busy']:.0%}",
        f"{duration(left)} left" if step < steps else "",
    )
    return "  ".join(filter(None, parts))


def duration(seconds: float) -> str:
    """Such as 2:05 or 1:02:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
