"""A library of adapters, one a task: a folder of PEFT folders, with a manifest if it is ours.

    <library>/manifest.json             what each adapter is and how it was trained
    <library>/adapters/<slug>/          a PEFT folder

Anybody's folder whose sub-folders are PEFT folders is a library too: their names are then the tasks' names.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from t2l.errors import CheckpointError, SpecMismatchError
from t2l.files import write_json
from t2l.lora.peft_io import CONFIG_FILE, load_peft
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights

MANIFEST_FILE = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class LibraryEntry:
    """One adapter: its task, its folder relative to the library's, and how its training ended.

    validation_loss: of the weights that were kept. steps: that it was trained for, the kept weights may be older.
    examples: a digest of those it was trained on; empty in manifests made before there was one.
    """

    task: str
    folder: str
    steps: int
    validation_loss: float
    stopped_early: bool
    seconds: float
    examples: str = ""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json holds: the base model, the settings of training, and the adapters that are finished."""

    base: str
    settings: Mapping[str, Any]
    adapters: tuple[LibraryEntry, ...] = field(default=())

    @classmethod
    def read(cls, library: Path) -> Self:
        """Raises CheckpointError if it is missing, damaged or of another format."""
        path = library / MANIFEST_FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != _FORMAT:
                raise CheckpointError(f"{path} has format {data['format']}, this t2l reads {_FORMAT}: update t2l")
            adapters = tuple(LibraryEntry(**entry) for entry in data["adapters"])
            return cls(data["base"], data["settings"], adapters)
        except FileNotFoundError:
            raise CheckpointError(f"{library} is no library: it lacks {MANIFEST_FILE}") from None
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}): delete it and train the library again") from None

    def write(self, library: Path) -> None:
        """Complete or absent."""
        write_json(library / MANIFEST_FILE, {"format": _FORMAT, **asdict(self)})


@dataclass(frozen=True)
class Library:
    """Where each task's adapter lies; `open` finds out. The weights are read when they are asked for."""

    folder: Path
    folders: Mapping[str, Path]
    """task -> PEFT folder."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Self:
        """Raises CheckpointError for a folder that is missing, holds no adapter or has a damaged manifest."""
        path = Path(folder)
        if not path.is_dir():
            raise CheckpointError(f"the library {path} does not exist: make one with jobs/train_oracles.py")
        if (path / MANIFEST_FILE).exists():
            folders = {entry.task: path / entry.folder for entry in Manifest.read(path).adapters}
        else:
            folders = {inner.name: inner for inner in sorted(path.iterdir()) if (inner / CONFIG_FILE).is_file()}
        if not folders:
            raise CheckpointError(f"the library {path} holds no adapter: give a folder of PEFT folders")
        return cls(path, folders)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.folders)

    def weights(self, tasks: Sequence[str], spec: LoraSpec | None = None) -> LoraWeights:
        """The adapters of these tasks, [n] in the order asked, fp32, on the CPU.

        Modules come in the order of `spec`; without one, in the order of the first adapter, whose spec is then that of
        all. Raises CheckpointError for a task without an adapter or a damaged one, SpecMismatchError for one of another
        rank, scaling or targets; both name the folder.
        """
        if missing := [task for task in tasks if task not in self.folders]:
            raise CheckpointError(
                f"the library {self.folder} has no adapter of {len(missing)} tasks, such as {missing[0]}"
            )
        parts: list[LoraWeights] = []
        for task in tasks:
            part = load_peft(self.folders[task])
            spec = spec or part.spec
            try:
                parts.append(part.in_order_of(spec).to(dtype=torch.float32))
            except SpecMismatchError as error:
                raise SpecMismatchError(
                    f"the adapter in {self.folders[task]} does not fit the others: {error}"
                ) from None
        return LoraWeights.cat(parts)
