"""The main tables: every method on every split, and every T2L row beside its controls."""

from collections.abc import Sequence
from statistics import fmean

from t2l.evaluation.names import SPLIT_NAMES, WORDING_NAMES, split_name, wording_name
from t2l.report.document import Cell, Section, Table
from t2l.report.merge import Entry, labels

_INTERVALS = (
    "± is a 95 % interval: Student's t over seeds where a row has several, else over tasks. Methods that read a "
    "description are scored under unseen wording."
)
HARDEST = 15


def splits_of(entries: Sequence[Entry]) -> list[str]:
    """Held-out tasks first, then the others in a fixed order."""
    found = dict.fromkeys(split for entry in entries for split in entry.splits)
    known = ["held_out", *(split for split in SPLIT_NAMES if split != "held_out")]
    return [s for s in known if s in found] + [s for s in found if s not in known]


def methods_by_split(entries: Sequence[Entry]) -> Section:
    """One row a method, one column a split."""
    splits = splits_of(entries)
    rows: list[list[Cell]] = []
    for entry, label in zip(entries, labels(entries), strict=True):
        seeds = max(len(records) for records in entry.runs.values())
        rows.append([label, seeds, *(entry.score(split) for split in splits)])
    columns = ["method", "runs", *map(split_name, splits)]
    return Section("Methods", _INTERVALS, [Table("methods", "Scores by method and split", columns, rows)])


def controls(entries: Sequence[Entry]) -> Section | None:
    """What the description contributes: the same adapters' maker under the right text and under wrong ones."""
    tables = [table for split in splits_of(entries) if (table := _controls_of(entries, split))]
    text = (
        "Matched minus shuffled is the headline: the same tasks and inputs, once with the adapter of the task's own "
        "description in unseen wording and once with that of another task's. Differences are taken in pairs, seed by "
        "seed or task by task."
    )
    return Section("Controls", text, tables) if tables else None


def _controls_of(entries: Sequence[Entry], split: str) -> Table | None:
    controlled = [entry for entry in entries if (split, "shuffled") in entry.runs]
    if not controlled:
        return None
    wordings = [w for w in WORDING_NAMES if any((split, w) in entry.runs for entry in controlled)]
    rows: list[list[Cell]] = []
    for entry, label in zip(controlled, labels(controlled), strict=True):
        scores = [entry.score(split, wording) for wording in wordings]
        rows.append([label, *scores, entry.difference(split, "shuffled"), entry.difference(split, "junk")])
    columns = ["method", *map(wording_name, wordings), "matched − shuffled", "matched − junk"]
    return Table(f"controls_{split}", f"Controls on {split_name(split)}", columns, rows)


def per_task(entries: Sequence[Entry]) -> Section:
    """One table a split; the pages show the tasks that are hardest on average."""
    names = labels(entries)
    tables = [_tasks_of(entries, names, split) for split in splits_of(entries)]
    text = f"Each task's own metric under each method, the {HARDEST} hardest tasks first; the CSV files hold all tasks."
    return Section("Tasks", text, tables)


def _tasks_of(entries: Sequence[Entry], names: Sequence[str], split: str) -> Table:
    columns = {name: found for e, name in zip(entries, names, strict=True) if (found := e.by_task(split))}
    tasks = dict.fromkeys(task for scores in columns.values() for task in scores)
    rows: list[list[Cell]] = [[task, *(scores.get(task) for scores in columns.values())] for task in tasks]
    rows.sort(key=lambda row: fmean(cell for cell in row if isinstance(cell, float)))
    return Table(f"tasks_{split}", f"Scores by task, {split_name(split)}", ["task", *columns], rows, shown=HARDEST)
