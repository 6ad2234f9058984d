"""Where a run's numbers go besides metrics.jsonl: TensorBoard always, W&B and MLflow where the settings name them.

A run that goes on after a stop is the same run there: <run>/tracking.json holds its ids.
"""

import importlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from t2l.config import RunConfig
from t2l.config.settings import flat
from t2l.errors import ResourceError
from t2l.files import write_json
from t2l.train.validations import Validation

Say = Callable[[str], None]


class Tracker(Protocol):
    """Takes numbers by name, such as "train/loss"; a step may come again, or after later ones."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Scalars in a folder of event files; those of steps from `purge_step`, of a killed run, are dropped."""

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and only one worker needs it

        self._writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=10)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        wandb, settings = _package("wandb"), config.tracking.wandb
        assert settings is not None
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            name=config.name,
            id=_known_id(run_dir, "wandb", lambda: uuid.uuid4().hex),
            resume="allow",
            dir=str(run_dir),
            config=config.model_dump(mode="json"),
        )
        self._run.define_metric("*", step_metric="step")  # its own steps may neither come again nor go back

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """A run of an MLflow server or folder."""

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        mlflow, settings = _package("mlflow"), config.tracking.mlflow
        assert settings is not None
        self._metric = mlflow.entities.Metric
        self._client = mlflow.MlflowClient(settings.uri)
        self._id = _known_id(run_dir, "mlflow", lambda: self._create(mlflow, config, settings.experiment))
        self._client.update_run(self._id, status="RUNNING")

    def _create(self, mlflow: Any, config: RunConfig, name: str) -> str:
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run_id = self._client.create_run(experiment_id, run_name=config.name).info.run_id
        parameters = [mlflow.entities.Param(key, str(value)) for key, value in flat(config)]
        for start in range(0, len(parameters), 100):  # as many as it takes at once
            self._client.log_batch(run_id, params=parameters[start : start + 100])
        return run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[self._metric(name, values[name], now, step) for name in values])

    def close(self) -> None:
        self._client.set_terminated(self._id)


TRACKERS: dict[str, Callable[[RunConfig, Path], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow}
"""By their names in TrackingConfig."""


class Trackers:
    """All those that a run's settings name. One that fails is said and left out: the run goes on without it.

    Raises ResourceError where a package is missing.
    """

    def __init__(self, config: RunConfig, run_dir: Path, say: Say) -> None:
        self._say = say
        self._open: dict[str, Tracker] = {}
        for name, make in TRACKERS.items():
            if getattr(config.tracking, name):
                _package(name)
                with self._lenient(name):
                    self._open[name] = make(config, run_dir)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, tracker in list(self._open.items()):
            with self._lenient(name):
                tracker.log(step, values)

    def close(self) -> None:
        for name, tracker in list(self._open.items()):
            with self._lenient(name):
                tracker.close()

    @contextmanager
    def _lenient(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a service that is down may raise
            self._open.pop(name, None)
            self._say(f"{name} failed ({error}): nothing more is sent to it")


def log_validations(validations: Sequence[Validation], tracker: Tracker) -> None:
    for found in validations:
        tracker.log(found.step, {f"validation/{name}": value for name, value in found.scores.items()})


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ResourceError(
            f"tracking.{name} is set, but the package {name} is not installed: install it on the workers, or leave "
            "the setting out"
        ) from None


def _known_id(run_dir: Path, tracker: str, make: Callable[[], str]) -> str:
    """The tracker's id of this run, made and written down the first time."""
    path = run_dir / "tracking.json"
    ids: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    if tracker not in ids:
        write_json(path, ids := ids | {tracker: make()})
    return ids[tracker]
