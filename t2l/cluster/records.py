"""What a run's first worker writes down: metrics.jsonl, what trackers show, checkpoints, news for the live line."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from t2l.cluster.metrics import Metrics
from t2l.cluster.trackers import TensorBoard, Trackers, log_validations
from t2l.config import RunConfig
from t2l.files import room_for
from t2l.train.loop import LogRecord
from t2l.train.state import CheckpointStore, State, WriteModel
from t2l.train.validations import Validation

Tell = Callable[[Mapping[str, Any]], None]
"""Passes news for the live line on: some of Status's fields."""


class Silence:
    """Hooks of all workers but the first."""

    def on_log(self, record: LogRecord) -> None: ...

    def on_checkpoint(self, step: int, state: State, validate: bool) -> None: ...

    def close(self) -> None: ...


class Records:
    """Hooks of the first worker. Records of steps after `start`, left by a killed run, are dropped."""

    def __init__(
        self, config: RunConfig, store: CheckpointStore, write_model: WriteModel, tell: Tell, start: int
    ) -> None:
        self._store, self._write_model, self._tell = store, write_model, tell
        self._metrics = Metrics(store.run_dir)
        self._metrics.keep_until(start)
        self._board = TensorBoard(store.run_dir / "tensorboard", purge_step=start + 1)
        self._trackers = Trackers(config, store.run_dir, lambda note: tell({"note": note}))

    def on_log(self, record: LogRecord) -> None:
        values = asdict(record)
        self._metrics.append(values)
        scalars = {f"train/{name}": values[name] for name in values.keys() - {"step"}}
        with room_for(self._store.run_dir):
            self._board.log(record.step, scalars)
        self._trackers.log(record.step, scalars)
        self._tell(values)

    def on_checkpoint(self, step: int, state: State, validate: bool) -> None:
        path = self._store.save(step, state, self._write_model, validate)
        log_validations(self._metrics.add_validations(), self._trackers)
        self._tell({"checkpoint": str(path)})

    def close(self) -> None:
        self._board.close()
        self._trackers.close()


def plot(run_dir: Path, validation: Validation) -> None:
    """Write a validation's scores as TensorBoard scalars, into a file of their own: the run's is the first worker's."""
    board = TensorBoard(run_dir / "tensorboard/validation")
    log_validations([validation], board)
    board.close()
