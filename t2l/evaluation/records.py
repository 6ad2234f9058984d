"""What an evaluation leaves behind: one JSON file of records, from which every table and figure is made.

A record is one method, under one wording, on one split. Imports no torch: whatever reads results starts at once.
"""

import importlib.metadata
import importlib.util
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, variance
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from t2l.errors import DataError
from t2l.files import write_json

_PACKAGES = ("torch", "transformers", "peft", "ray")


class TaskScore(NamedTuple):
    """Means over the questions asked about one task."""

    own: float
    """By the task's own metric."""
    by_scorer: dict[str, float]
    num_questions: int


class Head(BaseModel):
    """What was measured. Fields that a method has nothing to say about are None.

    name: of the run or of the library that the adapters come from; "" for prompts alone.
    wording: which text made the adapter or stood in the prompt, see t2l/evaluation/questions.py; None: no text.
    hypernet_parameters: all trained ones, the reader's included; adapter_parameters: of one adapter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    name: str = ""
    wording: str | None = None
    split: str
    variant: str | None = None
    objective: str | None = None
    encoder: str | None = None
    condition: str | None = None
    seed: int | None = None
    num_train_tasks: int | None = None
    num_descriptions: int | None = None
    latent_size: int | None = None
    head_input_size: int | None = None
    rank: int | None = None
    hypernet_parameters: int | None = None
    adapter_parameters: int | None = None
    training_steps: int | None = None


class Record(Head):
    """What came of it.

    score: mean over tasks of each task's own metric, which by_task holds; scores: mean over tasks by scorer;
    margin_95: half the width of a 95 % interval of the score by Student's t, tasks taken as the independent units.
    source_sha256: of what was measured, adapters' maker, base model and data, so that scores are not taken for those
    of what came later under the same name.
    """

    score: float
    scores: dict[str, float]
    margin_95: float
    num_questions: int
    by_task: dict[str, float]
    seconds: float
    source_sha256: str | None = None

    @classmethod
    def of(cls, head: Head, tasks: Mapping[str, TaskScore], seconds: float, source_sha256: str | None = None) -> Self:
        """Sum up what the tasks scored."""
        scorers = dict.fromkeys(name for task in tasks.values() for name in task.by_scorer)
        own = [task.own for task in tasks.values()]
        return cls(
            **head.model_dump(),
            score=mean(own),
            scores={
                name: mean(task.by_scorer[name] for task in tasks.values() if name in task.by_scorer)
                for name in scorers
            },
            margin_95=margin_95(own),
            num_questions=sum(task.num_questions for task in tasks.values()),
            by_task={name: task.own for name, task in tasks.items()},
            seconds=round(seconds, 3),
            source_sha256=source_sha256,
        )

    @property
    def head(self) -> Head:
        return Head(**{name: getattr(self, name) for name in Head.model_fields})


class ResultFile(BaseModel):
    """All records of one command, and of those before it that it went on from; `seconds` of all of them."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    command: str
    seconds: float = 0.0
    machine: dict[str, str | int] = Field(default_factory=lambda: machine())
    versions: dict[str, str] = Field(default_factory=lambda: versions())
    records: list[Record] = []

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises DataError for a file that is missing or holds something else."""
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"the result file {path} does not exist: write one with jobs/evaluate.py -o") from None
        except IsADirectoryError:
            raise DataError(f"{path} is a folder: give a file, such as {path / 'results.json'}") from None
        except (ValidationError, UnicodeDecodeError):
            raise DataError(f"{path} is no result file of jobs/evaluate.py (format 1): give another file") from None

    @classmethod
    def merged(cls, command: str, parts: Sequence[Self]) -> Self:
        """All records of several files, those measured twice once; of the machines, the first part's."""
        records = {record.head: record for part in parts for record in part.records}
        result = cls(command=command, seconds=sum(part.seconds for part in parts), records=list(records.values()))
        if parts:
            result.machine, result.versions = parts[0].machine, parts[0].versions
        return result

    def write(self, path: Path) -> None:
        """Complete or absent."""
        write_json(path, self.model_dump(mode="json"))


def compression_ratio(num_tasks: int | None, adapter: int | None, hypernet: int | None) -> float | None:
    """Parameters of one adapter for each training task, over the parameters trained to make them all."""
    return num_tasks * adapter / hypernet if num_tasks and adapter and hypernet else None


def margin_95(scores: list[float]) -> float:
    """Half the width of a 95 % interval of the mean of independent scores in [0, 1], by Student's t.

    At most 1, which is all there is; so for fewer than two scores.
    """
    if len(scores) < 2:
        return 1.0
    from scipy.special import stdtrit  # here, as it takes longer to import than all else

    return min(1.0, float(stdtrit(len(scores) - 1, 0.975)) * math.sqrt(variance(scores) / len(scores)))


def machine() -> dict[str, str | int]:
    return {"platform": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count() or 1}


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in _installed()}}


def _installed() -> list[str]:
    """A machine may do without Ray."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is not None]
