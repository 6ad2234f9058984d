"""From result files, and a checkpoint if there is one, to a report's folder."""

from collections.abc import Sequence
from pathlib import Path

from t2l.errors import CheckpointError, DataError
from t2l.evaluation.records import ResultFile
from t2l.report.document import Cell, Section, Table, write_report
from t2l.report.merge import Entry, merge
from t2l.report.sections.compression import compression
from t2l.report.sections.conditions import conditions
from t2l.report.sections.costs import paper_costs
from t2l.report.sections.scaling import scaling
from t2l.report.sections.scores import controls, methods_by_split, per_task
from t2l.report.sections.sensitivity import sensitivity
from t2l.report.style import styled

FROM_RECORDS = (methods_by_split, controls, conditions, scaling, compression, sensitivity, per_task)


def build_report(paths: Sequence[Path], folder: Path, title: str, checkpoint: Path | None = None) -> list[Section]:
    """Write report.md and report.html with their figures and tables into `folder`; returns what they show.

    checkpoint: also what needs a model: cost of its first answer, map of tasks, steering.
    Raises DataError for a result file that is missing or is none, or if there are no records; CheckpointError for a
    folder that is no checkpoint or one that reads no descriptions.
    """
    files = {path: ResultFile.read(path) for path in paths}
    entries = merge(record for file in files.values() for record in file.records)
    if not entries:
        raise DataError(f"no record in {', '.join(map(str, paths))}: let jobs/evaluate.py finish first")
    with styled():
        sections = [*_from_records(entries), paper_costs()]
        if checkpoint is not None:
            sections += _from_checkpoint(checkpoint)
    sections.append(_provenance(files))
    write_report(folder, title, sections)
    return sections


def _from_records(entries: Sequence[Entry]) -> list[Section]:
    return [section for make in FROM_RECORDS if (section := make(entries))]


def _from_checkpoint(folder: Path) -> list[Section]:
    from transformers.utils import logging

    from t2l.data.suite import build_suite
    from t2l.report.sections.atlas import atlas
    from t2l.report.sections.steering import steering
    from t2l.report.sections.timing import first_answers
    from t2l.text_to_lora import TextToLora

    logging.disable_progress_bar()
    t2l = TextToLora.from_pretrained(folder)
    condition = t2l.config.condition
    if condition != "description":
        raise CheckpointError(f"the checkpoint {folder} has condition '{condition}': give one that reads descriptions")
    suite = build_suite(t2l.config.data)
    train = [task.as_held_out() for task in suite.train]  # some have one wording only
    tasks = suite.test or train
    sections = [steering(t2l, tasks), first_answers(t2l, tasks[0].unseen_descriptions[0]), atlas(t2l, train)]
    return [section for section in sections if section]


def _provenance(files: dict[Path, ResultFile]) -> Section:
    rows: list[list[Cell]] = [
        [path.name, file.command, len(file.records), round(file.seconds), _pairs(file.machine), _pairs(file.versions)]
        for path, file in files.items()
    ]
    columns = ["file", "command", "records", "seconds", "machine", "versions"]
    return Section("Where the numbers come from", "", [Table("sources", "Result files", columns, rows)])


def _pairs(values: dict) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
