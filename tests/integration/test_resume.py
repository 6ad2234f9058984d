"""A run that is killed at a random step and started again logs the same losses as one that was never stopped.

Here without Ray; on Ray, with more faults, in test_faults.py.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from t2l.cluster.alone import train_alone
from t2l.cluster.metrics import Metrics
from t2l.config import RunConfig, dump_config
from t2l.train.state import CheckpointStore
from t2l.train.validations import Validations

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120

Losses = dict[int, tuple[float, ...]]


def job(config: RunConfig, folder: Path, *more: str, address: str | None = None) -> subprocess.Popen[str]:
    """The job as a user starts it, in a process of its own."""
    file = folder / f"{config.name}.yaml"
    file.write_text(dump_config(config))
    command = [sys.executable, "jobs/train_sft.py", "--config", str(file), *more]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if address:
        environment["RAY_ADDRESS"] = address
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_at(process: subprocess.Popen[str], run_dir: Path, step: int) -> None:
    """SIGKILL to the job and to its Ray workers as soon as `step` is logged."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(record["step"] >= step for record in Metrics(run_dir).read()):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for pid in [*ray_train_workers(), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def ray_train_workers() -> Iterator[int]:
    """Processes of Ray Train's workers below this process, whose cluster they run on."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"RayTrainWorker" in (folder / "cmdline").read_bytes() and os.getpid() in ancestors(int(folder.name)):
                yield int(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def losses(run_dir: Path) -> Losses:
    """By step, all that was logged but times; each step once."""
    records = [record for record in Metrics(run_dir).read() if "loss" in record]
    assert len({record["step"] for record in records}) == len(records)
    return {record["step"]: tuple(record[key] for key in ("loss", "fit", "l2", "lr")) for record in records}


def scores(run_dir: Path) -> dict[int, dict[str, float]]:
    return {step: found.scores for step, found in Validations(run_dir).read().items()}


def check_resume(config: RunConfig, expected: Losses, folder: Path) -> None:
    """Kill the job at some step, start the run again here, and compare."""
    step = random.randint(3, config.train.steps - 5)
    print(f"killing at step {step}")
    kill_at(job(config, folder, "--no-ray"), config.run_dir, step)
    assert len(losses(config.run_dir)) < config.train.steps, "the kill came too late"
    train_alone(config)
    assert sorted(expected) == list(range(1, config.train.steps + 1))
    assert losses(config.run_dir) == expected
    assert CheckpointStore(config.run_dir, keep=1).due() == [], "what was killed unvalidated has been made up for"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in the job: sums come out alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_one_worker(tiny_base: Path, tmp_path: Path, one_thread: None) -> None:
    whole = tiny_config(tiny_base, tmp_path, steps=40, checkpoint_every=5, eval_every=40, report_inputs=0)
    train_alone(whole)
    stopped = whole.model_copy(update={"name": "stopped"})
    check_resume(stopped, losses(whole.run_dir), tmp_path)

    known = scores(whole.run_dir)
    (whole.run_dir / "validation/step-000040.json").unlink()  # as if it was killed before the validation
    train_alone(whole)
    assert scores(whole.run_dir) == known
