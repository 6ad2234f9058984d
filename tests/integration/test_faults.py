"""One run on Ray that meets every fault of docs/operations.md logs the same losses as one that met none.

First its driver and its workers are killed at a random step and Ray Train's own record is overwritten; then, started
again, a worker is killed before it reports a checkpoint, one while the other waits for it in the report, and one after
it, when it has also cut the newest checkpoint short.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
import ray.train
from slow import slow
from test_resume import job, kill_at, losses, scores

from t2l.cluster import train as ray_train
from t2l.cluster.progress import LiveLine
from t2l.cluster.run import Finished, complete, open_run
from t2l.config import RunConfig
from t2l.train.state import CheckpointStore

DEATHS = {("before", 10, 0), ("before", 20, 1), ("after", 30, 0)}
"""Before or after it reports the checkpoint of which step which worker dies."""

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


def mortal(arguments: dict[str, Any]) -> None:
    """What a worker does, and its deaths, each once."""
    run_dir, report = Path(arguments["run_dir"]), ray.train.report

    def perhaps_die(*at: Any) -> None:
        mark = run_dir / f"died-{at}"
        if at not in DEATHS or mark.exists():
            return
        mark.touch()
        time.sleep(1)  # by now the other one waits in the report for this one
        if at[0] == "after":
            state = run_dir / f"checkpoints/step-{at[1]:06d}/resume/state.safetensors"
            state.write_bytes(state.read_bytes()[:-100])
        os.kill(os.getpid(), signal.SIGKILL)

    def report_or_die(metrics: dict[str, Any], *rest: Any, **more: Any) -> None:
        here = metrics["step"], ray.train.get_context().get_world_rank()
        perhaps_die("before", *here)
        report(metrics, *rest, **more)
        perhaps_die("after", *here)

    ray.train.report = report_or_die
    ray_train._work(arguments)


def train_with_deaths(config: RunConfig) -> None:
    """As `train_on_ray` does."""
    assert not open_run(config)
    with ray_train.shown(LiveLine(config.train.steps)) as status:
        trainer = ray_train.make_trainer(config, use_gpu=False, status=status)
        trainer.train_loop_per_worker = mortal
        ray_train.fit(trainer)
        complete(config, ray_train.validate_in_task(config, False, status))


@slow
def test_every_fault_in_one_run(
    whole_run: Finished, whole_config: RunConfig, tmp_path: Path, cluster: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train = whole_config.train.model_copy(update={"report_inputs": 0, "eval_every": 10})
    config = whole_config.model_copy(update={"name": "faults", "train": train})
    step = random.randint(3, 9)
    kill_at(job(config, tmp_path, address=cluster), config.run_dir, step)
    assert len(losses(config.run_dir)) < 20, "the kill came too late"
    (config.run_dir / "checkpoint_manager_snapshot.json").write_text('{"cut sho')

    train_with_deaths(config)

    assert len(list(config.run_dir.glob("died-*"))) == len(DEATHS)
    said = capsys.readouterr().out.replace("\n", " ")
    assert said.count("going on from the newest checkpoint") == len(DEATHS), said
    assert "step-000030 holds a resume/state.safetensors that is not the one of its manifest.json: set aside" in said
    assert "going on after step 25" in said
    assert losses(config.run_dir) == losses(whole_config.run_dir), "each step once, and all the same"
    assert scores(config.run_dir).keys() == {10, 20, 30, 40}
    assert scores(config.run_dir)[40] == scores(whole_config.run_dir)[40]
    assert CheckpointStore(config.run_dir, keep=1).due() == []
