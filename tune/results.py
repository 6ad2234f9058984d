"""What a sweep came to: one row a trial, read from the trials' folders, best first."""

import csv
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from t2l.config import RunConfig
from t2l.evaluation.records import compression_ratio
from t2l.files import complete_file
from tune.spaces import tasks_of


@dataclass(frozen=True)
class Row:
    """One trial.

    ended: finished, stopped (by ASHA), failed or unfinished (the sweep was interrupted).
    score: the best of its validations, on held-out tasks of the training family (test tasks have no say in a sweep);
    last_score and loss: at its last validation. hypernet_parameters: all that is trained; adapter_parameters: of one
    adapter. seconds: in training steps. What a trial did not get to is None.
    """

    trial: str
    ended: str
    settings: dict[str, Any]
    steps: int
    score: float | None
    last_score: float | None
    loss: float | None
    train_tasks: int
    hypernet_parameters: int | None
    adapter_parameters: int | None
    seconds: float

    @property
    def compression_ratio(self) -> float | None:
        return compression_ratio(self.train_tasks, self.adapter_parameters, self.hypernet_parameters)


def read_rows(runs: Mapping[str, RunConfig], keys: Sequence[str], failed: Container[str] = ()) -> list[Row]:
    """Rows of trials, best first; `keys` are the settings that vary, `failed` names trials that ended in an error."""
    rows = [_read(run, keys, "failed" if name in failed else "unfinished") for name, run in runs.items()]
    return sorted(rows, key=lambda row: (-1.0 if row.score is None else row.score, -(row.loss or 0.0)), reverse=True)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Complete or absent; a column for each setting that varies."""
    with complete_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(_columns(rows[0])))
        writer.writeheader()
        writer.writerows(_columns(row) for row in rows)


def ranked_table(rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title)
    for name in ("", "trial", "ended", "steps", "score", "loss", "ratio", "seconds"):
        table.add_column(name, justify="left" if name in ("trial", "ended") else "right", no_wrap=name == "trial")
    for place, row in enumerate(rows, start=1):
        table.add_row(
            str(place),
            row.trial,
            row.ended,
            f"{row.steps:,}",
            _number(row.score, ".3f"),
            _number(row.loss, ".4f"),
            _number(row.compression_ratio, ".2f"),
            f"{row.seconds:.0f}",
            style="bold" if place == 1 else None,
        )
    return table


def _read(run: RunConfig, keys: Sequence[str], otherwise: str) -> Row:
    from t2l.cluster.trials import TrialFolder

    folder = TrialFolder(run.run_dir)
    validations = folder.validations()
    hypernet, adapter = folder.parameters()
    return Row(
        trial=run.name,
        ended=folder.ended or otherwise,
        settings={key: _setting(run, key) for key in keys},
        steps=validations[-1].step if validations else 0,
        score=max((at.score for at in validations), default=None),
        last_score=validations[-1].score if validations else None,
        loss=folder.loss(validations[-1].step) if validations else None,
        train_tasks=len(tasks_of(run).train),
        hypernet_parameters=hypernet,
        adapter_parameters=adapter,
        seconds=round(folder.seconds(), 1),
    )


def _setting(run: RunConfig, key: str) -> Any:
    value: Any = run
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _columns(row: Row) -> dict[str, Any]:
    plain = {name: value for name, value in vars(row).items() if name not in ("trial", "ended", "settings")}
    return {"trial": row.trial, "ended": row.ended, **row.settings, **plain, "compression_ratio": row.compression_ratio}


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
