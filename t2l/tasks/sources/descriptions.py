"""Upstream's descriptions: 200 a task, written by a language model, in one metadata.yaml a task.

They are read from a checkout of its repository, or from a .tar.gz with the folders `tasks` and `configs` of one. The
last 32 of each task are kept from training, and serve evaluation as unseen wording; so do the three that upstream
evaluates some tasks with, which come first. Those that differ from a training description in nothing but the order of
words are left out. They are one writer's, so unseen here means less than in the embedded universe.
"""

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from t2l.errors import DataError
from t2l.tasks.sources.records import Records

NUM_UNSEEN = 32
_MAX_UNSEEN_SHARE = 4
"""Of few descriptions, at most a fourth is kept from training."""
_LISTS = "configs/hyper_lora_decontam_lol_tasks.yaml"


@dataclass(frozen=True)
class Described:
    """A task's wordings: those that training may use, and those that it must not."""

    descriptions: tuple[str, ...]
    unseen: tuple[str, ...]


class DescriptionFiles(Mapping[str, Described]):
    """Wordings by upstream's name of the task ("lol_363", "gsm8k"), each file parsed when it is asked for.

    Raises DataError if there are no such files in `path`, or for one that does not hold what it should.
    """

    def __init__(self, path: Path, records: Records | None = None) -> None:
        self._path, self._records = path, records or Records()
        texts = dict(_texts(path))
        self._lists_text = texts.pop(_LISTS, b"{}")
        self._texts = {name.split("/")[1]: text for name, text in sorted(texts.items())}
        self._parsed: dict[str, dict[str, Any]] = {}
        if not self._texts:
            raise DataError(f"{path} holds no tasks/*/metadata.yaml: give a checkout of text-to-lora or its .tar.gz")

    def __getitem__(self, name: str) -> Described:
        written = self._strings(self.metadata(name), "descriptions", self._where(name))
        evaluated = self._lists.get("eval_ds_info", {}).get(name, {}).get("descriptions", [])
        first_unseen = len(written) - min(NUM_UNSEEN, len(written) // _MAX_UNSEEN_SHARE)
        seen = tuple(written[:first_unseen])
        return Described(seen, unseen_of((*evaluated, *written[first_unseen:]), seen))

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def train_names(self) -> tuple[str, ...]:
        """The tasks of upstream's training list."""
        return tuple(self._lists.get("train_ds_names", ()))

    @property
    def evaluation_names(self) -> tuple[str, ...]:
        """The tasks that upstream evaluates while it trains: some of the training list, held-out ones, benchmarks."""
        return tuple(self._lists.get("eval_ds_info", ()))

    def metadata(self, name: str) -> dict[str, Any]:
        """Everything that a task's file says."""
        if name not in self._parsed:
            self._parsed[name] = _parse(self._texts[name], self._where(name))
        return self._parsed[name]

    @cached_property
    def _lists(self) -> dict[str, Any]:
        return _parse(self._lists_text, f"{self._path}, {_LISTS}")

    def _where(self, name: str) -> str:
        return f"{self._path}, tasks/{name}/metadata.yaml"

    def _strings(self, record: dict[str, Any], field: str, where: str) -> list[str]:
        if not isinstance(record.get(field), list):
            raise DataError(f"{where}: the field '{field}' is no list of texts")
        numbered = enumerate(record[field])
        texts = self._records.read(lambda item: _text(item[1], f"{where}, {field}[{item[0]}]"), numbered)
        if not texts:
            raise DataError(f"{where}: the field '{field}' holds no text")
        return texts


def unseen_of(texts: Iterable[str], seen: Iterable[str]) -> tuple[str, ...]:
    """The texts that differ from all seen ones in more than case and the order of words, each once."""
    known = set(map(_words, seen))
    return tuple(dict.fromkeys(text for text in texts if _words(text) not in known))


def _texts(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name below the checkout, such as tasks/lol_363/metadata.yaml -> content."""
    wanted = re.compile(rf"(?:.*/)?(tasks/[^/]+/metadata\.yaml|{re.escape(_LISTS)})$")
    if path.is_dir():
        for file in (*path.glob("tasks/*/metadata.yaml"), *path.glob(_LISTS)):
            yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    try:
        with tarfile.open(path) as archive:  # nothing is unpacked to disk
            for member in archive:
                if member.isfile() and (found := wanted.match(member.name)):
                    yield found[1], archive.extractfile(member).read()  # type: ignore[union-attr]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: give a checkout of text-to-lora, or a .tar.gz of it") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path} is no whole .tar.gz ({error}): copy it again") from None


def _parse(text: bytes, where: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C: 511 files in a second, else in ten
    try:
        content = yaml.load(text.decode("utf-8"), Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{where} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise DataError(f"{where} holds no fields: it shall be a YAML mapping")
    return content


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where} is {value!r}, not text")
    return value


def _words(text: str) -> frozenset[str]:
    return frozenset(text.lower().split())
