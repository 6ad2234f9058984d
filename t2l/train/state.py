"""Checkpoints of a run: folders that are complete or absent, checked by their sums, safetensors and JSON only.

    <run>/checkpoints/step-000123/{config.json, model.safetensors, README.md}   what others load
                                  resume/{state.safetensors, progress.json}     what this run goes on from
                                  manifest.json                                 sha256 of every other file
    <run>/best.json                                                             which step validated best

The state is whole, whatever the number of workers and the ZeRO stage, so any number may go on from it.
"""

import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from t2l.errors import CheckpointError
from t2l.lora.peft_io import complete_or_absent

_MANIFEST, _PROGRESS, _STATE = "manifest.json", "resume/progress.json", "resume/state.safetensors"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done, and where validation was best so far."""

    step: int = 0
    best_step: int | None = None
    best_score: float | None = None

    def after(self, step: int, score: float | None) -> "Progress":
        """Progress after `step`, which validated with `score` (None: it did not); of equals the later is best."""
        if score is not None and (self.best_score is None or score >= self.best_score):
            return Progress(step, step, score)
        return Progress(step, self.best_step, self.best_score)


State = dict[str, Tensor]
"""See `Engine.state`."""

WriteModel = Callable[[Path, State, Progress], None]
"""Writes the files that others load into a given, existing folder."""


class CheckpointStore:
    """The checkpoints of one run; keeps the newest `keep` and the best."""

    def __init__(self, run_dir: Path, keep: int) -> None:
        self.run_dir, self._keep = run_dir, keep
        self._folder = run_dir / "checkpoints"

    def path(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"

    def save(self, progress: Progress, state: State, write_model: WriteModel) -> Path:
        """Write a checkpoint, then forget those that are neither new nor best. One worker calls this."""
        target = self.path(progress.step)
        with complete_or_absent(target, overwrite=True) as folder:
            write_model(folder, state, progress)
            (folder / "resume").mkdir()
            save_file(state, folder / _STATE)
            (folder / _PROGRESS).write_text(json.dumps(asdict(progress), indent=2) + "\n")
            sums = {str(path.relative_to(folder)): _sha256(path) for path in _files(folder)}
            (folder / _MANIFEST).write_text(json.dumps(sums, indent=2) + "\n")
        if progress.best_step == progress.step:
            self._point_to_best(progress)
        self._prune(progress.best_step)
        return target

    def newest(self) -> Progress | None:
        """Progress of the newest sound checkpoint, or None. Warns of each damaged one that it passes over."""
        for step in reversed(self.steps()):
            problem = _problem(self.path(step))
            if problem is None:
                return self.progress(step)
            warnings.warn(f"{self.path(step)} {problem}: going on from the checkpoint before it", stacklevel=2)
        return None

    def progress(self, step: int) -> Progress:
        return Progress(**json.loads((self.path(step) / _PROGRESS).read_text()))

    def state(self, step: int) -> State:
        """What `Engine.state` returned after `step`."""
        return load_file(self.path(step) / _STATE)

    def best(self) -> Path | None:
        """Folder of the checkpoint that validated best, else of the newest."""
        pointer = self.run_dir / "best.json"
        steps = [json.loads(pointer.read_text())["step"]] if pointer.exists() else self.steps()[-1:]
        return self.path(steps[0]) if steps else None

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        names = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        return sorted(int(name[1]) for name in names if name)

    def clear_leftovers(self) -> None:
        """Remove what a killed run was writing."""
        for path in self._folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _point_to_best(self, progress: Progress) -> None:
        pointer = self.run_dir / "best.json"
        fresh = pointer.with_suffix(".new")
        checkpoint = str(self.path(progress.step).relative_to(self.run_dir))
        record = {"step": progress.best_step, "score": progress.best_score, "checkpoint": checkpoint}
        fresh.write_text(json.dumps(record, indent=2) + "\n")
        fresh.rename(pointer)

    def _prune(self, best_step: int | None) -> None:
        for step in self.steps()[: -self._keep]:
            if step != best_step:
                shutil.rmtree(self.path(step))


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    try:
        sums = json.loads((folder / _MANIFEST).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return f"has no readable {_MANIFEST}"
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            return f"lacks {name}"
        if _sha256(path) != expected:
            return f"has a damaged {name}"
    return None


def check_whole(folder: Path) -> None:
    """Raise CheckpointError if a checkpoint of a run is incomplete or damaged."""
    if problem := _problem(folder):
        raise CheckpointError(f"{folder} {problem}: choose another checkpoint")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
