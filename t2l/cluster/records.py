"""What a run's first worker writes down: metrics.jsonl, TensorBoard scalars, checkpoints, news for the live line."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from t2l.train.loop import LogRecord
from t2l.train.state import CheckpointStore, Progress, State, WriteModel

Tell = Callable[[Mapping[str, Any]], None]
"""Passes news for the live line on: some of Status's fields."""


class Silence:
    """Hooks of all workers but the first."""

    def on_log(self, record: LogRecord) -> None: ...

    def on_validate(self, step: int, metrics: dict[str, float]) -> None: ...

    def on_checkpoint(self, progress: Progress, state: State) -> None: ...


class Records:
    """Hooks of the first worker. Records of steps after `progress`, left by a killed run, are dropped."""

    def __init__(self, store: CheckpointStore, write_model: WriteModel, tell: Tell, progress: Progress) -> None:
        self._store, self._write_model, self._tell = store, write_model, tell
        self._path = store.run_dir / "metrics.jsonl"
        _keep_until(self._path, progress.step)
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and only one worker needs it

        self._board = SummaryWriter(str(store.run_dir / "tensorboard"), purge_step=progress.step + 1)

    def on_log(self, record: LogRecord) -> None:
        values = asdict(record)
        self._append(values)
        self._write_scalars("train", record.step, {name: value for name, value in values.items() if name != "step"})
        self._tell(values)

    def on_validate(self, step: int, metrics: dict[str, float]) -> None:
        self._append({"step": step, "validation": metrics})
        self._write_scalars("validation", step, metrics)
        self._tell(metrics)

    def on_checkpoint(self, progress: Progress, state: State) -> None:
        self._board.flush()
        path = self._store.save(progress, state, self._write_model)
        self._tell({"checkpoint": str(path)})

    def _append(self, values: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def _write_scalars(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """All whole lines of metrics.jsonl: a kill may have cut the last one short."""
    path = run_dir / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def _keep_until(path: Path, step: int) -> None:
    kept = [record for record in read_metrics(path.parent) if record["step"] <= step]
    path.write_text("".join(json.dumps(record) + "\n" for record in kept))
