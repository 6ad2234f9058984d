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


def read_rows(dataset: str, config: str | None, split: str, revision: str | None, folder: Path | None) -> Iterator[Row]:
    """The rows of a split: of `folder` if there is one, else of the data set of that name.

    A folder holds files of JSON Lines or parquet of the hub's schema, with the split's name in theirs, such as
    test.jsonl or main/test-00000-of-00001.parquet: a copy of the hub's folder will do.
    Raises HubAccessError if the data set cannot be reached, DataError if the folder lacks the split.
    """
    if folder is None and Path(found := find(dataset, revision, kind="dataset")).is_dir():
        folder = Path(found)
    if folder is None:
        rows = _numbered(download(dataset, config, split, revision), f"{dataset}, {split}, record")
    else:
        rows = chain.from_iterable(_rows_of(file) for file in _files(folder, config, split))
    return islice(rows, MAX_ROWS)


def _files(folder: Path, config: str | None, split: str) -> list[Path]:
    """Of a data set with several configurations, those in the folder of that name."""
    root = folder / config if config is not None and (folder / config).is_dir() else folder
    named = re.compile(rf"(?<![a-z]){split}(?![a-z])")
    found = [file for file in sorted(root.rglob("*")) if file.suffix in _ENDINGS]
    files = [file for file in found if named.search(file.relative_to(root).as_posix())]
    if not files:
        raise DataError(f"{root} holds no file of the split '{split}': give {split}.jsonl or {split}.parquet")
    return files


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
