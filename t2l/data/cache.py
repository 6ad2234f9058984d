"""What is made from texts once and for all, kept in Arrow files and found again by the content it was made from.

A cache is a folder for one kind of thing made under one set of settings. Its files hold records of ragged arrays, each
under a key, the hash of its source. Files are never changed: a writer adds its own, so any number of processes may
share a cache, and any part of it may be deleted at any time. A file's name is the hash of its bytes: a damaged one is
noticed, dropped with a note, and what it held is made again. Files are mapped into memory, not read into it.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from t2l.errors import ResourceError
from t2l.files import complete_file

_SMALLEST_FILE, _LARGEST_FILE = 1 << 20, 64 << 20
_GROWTH = 8
"""A new file holds an eighth of what is there, so that there are never many."""

Record = Mapping[str, np.ndarray]
"""Arrays [n] of one source, each of its own length."""

Note = Callable[[str], object]
"""Told of what people should know."""


def content_key(*source: object) -> bytes:
    """24 hex digits of a hash of texts, numbers, or lists of them."""
    return hashlib.sha256(json.dumps(source).encode()).hexdigest()[:24].encode()


@dataclass(frozen=True)
class Caches:
    """All caches below a folder."""

    folder: Path
    note: Note = warnings.warn

    def open(self, kind: str, *settings: object) -> "ArrowCache":
        """The cache of one kind of thing; `settings` are all that it depends on besides its source."""
        return ArrowCache(self.folder / kind / content_key(*settings).decode(), self.note)


@dataclass(frozen=True)
class _File:
    """keys [records]; of each column, where each record's values end (records + 1) and all values."""

    keys: np.ndarray
    columns: dict[str, tuple[np.ndarray, np.ndarray]]
    size: int

    def record(self, row: int) -> Record:
        return {name: values[ends[row] : ends[row + 1]] for name, (ends, values) in self.columns.items()}


class ArrowCache:
    """Records by key. One thread uses it; what was added is on disk after `flush`, or when enough has come together.

    Where the folder cannot be written, a note says so, and nothing is kept.
    """

    def __init__(self, folder: Path, note: Note = warnings.warn) -> None:
        self._folder, self._note = folder, note
        self._files: dict[str, _File] = {}
        self._pending: dict[bytes, Record] = {}
        self._pending_bytes = 0
        self._look_for_files()

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process the files are opened anew."""
        return ArrowCache, (self._folder,)

    def find(self, keys: Sequence[bytes]) -> list[Record | None]:
        """The record of each key, None where there is none. Arrays are read-only."""
        places = np.searchsorted(self._keys, np.array(keys, dtype="S24")).tolist()
        return [self._pending.get(key) or self._at(place, key) for key, place in zip(keys, places, strict=True)]

    def add(self, key: bytes, record: Record) -> None:
        self._pending[key] = record
        self._pending_bytes += sum(array.nbytes for array in record.values())
        enough = sum(file.size for file in self._files.values()) // _GROWTH
        if self._pending_bytes >= min(max(enough, _SMALLEST_FILE), _LARGEST_FILE):
            self.flush()

    def flush(self) -> None:
        """Write what was added, except what others have written meanwhile."""
        self._look_for_files()
        fresh = {key: record for key, record in self._pending.items() if self._on_disk(key) is None}
        self._pending, self._pending_bytes = {}, 0
        if not fresh:
            return
        buffer = _encode(fresh)
        try:
            with complete_file(self._folder / _name(buffer)) as new:
                new.write_bytes(buffer)
        except (OSError, ResourceError) as error:
            self._note(f"the cache {self._folder} cannot be written ({error}): going on without")
        self._look_for_files()

    def _look_for_files(self) -> None:
        """Open the files that are new, and index all."""
        for path in sorted(self._folder.glob("*.arrow")):
            if path.name not in self._files and (file := self._open(path)):
                self._files[path.name] = file
        files = list(self._files.values())
        keys = np.concatenate([np.empty(0, "S24"), *(file.keys for file in files)])
        order = keys.argsort(kind="stable")
        sizes = [len(file.keys) for file in files]
        self._keys = keys[order]
        self._file_numbers = np.repeat(np.arange(len(files)), sizes)[order]
        self._rows = np.concatenate([np.empty(0, int), *map(np.arange, sizes)])[order]
        self._opened = files

    def _open(self, path: Path) -> _File | None:
        """A file, mapped into memory; None if it is gone, or damaged, which also removes it."""
        try:
            content = pa.memory_map(str(path)).read_buffer()
        except FileNotFoundError:
            return None
        if _name(content) != path.name:
            self._note(f"{path} is damaged: what it held is made again")
            path.unlink(missing_ok=True)
            return None
        return _decode(content)

    def _on_disk(self, key: bytes) -> Record | None:
        return self._at(int(np.searchsorted(self._keys, np.array(key, dtype="S24"))), key)

    def _at(self, place: int, key: bytes) -> Record | None:
        if place == len(self._keys) or self._keys[place] != key:
            return None
        return self._opened[self._file_numbers[place]].record(self._rows[place])


def _name(content: pa.Buffer) -> str:
    return f"{hashlib.sha256(content).hexdigest()}.arrow"


def _encode(records: Mapping[bytes, Record]) -> pa.Buffer:
    """An Arrow file with the column `key` and one of lists for each array."""
    columns: dict[str, pa.Array] = {"key": pa.array(list(records), pa.binary(24))}
    for name in next(iter(records.values())):
        arrays = [record[name] for record in records.values()]
        ends = np.cumsum([0, *map(len, arrays)], dtype=np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(arrays)))
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _decode(content: pa.Buffer) -> _File:
    """What `_encode` has written, without copying it."""
    batch = pa.ipc.open_file(content).get_batch(0)
    keys, *lists = batch.columns
    columns = {
        name: (array.offsets.to_numpy(), array.values.to_numpy())
        for name, array in zip(batch.schema.names[1:], lists, strict=True)
    }
    return _File(np.frombuffer(keys.buffers()[1], "S24"), columns, len(content))
