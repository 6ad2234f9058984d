"""From settings to tasks."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from t2l.config import AnyDataConfig
from t2l.config.data import (
    BenchmarksConfig,
    JsonlConfig,
    LotsOfLorasConfig,
    NaturalInstructionsConfig,
    NumberedConfig,
    SubUniverseConfig,
    UniverseConfig,
)
from t2l.errors import ConfigError, DataError
from t2l.tasks.benchmarks.suite import benchmark_suite, benchmarks
from t2l.tasks.operations import PICKS, RENDERS, Operations
from t2l.tasks.sources.descriptions import Described, DescriptionFiles
from t2l.tasks.sources.jsonl import jsonl_suite
from t2l.tasks.sources.lots_of_loras import read_lots_of_loras
from t2l.tasks.sources.natural_instructions import read_natural_instructions
from t2l.tasks.sources.numbered import NumberedTask, in_order, number_of, paper_splits, paper_suite
from t2l.tasks.sources.records import Records
from t2l.tasks.task import TaskSuite
from t2l.tasks.universe import sub_universe, universe


def build_suite(config: AnyDataConfig) -> TaskSuite:
    """The tasks that a run's data settings name, with the descriptions that it uses.

    Raises ConfigError or DataError where there are no such tasks.
    """
    return _built(config)  # type: ignore[arg-type]  # settings are frozen, and so can be a cache's keys


@lru_cache(maxsize=8)
def _built(config: AnyDataConfig) -> TaskSuite:
    return BUILDERS[config.suite](config).with_descriptions(config.num_descriptions)


def _universe(config: UniverseConfig) -> TaskSuite:
    return universe(config.num_train_tasks)


def _sub_universe(config: SubUniverseConfig) -> TaskSuite:
    for key, names, tables in (("picks", config.picks, PICKS), ("renders", config.renders, RENDERS)):
        known = tables.get(config.domain, names)  # an unknown domain is sub_universe's to refuse
        if unknown := [name for name in names if name not in known]:
            raise ConfigError(
                f"data.{key} names '{unknown[0]}', which '{config.domain}' lacks: choose from {', '.join(known)}"
            )
    operations = Operations(frozenset(config.picks), frozenset(config.renders))
    return sub_universe(config.domain, operations, config.num_validation, config.num_test)


def _jsonl(config: JsonlConfig) -> TaskSuite:
    return jsonl_suite(Path(config.path), Records(config.strict))


def _natural_instructions(config: NaturalInstructionsConfig) -> TaskSuite:
    records = Records(config.strict)
    return _paper_suite(config, read_natural_instructions(Path(config.path), records), records)


def _lots_of_loras(config: LotsOfLorasConfig) -> TaskSuite:
    """Only the tasks that are used are fetched."""
    records, splits = Records(config.strict), paper_splits()
    number = None if config.num_train_tasks is None else config.num_validation + config.num_train_tasks
    names = [*in_order(splits.train)[:number], *splits.test]
    return _paper_suite(config, read_lots_of_loras(names, records), records)


def _benchmarks(config: BenchmarksConfig) -> TaskSuite:
    records = Records(config.strict)
    described = DescriptionFiles(Path(config.descriptions), records) if config.descriptions else None
    folder = Path(config.path) if config.path else None
    return benchmark_suite(config.names or tuple(benchmarks()), folder, described, records)


def _paper_suite(config: NumberedConfig, tasks: list[NumberedTask], records: Records) -> TaskSuite:
    described = _described(config, {task.number for task in tasks}, records)
    return paper_suite(tasks, described, config.num_validation, config.num_train_tasks, records.notes)


def _described(config: NumberedConfig, numbers: set[int], records: Records) -> dict[int, Described]:
    """Upstream's wordings of those tasks that it has, by number."""
    if not config.descriptions:
        return {}
    files = DescriptionFiles(Path(config.descriptions), records)
    found = {number_of(name): name for name in files if name.startswith("lol_")}
    if not found.keys() & numbers:
        raise DataError(f"{config.descriptions} describes none of the tasks: check data.descriptions and data.path")
    return {number: files[name] for number, name in found.items() if number in numbers}


BUILDERS: dict[str, Callable[[Any], TaskSuite]] = {
    "universe": _universe,
    "sub_universe": _sub_universe,
    "jsonl": _jsonl,
    "natural_instructions": _natural_instructions,
    "lots_of_loras": _lots_of_loras,
    "benchmarks": _benchmarks,
}
