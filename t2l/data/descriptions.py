"""The training descriptions of all tasks, encoded once, looked up by number in every step.

Axes: D descriptions, S tokens of all descriptions together, N looked-up texts, T tokens of the longest of them,
F features.

The frozen encoder would say the same every time, so its states are kept: fp16, without padding, on the training device.
Workers share the encoding through files in the run's folder, which also spare a resumed run the wait.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2l.errors import DataError
from t2l.tasks.task import Task
from t2l.text.encoder import TextEncoder, TextFeatures

_CHUNK = 2048

OnProgress = Callable[[int, int], None]
"""Called with descriptions done and in all."""


@dataclass(frozen=True)
class DescriptionNumbers:
    """Where each task's descriptions stand in the table: a task's are consecutive."""

    starts: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, tasks: Sequence[Task], num_descriptions: int) -> "DescriptionNumbers":
        """The first `num_descriptions` of each task. Raises DataError for a task without any."""
        counts = [min(num_descriptions, len(task.descriptions)) for task in tasks]
        if 0 in counts:
            raise DataError(f"task '{tasks[counts.index(0)].name}' has no descriptions: give it one or leave it out")
        starts = [sum(counts[:i]) for i in range(len(counts))]
        return cls(tuple(starts), tuple(counts))

    def texts(self, tasks: Sequence[Task]) -> list[str]:
        """All descriptions in the table's order."""
        return [task.descriptions[i] for task, count in zip(tasks, self.counts, strict=True) for i in range(count)]


class DescriptionTable:
    """States of D descriptions, ragged: `states_S_F`, and how many of these rows each description has."""

    def __init__(self, states_S_F: Tensor, lengths_D: Tensor, device: torch.device | str) -> None:
        assert int(lengths_D.sum()) == len(states_S_F)
        self._lengths_D = lengths_D.cpu()
        self._states_S_F = states_S_F.to(device)
        ends_D = self._lengths_D.cumsum(0)
        self._spans_D_2 = torch.stack([ends_D - self._lengths_D, self._lengths_D], dim=1).to(device)

    def __len__(self) -> int:
        return len(self._lengths_D)

    def lookup(self, index_N: Tensor) -> TextFeatures:
        """States [N, T, F] and mask [N, T] on the table's device; `index_N` on the CPU, lest the host wait for T."""
        width = int(self._lengths_D[index_N].max())
        spans_N_2 = self._spans_D_2[index_N.to(self._spans_D_2.device, non_blocking=True)]
        offsets_T = torch.arange(width, device=spans_N_2.device)
        mask_N_T = offsets_T < spans_N_2[:, 1:]
        rows_N_T = (spans_N_2[:, :1] + offsets_T).where(mask_N_T, 0)
        return TextFeatures(self._states_S_F[rows_N_T] * mask_N_T[..., None], mask_N_T)

    @classmethod
    def encode(
        cls,
        texts: Sequence[str],
        encoder: TextEncoder,
        device: torch.device | str = "cpu",
        on_progress: OnProgress | None = None,
    ) -> "DescriptionTable":
        """Encode everything here and now."""
        parts = []
        for start in range(0, len(texts), _CHUNK):
            parts.append(_ragged(encoder.encode(texts[start : start + _CHUNK])))
            if on_progress:
                on_progress(min(start + _CHUNK, len(texts)), len(texts))
        return cls._of_parts(parts, device)

    @classmethod
    def _of_parts(cls, parts: Sequence[dict[str, Tensor]], device: torch.device | str) -> "DescriptionTable":
        return cls(torch.cat([p["states"] for p in parts]), torch.cat([p["lengths"] for p in parts]), device)


@dataclass(frozen=True)
class SharedEncoding:
    """Encoding shared out over workers, by way of files in one folder that all of them see.

    `key` names what the states depend on besides the texts (encoder, base model).
    """

    folder: Path
    key: str
    rank: int = 0
    world_size: int = 1

    def encode_share(self, texts: Sequence[str], encoder: TextEncoder, on_progress: OnProgress | None = None) -> None:
        """Write this worker's chunks, except those that an earlier run left. Then all workers wait for each other."""
        self.folder.mkdir(parents=True, exist_ok=True)
        chunks = self._chunks(texts)
        for number in range(self.rank, len(chunks), self.world_size):
            path, chunk = chunks[number]
            if _read(path) is None:
                fresh = path.with_suffix(f".{os.getpid()}.new")
                save_file(_ragged(encoder.encode(chunk)), fresh)
                fresh.rename(path)
            if on_progress:
                on_progress(min((number + 1) * _CHUNK, len(texts)), len(texts))

    def load(self, texts: Sequence[str], device: torch.device | str) -> DescriptionTable:
        """The table of all chunks. Raises DataError if the folder is not shared between workers."""
        parts: list[dict[str, Tensor]] = []
        for path, _ in self._chunks(texts):
            part = _read(path)
            if part is None:
                raise DataError(f"{path} is missing: output_dir must be on storage that all workers share")
            parts.append(part)
        return DescriptionTable._of_parts(parts, device)

    def _chunks(self, texts: Sequence[str]) -> list[tuple[Path, Sequence[str]]]:
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        return [(self.folder / f"{_digest(self.key, chunk)}.safetensors", chunk) for chunk in chunks]


def _ragged(features: TextFeatures) -> dict[str, Tensor]:
    """Only the real tokens, one text after another, in fp16 on the CPU."""
    mask = features.mask_N_T
    return {"states": features.states_N_T_D[mask].half().cpu(), "lengths": mask.sum(1).cpu()}


def _digest(key: str, texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join([key, *texts]).encode()).hexdigest()[:24]


def _read(path: Path) -> dict[str, Tensor] | None:
    """A chunk, or None if it is absent or damaged (it is then made again)."""
    if not path.exists():
        return None
    try:
        return load_file(path)
    except SafetensorError:
        return None
