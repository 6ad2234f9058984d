"""A sweep on Ray Tune: every trial is a training run on Ray Train, and ASHA stops those whose scores stay low.

A trial's own actor needs next to nothing: the run's workers hold the CPUs and GPUs, in a placement group that Ray Train
makes. Ray Train gives that back when its controller ends by itself. When Tune stops a trial it kills the actor that
waits for the controller, and then the group is freed only where a dashboard runs, else never. So a trial that is
stopped has its controller abort first, which frees everything (Trial.cleanup).

Going on after a kill: all trials are given to Tune again. Runs go on from their own newest checkpoints, and trials that
ended only repeat the scores in their folders, so that ASHA weighs the others against the same scores as before.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from t2l.cluster.board import Board, Introduction, Status
from t2l.cluster.run import complete, open_run
from t2l.cluster.sweep_table import SweepTable, TrialLine
from t2l.cluster.train import check_resources, fit, make_trainer, start_ray, validate_in_task
from t2l.cluster.trials import TrialFolder
from t2l.config import RunConfig
from t2l.errors import ResourceError
from t2l.train.validations import Validation

_POLL_SECONDS, _SHOW_SECONDS, _ABORT_SECONDS = 0.5, 1.0, 60.0
_NEXT_TO_NOTHING: dict[str, float] = {"memory": 1}
"""Tune refuses trials that need nothing at all: one byte."""


@dataclass(frozen=True)
class Halving:
    """ASHA: of the trials that get to parts 1, reduction, reduction^2, ... only the best 1/reduction go on."""

    parts: int
    """Validations of a trial, evenly spread over its steps."""
    reduction: int

    def scheduler(self) -> ASHAScheduler:
        return ASHAScheduler(time_attr="part", max_t=self.parts, grace_period=1, reduction_factor=self.reduction)


def run_sweep(
    runs: Mapping[str, RunConfig], halving: Halving, scratch: Path, concurrent: int | None = None
) -> dict[str, BaseException]:
    """Run trials, by name, to their ends on the Ray at hand (a local one is started if there is none).

    At most `concurrent` at a time (None: as many as the cluster's CPUs and GPUs can hold). `scratch` is for what Tune
    writes. Returns the errors of the trials that failed; the others are not disturbed by them. Raises ConfigError where
    a trial's folder holds a run with other settings; ResourceError if the cluster is too small.
    """
    for run in runs.values():
        open_run(run)
    if all(TrialFolder(run.run_dir).ended for run in runs.values()):
        return {}
    start_ray()
    concurrent = check_concurrency(runs, concurrent)
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}  # we have our own
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    board: Any = ray.remote(num_cpus=0)(Board).remote()
    try:
        with SweepTable() as table:
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(Trial, runs=dict(runs), board=board),
                    tune.PlacementGroupFactory([_NEXT_TO_NOTHING]),
                ),
                param_space={"trial": tune.grid_search(list(runs))},
                tune_config=tune.TuneConfig(
                    metric="score", mode="max", scheduler=halving.scheduler(), max_concurrent_trials=concurrent
                ),
                run_config=tune.RunConfig(
                    name=time.strftime("%Y%m%d-%H%M%S"),
                    storage_path=str(scratch.absolute()),
                    verbose=0,
                    callbacks=[Watch(runs, board, table)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )
            results = tuner.fit()
    finally:
        ray.kill(board)
    failed = ((result.config, result.error) for result in results)  # type: ignore[union-attr]
    return {config["trial"]: getattr(error, "cause", error) for config, error in failed if config and error}


def check_concurrency(runs: Mapping[str, RunConfig], asked: int | None) -> int:
    """How many trials may run at a time. Raises ResourceError for more than the cluster can hold, if it cannot grow."""
    total, room = ray.cluster_resources(), []
    for run in runs.values():
        cluster = run.cluster
        if check_resources(cluster):
            validator = 1  # a GPU that workers do not hold, else scores would come when training is over
            room.append(int(total.get("GPU", 0)) // (cluster.max_workers + validator))
        room.append(int(total.get("CPU", 0)) // (cluster.max_workers * cluster.cpus_per_worker))
    most = max(1, min(room))  # one always fits, with fewer workers, or once nodes have come
    if asked and asked > most and not all(run.cluster.autoscaled for run in runs.values()):
        raise ResourceError(f"{asked} trials at a time were asked for, but the cluster holds {most}: ask for fewer")
    return asked or most


class Trial(tune.Trainable):
    """One run, as Ray Tune sees it: each step is a part of the run, up to its next score."""

    def setup(self, config: dict[str, Any], runs: Mapping[str, RunConfig], board: Any) -> None:
        self._name, self._run, self._board = config["trial"], runs[config["trial"]], board
        self._folder, self._step = TrialFolder(self._run.run_dir), 0
        self._training: Training | None = None

    def step(self) -> dict[str, Any]:
        """Wait for the next score, those of an earlier start first. Raises what the run raised."""
        validation = self._next()
        self._step = validation.step
        whole = self._step >= self._run.train.steps
        if whole and self._training:
            self._training.wait()
        return {
            "step": self._step,
            "part": math.ceil(self._step / self._run.train.eval_every),
            "score": validation.score,
            "loss": self._folder.loss(self._step),
            "done": whole or (self._folder.ended is not None and not self._later()),
        }

    def cleanup(self) -> None:
        """Leave nothing of the run on the cluster."""
        if self._training:
            self._training.call_off()

    def _next(self) -> Validation:
        while True:
            over = self._training and self._training.over  # asked first, as nothing is written after it
            if later := self._later():
                return later[0]
            if self._training is None:
                self._training = Training(self._name, self._run, self._board)
            if over:
                self._training.wait()
                raise ResourceError(f"{self._folder.run_dir} was trained, but not validated to its end: start it again")
            time.sleep(_POLL_SECONDS)

    def _later(self) -> list[Validation]:
        return [validation for validation in self._folder.validations() if validation.step > self._step]


class Training:
    """A run on Ray Train, watched by a thread of its own."""

    def __init__(self, trial: str, run: RunConfig, board: Any) -> None:
        self._trial, self._run, self._board = trial, run, board
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> None:
        """Until the run is over. Raises what it raised."""
        self._thread.join()
        if self._error:
            raise self._error

    def call_off(self) -> None:
        """Have Ray Train's controller end the run, its validation and its placement group, if it still runs."""
        give_up = time.monotonic() + _ABORT_SECONDS
        aborted = False
        while not self.over and time.monotonic() < give_up:
            controller: Any = None if aborted else ray.get(self._board.controller.remote(self._trial))
            if controller is not None:  # None: the run is only starting
                controller.abort.remote()
                aborted = True
            self._thread.join(_POLL_SECONDS)

    def _work(self) -> None:
        run, status = self._run, Status(self._trial, self._board)
        try:
            use_gpu = check_resources(run.cluster)
            if not open_run(run):
                fit(make_trainer(run, use_gpu, status, [Introduction(self._trial, self._board)]))
            complete(run, validate_in_task(run, use_gpu, status))
        except BaseException as error:
            self._error = error


class Watch(tune.Callback):
    """In the driver: shows the trials, and notes in a trial's folder that it has ended."""

    def __init__(self, runs: Mapping[str, RunConfig], board: Any, table: SweepTable) -> None:
        self._runs, self._board, self._table = runs, board, table
        self._shown = 0.0
        self._ended: dict[str, TrialLine] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return tune.Callback, ()  # Tune writes callbacks down for its own way of going on, which we do not use

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The folder says how far a trial got, not its last result: a trial that was trained already tells ASHA its
        scores one by one, and may be stopped at an early one.
        """
        run = self._runs[trial.config["trial"]]
        folder = TrialFolder(run.run_dir)
        if not folder.ended:
            whole = any(validation.step >= run.train.steps for validation in folder.validations())
            folder.end("finished" if whole else "stopped")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() - self._shown >= _SHOW_SECONDS:
            self._show(trials)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._show(trials)

    def _show(self, trials: list[Any]) -> None:
        self._shown = time.monotonic()
        news: Any = ray.get(self._board.read.remote())
        known = {trial.config["trial"]: trial for trial in trials}
        self._table.show(
            [self._ended.get(name) or self._line(name, known.get(name), news.get(name, {})) for name in self._runs]
        )

    def _line(self, name: str, trial: Any, news: Mapping[str, Any]) -> TrialLine:
        run = self._runs[name]
        steps, folder = run.train.steps, TrialFolder(run.run_dir)
        if state := "failed" if trial and trial.status == "ERROR" else folder.ended:
            [*_, last] = folder.validations() or [None]
            line = TrialLine(name, state, last.step if last else 0, steps, last and last.score)
            return self._ended.setdefault(name, replace(line, loss=folder.loss(line.step)))
        if trial is None or trial.status == "PENDING":
            return TrialLine(name, "waiting", 0, steps)
        result = trial.last_result
        step, pace = max(news.get("step", 0), result.get("step", 0)), news.get("seconds_per_step")
        left = pace and pace * (steps - step)
        state, loss = news.get("phase", "starting"), news.get("loss")
        return TrialLine(name, state, step, steps, result.get("score"), loss, left)
