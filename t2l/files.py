"""Files and folders that are complete or absent (written under another name, then renamed), and in one's hands.

Where the disk is full, all of these raise a ResourceError that names the file, and an older one stays whole; where
nothing may be written, one that names the folder.
"""

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from t2l.errors import CheckpointError, ResourceError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Raises ResourceError where the block finds the disk or a quota full while it writes `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _number(error) not in _FULL:
            raise
        raise ResourceError(
            f"no room on the disk for {path} ({error}): what was written before it is whole; free space, start again"
        ) from error


@contextmanager
def _making(path: Path) -> Iterator[None]:
    """Raises ResourceError where the block can make neither `path` nor the folders above it."""
    try:
        with room_for(path):
            yield
    except OSError as error:
        folder = next(above for above in path.absolute().parents if os.path.exists(above))
        raise ResourceError(f"cannot write in {folder} ({error.strerror}): choose another folder") from None


def _number(error: OSError | SafetensorError) -> int | None:
    """The operating system's number of an error; safetensors has it in its message only."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"os error (\d+)", str(error))
    return int(found[1]) if found else None


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path`, that takes its name, and an older file's place, when the block ends without an
    error. The folder is made if need be; several processes may write the same file.
    """
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    with _making(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.touch()
    try:
        with room_for(path):
            yield fresh
            fresh.rename(path)
    finally:
        fresh.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with complete_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_json(path: Path, data: object) -> None:
    write_text(path, json.dumps(data, indent=2) + "\n")


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Raises ResourceError if another process is in such a block of the same folder, also on another machine by NFS.

    The system keeps the lock, and lets go of it when this process ends, in whatever way; a file system without locks
    has no such guard. The folder is made if need be.
    """
    import fcntl  # not on Windows, where the rest of this file works

    lock = folder / ".lock"
    with _making(lock):
        folder.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, no forked process holds it as well
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ResourceError(
                    f"another process is at work in {folder}: wait for it, or use another name"
                ) from None
        yield


@contextmanager
def complete_folder(directory: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """A folder to write into, beside `directory`, that takes its name when the block ends without an error.

    Raises CheckpointError if `directory` exists and `overwrite` is False; with it, the old folder goes last.
    """
    target = Path(directory)
    if target.exists() and not overwrite:
        raise CheckpointError(f"{target} already exists: choose another folder, or delete it")
    unique = uuid.uuid4().hex
    fresh, old = (target.parent / f".{target.name}.{unique}.{kind}" for kind in ("new", "old"))
    with _making(target):
        fresh.mkdir(parents=True)
    try:
        with room_for(target):
            yield fresh
            if target.exists():
                target.rename(old)
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
