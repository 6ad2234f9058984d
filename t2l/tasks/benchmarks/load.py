"""Records of a benchmark: from a folder of a user's, from --local-dir, or from the hub."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from t2l.errors import DataError, HubAccessError
from t2l.hub import find
from t2l.tasks.benchmarks.rows import Row

MAX_ROWS = 20_000
"""Of a split. No test split is longer; of training splits nobody needs more."""
_ENDINGS = (".jsonl", ".json", ".parquet")
_NO_CONFIGS = ("data", "train", "validation", "test")
"""Folders of these names hold a data set that has no configurations, or a split of it."""


def read_rows(dataset: str, config: str | None, split: str, revision: str | None, folder: Path | None) -> Iterator[Row]:
    """The rows of a split: of `folder` if there is one, else of the data set of that name.

    A folder holds files of JSON Lines or parquet of the hub's schema, with the split's name in theirs, such as
    test.jsonl or main/test-00000-of-00001.parquet: a copy of the hub's folder will do.
    Raises HubAccessError if the data set cannot be reached, DataError if the folder lacks configuration or split.
    """
    if folder is None and Path(found := find(dataset, revision, kind="dataset")).is_dir():
        folder = Path(found)
    if folder is None:
        rows = _numbered(download(dataset, config, split, revision), f"{dataset}, {split}, record")
    else:
        rows = chain.from_iterable(_rows_of(file) for file in _files(folder, config, split))
    return islice(rows, MAX_ROWS)


def _files(folder: Path, config: str | None, split: str) -> list[Path]:
    root = _root(folder, config)
    named = re.compile(rf"(?<![a-z]){split}(?![a-z])")
    files = [file for file in _records_below(root) if named.search(file.relative_to(root).as_posix())]
    if not files:
        raise DataError(f"{root} holds no file of the split '{split}': give {split}.jsonl or {split}.parquet")
    by_format = {file.suffix: file.relative_to(root) for file in files}
    if len(by_format) > 1:
        raise DataError(
            f"{root} holds the split '{split}' twice, {' and '.join(map(str, by_format.values()))}: keep one"
        )
    return files


def _root(folder: Path, config: str | None) -> Path:
    """A configuration's own folder; the whole of a folder without any, which then is a copy of what is wanted."""
    if config is None or (folder / config).is_dir():
        return folder / (config or "")
    inner = [path for path in sorted(folder.glob("*")) if path.is_dir() and path.name not in _NO_CONFIGS]
    if others := [path.name for path in inner if _records_below(path)]:
        raise DataError(f"{folder} lacks the folder '{config}', though it has {', '.join(others)}: copy it too")
    return folder


def _records_below(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.rglob("*")) if file.suffix in _ENDINGS]


def _rows_of(file: Path) -> Iterator[Row]:
    if file.suffix == ".parquet":
        yield from _numbered(_parquet(file), f"{file}, record")
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _parsed(line, f"{file}, line {number}")


def _parsed(line: str, where: str) -> Row:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return Row({}, where, f"is no JSON: {error}")
    return Row(record, where) if isinstance(record, dict) else Row({}, where, "is no record")


def _parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{file} is no whole parquet file ({error}): copy it again") from None


def download(dataset: str, config: str | None, split: str, revision: str | None) -> Iterable[dict[str, Any]]:
    """A split by the library `datasets`, cached. Raises HubAccessError for what it cannot load."""
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        return load_dataset(dataset, config, split=split, revision=revision)  # type: ignore[return-value]
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise HubAccessError(f"the data set '{dataset}' cannot be loaded ({reason}): give a folder of it") from None


def _numbered(records: Iterable[dict[str, Any]], where: str) -> Iterator[Row]:
    for number, record in enumerate(records, 1):
        yield Row(record, f"{where} {number}")
