"""Super-NaturalInstructions (Wang et al. 2022, https://arxiv.org/abs/2204.07705): a folder of one JSON file a task."""

import json
from pathlib import Path
from typing import Any

from t2l.errors import DataError
from t2l.tasks.examples import example_of
from t2l.tasks.sources.numbered import NumberedTask, hold_out
from t2l.tasks.sources.records import Records


def read_natural_instructions(folder: Path, records: Records) -> list[NumberedTask]:
    """All tasks of a folder. Raises DataError if it holds none, or for a file that is none."""
    files = sorted(folder.glob("task*.json"))
    if not files:
        raise DataError(f"{folder} holds no task*.json: give the folder 'tasks' of natural-instructions")
    return [_read(file, records) for file in files]


def _read(file: Path, records: Records) -> NumberedTask:
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("Instances"), list):
        raise DataError(f"{file}: the field 'Instances' is no list: give a file of natural-instructions")
    definition = content.get("Definition")
    definition = definition[0] if isinstance(definition, list) and definition else definition
    if not isinstance(definition, str) or not definition.strip():
        raise DataError(f"{file}: the field 'Definition' is {definition!r}, not text")
    numbered = enumerate(content["Instances"])
    examples = records.read(lambda item: example_of(item[1], f"{file}, Instances[{item[0]}]"), numbered)
    train, test = hold_out(examples)
    if not train:
        raise DataError(f"{file}: the field 'Instances' holds fewer than 2 good, distinct inputs")
    return NumberedTask(file.stem, definition.strip(), train, test)
