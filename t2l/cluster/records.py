"""What a run's first worker writes down: metrics.jsonl, TensorBoard scalars, checkpoints, news for the live line."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from t2l.cluster.metrics import Metrics
from t2l.train.loop import LogRecord
from t2l.train.state import CheckpointStore, State, WriteModel
from t2l.train.validations import Validation

Tell = Callable[[Mapping[str, Any]], None]
"""Passes news for the live line on: some of Status's fields."""


class Silence:
    """Hooks of all workers but the first."""

    def on_log(self, record: LogRecord) -> None: ...

    def on_checkpoint(self, step: int, state: State, validate: bool) -> None: ...


class Records:
    """Hooks of the first worker. Records of steps after `start`, left by a killed run, are dropped."""

    def __init__(self, store: CheckpointStore, write_model: WriteModel, tell: Tell, start: int) -> None:
        self._store, self._write_model, self._tell = store, write_model, tell
        self._metrics = Metrics(store.run_dir)
        self._metrics.keep_until(start)
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and only one worker needs it

        self._board = SummaryWriter(str(store.run_dir / "tensorboard"), purge_step=start + 1)

    def on_log(self, record: LogRecord) -> None:
        values = asdict(record)
        self._metrics.append(values)
        for name in values.keys() - {"step"}:
            self._board.add_scalar(f"train/{name}", values[name], record.step)
        self._tell(values)

    def on_checkpoint(self, step: int, state: State, validate: bool) -> None:
        self._board.flush()
        path = self._store.save(step, state, self._write_model, validate)
        self._tell({"checkpoint": str(path)})


def plot(run_dir: Path, validation: Validation) -> None:
    """Write a validation's scores as TensorBoard scalars, into a file of their own: the run's is the first worker's."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(run_dir / "tensorboard" / "validation")) as board:
        for name, value in validation.scores.items():
            board.add_scalar(f"validation/{name}", value, validation.step)
