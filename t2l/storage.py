"""Runs in an object store (s3://, gs://): worked on in a folder of this machine, and kept the same as their copy there.

A checkpoint is sent with its manifest last, so that one that was cut short is not seen; its sums tell the rest. Two
with the same manifest are the same.
Access is pyarrow's, which reads AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS and the like.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2l.config.places import is_url, local_folder
from t2l.errors import ResourceError
from t2l.files import complete_file, complete_folder

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

MANIFEST_FILE = "manifest.json"
_CHECKPOINT = re.compile(r"checkpoints/step-\d+(?=/)")
_BLOCK = 1 << 24
_KEPT = (
    *("checkpoints/step-", "validation/", "tensorboard/"),
    *("config.yaml", "metrics.jsonl", "results.json", "tracking.json"),
)
"""What a run's copy holds. Not caches, nor what was set aside, nor Ray's own notes, which are of one machine."""


def fetched(place: str) -> Path:
    """A folder that may be an address, as a folder of this machine, which then holds what is there.

    Raises ResourceError if the address cannot be reached or holds nothing.
    """
    folder = local_folder(place)
    if is_url(place):
        with reaching(place):
            if not Copy(place, folder).pull():
                raise ResourceError(f"{place} holds no files: check the address")
    return folder


@contextmanager
def reaching(url: str | None) -> Iterator[None]:
    """Raises ResourceError where the block cannot reach an address."""
    try:
        yield
    except OSError as error:
        if url is None:
            raise
        raise ResourceError(f"{url} cannot be reached ({error}): check the address and your credentials") from None


def discard(checkpoint: Path) -> None:
    """Remove a checkpoint's folder: under another name first, lest a kill leave half of one under its own."""
    gone = checkpoint.with_name(f".{checkpoint.name}.{uuid.uuid4().hex}.old")
    checkpoint.rename(gone)
    shutil.rmtree(gone)


class Copy:
    """The copy at `url` of a run's `folder`; where url is None, calls do nothing.

    Of a file that differs the later one counts. A checkpoint is fetched whole or not at all; of one that differs the
    copy's counts, as one that was made here and not sent can be made again.
    """

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._sent: dict[str, int] = {}  # when each file was changed here, in ns, at its last sending

    def pull(self, prefix: str = "") -> bool:
        """Fetch what is newer there, or missing here; whether there is anything. Without a prefix, what is left here of
        a run that has been begun anew there goes.
        """
        if self._url is None:
            return False
        theirs = self._theirs(prefix)
        with self._alone():
            others = {name for name in _whole_checkpoints(theirs) if not self._is_same(name, theirs)}
            if not prefix and others == _whole_checkpoints(theirs) and self._is_before(theirs, others):
                self._drop_all_but(theirs)
            for checkpoint in others:
                self._fetch(checkpoint, theirs)
            for name, info in theirs.items():
                if not _CHECKPOINT.match(name) and self._is_behind(name, info):
                    with complete_file(self._folder / name) as fresh:
                        self._download(name, fresh)
                        os.utime(fresh, ns=(info.mtime_ns, info.mtime_ns))
        return bool(theirs)

    def push(self, *prefixes: str) -> None:
        """Send what differs from the copy, of what starts with one of the prefixes. Without any, all of it, and the
        checkpoints there that are gone here go too.
        """
        if self._url is None:
            return
        theirs, ours = self._theirs(), [name for name in self._ours() if name.startswith(prefixes or "")]
        for checkpoint in sorted(_whole_checkpoints(ours), reverse=True):  # if there is time for one, the newest
            if not self._is_same(checkpoint, theirs):
                self._remove(checkpoint, theirs)
                for name in ours:
                    if name.startswith(f"{checkpoint}/"):
                        self._upload(name)
        for name in ours:
            changed = (self._folder / name).stat().st_mtime_ns
            if not _CHECKPOINT.match(name) and self._is_ahead(name, changed, theirs.get(name)):
                self._upload(name)
                self._sent[name] = changed
        if not prefixes:
            for gone in _checkpoints(theirs) - _checkpoints(ours):
                self._remove(gone, theirs)

    def forget(self, path: Path) -> None:
        """Remove the copy of a file."""
        name = path.relative_to(self._folder).as_posix()
        if self._url is not None and name in self._theirs(name.rpartition("/")[0]):
            self._filesystem.delete_file(f"{self._root}/{name}")
            self._sent.pop(name, None)

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """pyarrow's file system, and the path in it."""
        from pyarrow.fs import FileSystem  # a tenth of a second, and most runs need none

        assert self._url is not None
        try:
            return FileSystem.from_uri(self._url)
        except ValueError as error:
            raise ResourceError(
                f"{self._url} cannot be used ({error}): give an address like s3://bucket/runs"
            ) from None

    @property
    def _filesystem(self) -> Any:
        return self._place[0]

    @property
    def _root(self) -> str:
        return self._place[1]

    def _theirs(self, prefix: str = "") -> "dict[str, FileInfo]":
        """Files there, by their names in the folder."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(f"{self._root}/{prefix}".rstrip("/"), recursive=True, allow_not_found=True)
        found = self._filesystem.get_file_info(selector)
        return {info.path[len(self._root) + 1 :]: info for info in found if info.type == FileType.File}

    def _ours(self) -> list[str]:
        """Files here that the copy is to hold; manifests last."""
        files = (path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*") if path.is_file())
        return sorted((n for n in files if n.startswith(_KEPT)), key=lambda name: (name.endswith(MANIFEST_FILE), name))

    def _is_same(self, checkpoint: str, theirs: Collection[str]) -> bool:
        """Whether a checkpoint is here as it is there."""
        name = f"{checkpoint}/{MANIFEST_FILE}"
        if name not in theirs or not (self._folder / name).is_file():
            return False
        with self._filesystem.open_input_stream(f"{self._root}/{name}") as manifest:
            return manifest.read() == (self._folder / name).read_bytes()

    def _is_before(self, theirs: "Mapping[str, FileInfo]", checkpoints: Collection[str]) -> bool:
        """Whether all checkpoints here were made before those there: one that was not is yet to be sent."""
        here = [path.stat().st_mtime_ns for path in self._folder.glob(f"checkpoints/step-*/{MANIFEST_FILE}")]
        there = [theirs[f"{checkpoint}/{MANIFEST_FILE}"].mtime_ns for checkpoint in checkpoints]
        return bool(here and there) and max(here) < min(there)

    def _drop_all_but(self, theirs: Collection[str]) -> None:
        ours = self._ours()
        for checkpoint in _checkpoints(ours) - _whole_checkpoints(theirs):
            discard(self._folder / checkpoint)
        for name in ours:
            if name not in theirs and not _CHECKPOINT.match(name):
                (self._folder / name).unlink()

    def _fetch(self, checkpoint: str, theirs: Collection[str]) -> None:
        """In place of another one here, whose score then goes too."""
        (self._folder / "validation" / f"{Path(checkpoint).name}.json").unlink(missing_ok=True)
        with complete_folder(self._folder / checkpoint, overwrite=True) as fresh:
            for name in theirs:
                if name.startswith(f"{checkpoint}/"):
                    self._download(name, fresh / Path(name).relative_to(checkpoint))

    def _remove(self, checkpoint: str, theirs: Collection[str]) -> None:
        """Remove what there is of a checkpoint there, its manifest first."""
        if (manifest := f"{checkpoint}/{MANIFEST_FILE}") in theirs:
            self._filesystem.delete_file(f"{self._root}/{manifest}")
        if checkpoint in _checkpoints(theirs):
            self._filesystem.delete_dir(f"{self._root}/{checkpoint}")

    def _is_ahead(self, name: str, changed: int, info: "FileInfo | None") -> bool:
        if info is None:
            return True
        return self._sent[name] != changed if name in self._sent else info.mtime_ns < changed

    def _is_behind(self, name: str, info: "FileInfo") -> bool:
        path = self._folder / name
        return name not in self._sent and (not path.exists() or path.stat().st_mtime_ns < info.mtime_ns)

    def _download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._filesystem.open_input_stream(f"{self._root}/{name}") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)

    def _upload(self, name: str) -> None:
        with (
            (self._folder / name).open("rb") as source,
            self._filesystem.open_output_stream(f"{self._root}/{name}") as target,
        ):
            shutil.copyfileobj(source, target, _BLOCK)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this machine at a time."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".copy.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _checkpoints(names: Collection[str]) -> set[str]:
    return {found[0] for name in names if (found := _CHECKPOINT.match(name))}


def _whole_checkpoints(names: Collection[str]) -> set[str]:
    return {checkpoint for checkpoint in _checkpoints(names) if f"{checkpoint}/{MANIFEST_FILE}" in names}
