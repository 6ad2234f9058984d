"""The ten benchmarks as test tasks: the paper's rules of how they are asked and graded.

Greedy answers of at most 512 tokens; the score is the mean over three descriptions. Prompts are zero-shot but for the
few-shot methods, whose examples are turns of the chat before the question. GSM8K's answers begin with "Let's think step
by step.", code begins in a block of Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from t2l.errors import ConfigError, DataError
from t2l.tasks.benchmarks.load import read_rows
from t2l.tasks.benchmarks.rows import READERS, Item, Row
from t2l.tasks.sources.descriptions import DescriptionFiles
from t2l.tasks.sources.records import Records
from t2l.tasks.task import Example, Task, TaskSuite

MAX_NEW_TOKENS = 512
NUM_DESCRIPTIONS = 3


@dataclass(frozen=True)
class Benchmark:
    """An entry of benchmarks.yaml. shots: records to show in prompts, for a data set without a training split."""

    dataset: str
    test: str
    reader: str
    metric: str
    template: str
    descriptions: Sequence[str]
    train: str | None = None
    config: str | None = None
    revision: str | None = None
    shots: Sequence[dict[str, Any]] = ()


@cache
def benchmarks() -> dict[str, Benchmark]:
    """All ten, by upstream's name of them."""
    entries = yaml.safe_load(files("t2l.tasks.benchmarks").joinpath("benchmarks.yaml").read_text(encoding="utf-8"))
    return {name: Benchmark(**entry) for name, entry in entries.items()}


def benchmark_suite(
    names: Sequence[str], folder: Path | None, described: DescriptionFiles | None, records: Records
) -> TaskSuite:
    """Benchmarks as test tasks.

    folder: holds one folder a benchmark, by name; None: --local-dir or the hub. described: upstream's files, for the
    paper's own prompts and descriptions; None: ours.
    Raises ConfigError for an unknown name, and as read_rows does.
    """
    if unknown := [name for name in names if name not in benchmarks()]:
        raise ConfigError(f"there is no benchmark '{unknown[0]}': choose from {', '.join(benchmarks())}")
    tasks = tuple(_task(name, folder and folder / name, described, records) for name in names)
    return TaskSuite((), (), tasks, notes=records.notes)


def _task(name: str, folder: Path | None, described: DescriptionFiles | None, records: Records) -> Task:
    benchmark = benchmarks()[name]
    template, seen, unseen = benchmark.template, benchmark.descriptions, benchmark.descriptions
    if described is not None:
        template = _template(described, name)
        seen, unseen = described[name].descriptions, described[name].unseen[:NUM_DESCRIPTIONS]
    train = [Row(record, f"benchmarks.yaml, {name}, shot {i}") for i, record in enumerate(benchmark.shots, 1)]
    test = read_rows(benchmark.dataset, benchmark.config, benchmark.test, benchmark.revision, folder)
    if benchmark.train is not None:
        train = read_rows(benchmark.dataset, benchmark.config, benchmark.train, benchmark.revision, folder)
    read = READERS[benchmark.reader]
    task = Task(
        name=name,
        descriptions=seen,
        unseen_descriptions=unseen,
        train=tuple(records.read(lambda row: _shown(read(row), template), train)),
        test=tuple(records.read(lambda row: _asked(read(row), template), test)),
        metric=benchmark.metric,
        max_new_tokens=MAX_NEW_TOKENS,
        each_description=True,
    )
    if not task.test:
        raise DataError(f"the benchmark {name} holds no good record in its split '{benchmark.test}'")
    return task


def _template(described: DescriptionFiles, name: str) -> str:
    if name not in described:
        raise DataError(f"the descriptions hold no tasks/{name}/metadata.yaml: leave the benchmark {name} out")
    return described.metadata(name)["user_prompt_template"]


def _shown(item: Item, template: str) -> Example:
    return Example(_filled(template, item.fields), item.output)


def _asked(item: Item, template: str) -> Example:
    return Example(_filled(template, item.fields), item.reference, prefill=item.prefill)


def _filled(template: str, fields: dict[str, Any]) -> str:
    try:
        return template.format(**fields)
    except (KeyError, IndexError) as error:
        raise DataError(
            f"the prompt's template asks for {error}, which the benchmark lacks: {template!r:.200}"
        ) from None
