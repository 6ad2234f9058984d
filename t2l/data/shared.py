"""Tensors made of texts by a frozen model, shared out over workers by way of files in a folder that all of them see.

The files also spare a resumed run the wait.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from t2l.errors import DataError
from t2l.files import complete_file

CHUNK = 2048

OnProgress = Callable[[int, int], None]
"""Called with texts done and in all."""

Make = Callable[[Sequence[str]], dict[str, Tensor]]
"""What a chunk of texts comes to."""


@dataclass(frozen=True)
class SharedWork:
    """`key` names what the tensors depend on besides the texts (encoder, base model)."""

    folder: Path
    key: str
    rank: int = 0
    world_size: int = 1

    def do_share(self, texts: Sequence[str], make: Make, on_progress: OnProgress | None = None) -> None:
        """Write this worker's chunks, except those that an earlier run left. Then all workers wait for each other."""
        self.folder.mkdir(parents=True, exist_ok=True)
        chunks = self._chunks(texts)
        for number in range(self.rank, len(chunks), self.world_size):
            path, chunk = chunks[number]
            if _read(path) is None:
                with complete_file(path) as fresh:
                    save_file(make(chunk), fresh)
            if on_progress:
                on_progress(min((number + 1) * CHUNK, len(texts)), len(texts))

    def parts(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """All chunks, in order. Raises DataError if the folder is not shared between workers."""
        found: list[dict[str, Tensor]] = []
        for path, _ in self._chunks(texts):
            part = _read(path)
            if part is None:
                raise DataError(f"{path} is missing: output_dir must be on storage that all workers share")
            found.append(part)
        return found

    def _chunks(self, texts: Sequence[str]) -> list[tuple[Path, Sequence[str]]]:
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        return [(self.folder / f"{_digest(self.key, chunk)}.safetensors", chunk) for chunk in chunks]


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
