"""Checkpoints of a run: folders that are complete or absent, checked by their sums, safetensors and JSON only.

    <run>/checkpoints/step-000123/{config.json, model.safetensors, README.md}   what others load
                                  resume/{state.safetensors, progress.json}     what this run goes on from
                                  manifest.json                                 sha256 of every other file
    <run>/checkpoints/damaged-step-000123/                                      set aside, for a person to look at
    <run>/validation/step-000123.json                                           what it scored, see validations.py

With a `url`, an object store holds a copy of all of it (t2l/storage.py): fetched before a run goes on, sent with every
checkpoint. The state is whole, whatever the number of workers and the ZeRO stage, so any number may go on from it.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from t2l.files import complete_folder
from t2l.storage import MANIFEST_FILE, Copy, discard
from t2l.train.validations import Validations

_PROGRESS, _STATE = "resume/progress.json", "resume/state.safetensors"
_NAME = re.compile(r"step-(\d{6,})")

State = dict[str, Tensor]
"""See `Engine.state`."""

WriteModel = Callable[[Path, State, int], None]
"""Writes the files that others load, of the state after a step, into a given, existing folder."""


class CheckpointStore:
    """The checkpoints of one run; keeps the newest `keep`, the best, and those that are yet to be validated."""

    def __init__(self, run_dir: Path, keep: int, url: str | None = None) -> None:
        self.run_dir, self._keep = run_dir, keep
        self.copy = Copy(url, run_dir)
        self._folder = run_dir / "checkpoints"
        self.validations = Validations(run_dir)

    def path(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}"

    def save(self, step: int, state: State, write_model: WriteModel, validate: bool = False) -> Path:
        """Write a checkpoint, then forget those that nobody needs any more. One worker calls this.

        validate: whether it is to be validated; the checkpoint says so itself, lest a kill come in between.
        Raises ResourceError where the disk is full; older checkpoints stay as they are.
        """
        self.copy.pull("validation/")  # which other machines wrote
        target = self.path(step)
        with complete_folder(target, overwrite=True) as folder:
            write_model(folder, state, step)
            (folder / "resume").mkdir()
            save_file(state, folder / _STATE)
            (folder / _PROGRESS).write_text(json.dumps({"step": step, "validate": validate}, indent=2) + "\n")
            sums = {str(path.relative_to(folder)): _sha256(path) for path in _files(folder)}
            (folder / MANIFEST_FILE).write_text(json.dumps(sums, indent=2) + "\n")
        self.prune()
        self.copy.push()
        return target

    def newest(self) -> int | None:
        """Step of the newest sound checkpoint, or None."""
        return next((step for step in reversed(self.steps()) if _problem(self.path(step)) is None), None)

    def recover(self) -> list[str]:
        """Make of the folder, and of its copy, what training goes on from: fetch what is not here, remove what a killed
        run was writing, set damaged checkpoints aside, drop scores of steps that come again. Returns a sentence about
        each that is set aside. One process calls this, when none saves.
        """
        for path in self._folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)
        said = self._set_aside_damaged()
        if self.copy.pull():
            said += self._set_aside_damaged()
        for step in self.validations.read():
            if step > max(self.steps(), default=0):
                path = self.validations.path(step)
                path.unlink(missing_ok=True)
                self.copy.forget(path)
        self.copy.push()  # other machines fetch the newest from there, and a kill may have come before it was sent
        return said

    def fetch(self, step: int) -> None:
        """Have the checkpoint of a step here, as it is in the copy."""
        self.copy.pull(f"checkpoints/{self.path(step).name}/")

    def _set_aside_damaged(self) -> list[str]:
        """They must not stay: a newer one would count among the newest, which are kept, in place of one yet to come."""
        said: list[str] = []
        for step in self.steps():
            if problem := _problem(self.path(step)):
                aside = self._folder / f"damaged-{self.path(step).name}"
                shutil.rmtree(aside, ignore_errors=True)
                self.path(step).rename(aside)
                said.append(f"{self.path(step)} {problem}: set aside as {aside.name}")
        return said

    def state(self, step: int) -> State:
        """What `Engine.state` returned after `step`."""
        self.fetch(step)
        return load_file(self.path(step) / _STATE)

    def best(self) -> Path | None:
        """Folder of the sound one that validated best, of equals the latest; the newest if none was validated."""
        paths = [self.path(step) for step in (*self.steps(), *self._scored())]
        return next((path for path in reversed(paths) if _problem(path) is None), None)

    def due(self) -> list[int]:
        """Checkpoints that are to be validated and have not been, ascending."""
        known = self.validations.read()
        return [step for step in self.steps() if step not in known and self._is_to_validate(step)]

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        if not self._folder.is_dir():
            return []
        names = [_NAME.fullmatch(path.name) for path in self._folder.iterdir()]
        return sorted(int(name[1]) for name in names if name)

    def prune(self) -> None:
        """Remove checkpoints that are neither new, nor best, nor yet to be validated."""
        # In this order: a checkpoint that is being validated is due or has a score, whenever that comes.
        kept = {*self.due(), *self.steps()[-self._keep :], *self._scored()[-1:]}
        for step in self.steps():
            if step not in kept:
                discard(self.path(step))

    def _scored(self) -> list[int]:
        """Checkpoints by their scores, the best last."""
        known = self.validations.read()
        return sorted((step for step in self.steps() if step in known), key=lambda step: (known[step].score, step))

    def _is_to_validate(self, step: int) -> bool:
        try:
            return json.loads((self.path(step) / _PROGRESS).read_text()).get("validate", False)
        except (FileNotFoundError, ValueError):
            return False  # a damaged one


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    try:
        sums = json.loads((folder / MANIFEST_FILE).read_text())
    except (FileNotFoundError, ValueError):  # neither JSON nor even text
        return f"has no readable {MANIFEST_FILE}"
    if not isinstance(sums, dict) or _STATE not in sums:
        return f"has a damaged {MANIFEST_FILE}"
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            return f"lacks {name}"
        if _sha256(path) != expected:
            return f"holds a {name} that is not the one of its {MANIFEST_FILE}"
    return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
