"""Examples from a file of a user's own."""

import json
from pathlib import Path

from t2l.errors import DataError
from t2l.tasks.task import Example


def read_examples(path: Path) -> list[Example]:
    """A JSON Lines file of {"input": ..., "output": ...}; blank lines are skipped.

    Raises DataError naming file, line and field for a bad record, and for a file that is missing or holds none.
    """
    if not path.is_file():
        raise DataError(f'the file {path} does not exist: give one with {{"input": ..., "output": ...}} in each line')
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text: give a file of JSON Lines") from None
    examples = [_example(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise DataError(f'{path} holds no example: write {{"input": ..., "output": ...}} in each line')
    return examples


def _example(line: str, where: str) -> Example:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is no JSON: {error}") from None
    if not isinstance(record, dict):
        raise DataError(f'{where} is no record: write {{"input": ..., "output": ...}}')
    for field in ("input", "output"):
        if field not in record:
            raise DataError(f"{where} lacks the field '{field}'")
        if not isinstance(record[field], str) or not record[field].strip():
            raise DataError(f"{where}: the field '{field}' is {record[field]!r}, not text")
    if unknown := sorted(set(record) - {"input", "output"}):
        raise DataError(f"{where} has an unknown field '{unknown[0]}': a record has input and output")
    return Example(record["input"], record["output"])
