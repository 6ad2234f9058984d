"""Elastic workers: a node is lost, the run goes on with those that are left; another joins, and it grows again.

T2L_SLOW=1 python -m pytest tests/integration/test_elastic.py       # five minutes
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from slow import slow
from test_resume import losses
from tiny import tiny_settings

from t2l.cluster import train as ray_train
from t2l.cluster.metrics import Metrics
from t2l.cluster.progress import LiveLine
from t2l.cluster.run import open_run
from t2l.config import parse_config

PATIENCE_S = 120
STEPS = 4_000
"""More than a fast machine takes before the cluster has changed twice."""
NOTE = Path("/tmp/ray/ray_current_cluster")
"""Left by a killed node; what looks for a cluster by itself, as Ray Train's ends do, would wait for it."""


@contextmanager
def another_node(address: str) -> Iterator[Callable[[], None]]:
    """A node of one CPU more in the cluster; the given function is its sudden loss."""
    cpus = ray.cluster_resources()["CPU"]
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--num-cpus=1", "--block"]
    node = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lose() -> None:
        if node.poll() is None:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()

    try:
        wait_until(lambda: ray.cluster_resources()["CPU"] > cpus)
        yield lose
    finally:
        lose()
        if NOTE.is_file() and NOTE.read_text() == address:
            NOTE.unlink()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@slow
def test_a_run_shrinks_and_grows_with_the_cluster(cluster: str, tiny_base: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_base, tmp_path, steps=STEPS, checkpoint_every=5, eval_every=STEPS, report_inputs=0)
    config = parse_config(settings | {"cluster": {"num_workers": [2, 3], "start_timeout_s": 20}})

    def workers() -> list[int]:
        """Of each step."""
        return [record["workers"] for record in Metrics(config.run_dir).read() if "loss" in record]

    def trouble() -> None:
        with another_node(cluster) as lose:
            started.set()
            wait_until(lambda: len(workers()) > 8 and workers()[-1:] == [3])
            lose()
            wait_until(lambda: workers()[-1:] == [2])
        with another_node(cluster):
            wait_until(lambda: workers()[-1:] == [3])
            over.wait()

    started, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=trouble)
    thread.start()
    started.wait()
    assert not open_run(config)
    with ray_train.shown(LiveLine(config.train.steps)) as status:
        trainer = ray_train.make_trainer(config, use_gpu=False, status=status)
        trainer.scaling_config.elastic_resize_monitor_interval_s = 5
        ray_train.fit(trainer)
    over.set()
    thread.join()
    sizes = [size for size, before in zip(workers(), [0, *workers()], strict=False) if size != before]
    assert sizes[-3:] == [3, 2, 3], "it may have begun before all of the cluster was there"
    assert sorted(losses(config.run_dir)) == list(range(1, STEPS + 1)), "each step, and so each task, once"
