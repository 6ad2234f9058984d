"""A user's own tasks: one folder a task, with task.yaml, train.jsonl and test.jsonl (docs/data.md has an example).

Further descriptions may stand in descriptions.txt, one a line, as `t2l describe` writes them.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from t2l.errors import DataError
from t2l.tasks.examples import read_examples
from t2l.tasks.sources.descriptions import unseen_of
from t2l.tasks.sources.records import Records
from t2l.tasks.task import Metric, Task, TaskSuite

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class TaskFile(BaseModel):
    """What task.yaml says. Tasks of the split test need no train.jsonl."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    descriptions: tuple[Text, ...] = ()
    unseen_descriptions: tuple[Text, ...] = ()
    metric: Metric = "exact_match"
    split: Literal["train", "validation", "test"] = "train"


def jsonl_suite(folder: Path, records: Records) -> TaskSuite:
    """All tasks of a folder, by name. Raises DataError if it holds none, or for a file that is missing or wrong."""
    files = sorted(folder.glob("*/task.yaml"))
    if not files:
        raise DataError(f"{folder} holds no */task.yaml: give a folder of one folder a task")
    tasks: dict[str, list[Task]] = {"train": [], "validation": [], "test": []}
    for file in files:
        about = _about(file)
        task = _task(file, about, records)
        tasks[about.split].append(task.as_held_out() if about.split == "test" else task)
    train, validation, test = map(tuple, tasks.values())
    return TaskSuite(train, validation, test, notes=records.notes)


def _task(file: Path, about: TaskFile, records: Records) -> Task:
    """Its training part holds nothing that its test part holds, in inputs and in wording."""
    name, descriptions = file.parent.name, _descriptions(file, about)
    unseen = unseen_of(about.unseen_descriptions, descriptions)
    number = len(set(about.unseen_descriptions)) - len(unseen)
    records.leave_out("unseen descriptions left out, as they are among the seen ones", name, number)
    train_file, test_file = (file.with_name(f"{split}.jsonl") for split in ("train", "test"))
    needs_train = about.split != "test" or train_file.exists()
    train = read_examples(train_file, records) if needs_train else []
    test = read_examples(test_file, records, about.metric)
    return Task(name, descriptions, unseen, records.untested(name, train, test), tuple(test), about.metric)


def _about(file: Path) -> TaskFile:
    try:
        return TaskFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise DataError(f"{file}: the field '{field}' is {problem['input']!r}: {problem['msg']}") from None


def _descriptions(file: Path, about: TaskFile) -> tuple[str, ...]:
    more = file.with_name("descriptions.txt")
    try:
        lines = more.read_text(encoding="utf-8").split("\n") if more.exists() else ()
    except UnicodeDecodeError:
        raise DataError(f"{more} is no UTF-8 text: save it as UTF-8, one description a line") from None
    found = (*about.descriptions, *(line.strip() for line in lines if line.strip()))
    if not found:
        raise DataError(f"{file}: the field 'descriptions' is empty, and there is no {more.name}: describe the task")
    return tuple(dict.fromkeys(found))
