"""Runs the plan: as many commands at once as are asked for, each GPU in turn, until all are done or time is up.

Every command resumes by itself, so a stopped runner is just started again. <out>/done/<name> says what is finished.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2l.errors import T2LError
from t2l.evidence.plan import Run

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """Where to and how; gpus: how many to share commands out to (0: whatever a command finds)."""

    out: Path
    at_once: int = 1
    gpus: int = 0
    minutes: float = float("inf")
    ray: bool = True


class EvidenceError(T2LError):
    """A command of the plan failed; its log says why."""


def commands(run: Run, settings: Settings) -> list[list[str]]:
    """What a run comes to on the command line."""
    ray = () if settings.ray else ("--no-ray",)
    found: list[tuple[str, ...]] = []
    if run.train:
        script, *arguments = run.train
        found.append((str(Path("jobs") / script), *arguments, *ray))
    if run.evaluate:
        found.append(("jobs/evaluate.py", "-o", f"{{out}}/results/{run.name}.json", *run.evaluate, *ray))
    return [[part.replace("{out}", str(settings.out)) for part in ("python", *command)] for command in found]


def carry_out(runs: Sequence[Run], settings: Settings, tell: Tell) -> list[str]:
    """Names of runs that are not finished when time is up. Raises EvidenceError after all others if one failed."""
    deadline = time.monotonic() + settings.minutes * 60
    waiting = [run for run in runs if not _mark(run.name, settings).exists()]
    running: list[_Running] = []
    failed: list[str] = []
    while (waiting or running) and time.monotonic() < deadline:
        for started in [one for one in running if one.ended()]:
            running.remove(started)
            tell(started.news())
            if not started.ok:
                failed.append(started.run.name)
        ready = [run for run in waiting if all(_mark(name, settings).exists() for name in run.needs)]
        for run in ready[: settings.at_once - len(running)]:
            waiting.remove(run)
            running.append(_Running(run, settings, _free_gpu(running, settings)))
        time.sleep(0.2)
        if not ready and not running:
            break
    for started in running:
        started.stop()
    if failed:
        raise EvidenceError(f"{len(failed)} runs failed, first '{failed[0]}': see {settings.out}/logs/{failed[0]}.log")
    return [run.name for run in (*waiting, *(one.run for one in running))]


class _Running:
    """One run's commands, one after another, in a shell of their own."""

    def __init__(self, run: Run, settings: Settings, gpu: int | None) -> None:
        self.run, self.gpu, self._settings, self._start = run, gpu, settings, time.monotonic()
        log = settings.out / "logs" / f"{run.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = os.environ if gpu is None else {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)}
        line = " && ".join(shlex.join([sys.executable, *command[1:]]) for command in commands(run, settings))
        with log.open("a") as file:
            self._process = subprocess.Popen(
                ["bash", "-c", line], stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )

    @property
    def ok(self) -> bool:
        return self._process.returncode == 0

    def ended(self) -> bool:
        if self._process.poll() is None:
            return False
        if self.ok:
            mark = _mark(self.run.name, self._settings)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(f"{time.monotonic() - self._start:.1f}\n")
        return True

    def news(self) -> str:
        return f"{self.run.name}: {'done' if self.ok else 'FAILED'} after {time.monotonic() - self._start:.0f} s"

    def stop(self) -> None:
        os.killpg(self._process.pid, 15)
        self._process.wait()


def _free_gpu(running: Sequence[_Running], settings: Settings) -> int | None:
    """The GPU that has the fewest runs."""
    if not settings.gpus:
        return None
    return min(range(settings.gpus), key=[one.gpu for one in running].count)


def _mark(name: str, settings: Settings) -> Path:
    return settings.out / "done" / name
