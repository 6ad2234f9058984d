"""Examples as people write them: JSON records of an input and its output."""

import json
from pathlib import Path
from typing import Any

from t2l.errors import DataError
from t2l.tasks.references import check_reference
from t2l.tasks.sources.records import Records
from t2l.tasks.task import Example


def read_examples(path: Path, records: Records | None = None, metric: str = "exact_match") -> list[Example]:
    """A JSON Lines file of {"input": ..., "output": ...}; blank lines are skipped.

    metric: all answers must be such that it can grade by them.
    Raises DataError naming file, line and field for a bad record, unless `records` is lenient, and for a file that is
    missing or holds no good one.
    """
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f'{path} {wrong}: give a file of {{"input": ..., "output": ...}} in each line')
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON may hold what else splitlines takes for line ends
    except UnicodeDecodeError:
        raise DataError(f"{path} is no UTF-8 text: give a file of JSON Lines") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    strict = Records(strict=True)

    def parse(item: tuple[int, str]) -> Example:
        return _example(item[1], f"{path}, line {item[0]}", metric)

    examples = (records or strict).read(parse, numbered)
    if not examples:
        strict.read(parse, numbered[:1])  # its own complaint says more
        raise DataError(f'{path} holds no example: write {{"input": ..., "output": ...}} in each line')
    return examples


def example_of(record: Any, where: str) -> Example:
    """An example out of a record that may hold more; its output is a text, or a list of texts that are all right.

    Of several outputs the first that is not blank is the one to train on. Raises DataError that begins with `where`
    and names the field at fault.
    """
    if not isinstance(record, dict):
        raise DataError(f'{where} is no record: write {{"input": ..., "output": ...}}')
    if lacking := next((field for field in ("input", "output") if field not in record), None):
        raise DataError(f"{where} lacks the field '{lacking}'")
    given = record["output"]
    answers = [text for text in given if text != "" and text is not None] if isinstance(given, list) else [given]
    if not answers:
        raise DataError(f"{where}: the field 'output' holds no answer")
    output, *also = (_text(answer, "output", where) for answer in answers)
    return Example(_text(record["input"], "input", where), output, tuple(also))


def _example(line: str, where: str, metric: str) -> Example:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is no JSON: {error}") from None
    example = example_of(record, where)
    if unknown := sorted(set(record) - {"input", "output"}):
        raise DataError(f"{where} has an unknown field '{unknown[0]}': a record has input and output")
    for answer in example.answers:
        _check(answer, metric, where)
    return example


def _check(answer: str, metric: str, where: str) -> None:
    try:
        check_reference(metric, answer)
    except DataError as error:
        raise DataError(f"{where}: the metric '{metric}' cannot grade by the field 'output': {error}") from None


def _text(value: object, field: str, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: the field '{field}' is {value!r}, not text")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can say half of a pair of \u escapes; no tokenizer can read it
        raise DataError(f"{where}: the field '{field}' holds half a character ({value!r:.60})") from None
    return value
