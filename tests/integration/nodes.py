"""Two Ray nodes on this machine, and what the driver on one of them runs for test_nodes.py.

Where the kernel lets us (root on Linux), each node has a network namespace of its own, and the two speak over a cable
between these, as two machines would. Elsewhere they share the loopback interface.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PORT = 26379
STAGES = ((1, False), (2, False), (3, False), (3, True))
"""ZeRO's stage, and whether the base is partitioned, too."""


@dataclass(frozen=True)
class Node:
    """Where a node's processes run: `command` goes before theirs."""

    address: str
    command: tuple[str, ...] = ()

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """In a session of its own, to be stopped with all that it starts."""
        known = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [*self.command, sys.executable, *command],
            cwd=ROOT,
            env=known | {"RAY_AUTH_MODE": "disabled"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@contextmanager
def two_places() -> Iterator[tuple[Node, Node]]:
    """Two namespaces and the cable between them; the loopback interface twice where there can be none."""
    names = [f"t2l-{os.getpid()}-{side}" for side in "ab"]
    addresses = ["10.213.7.1", "10.213.7.2"]
    try:
        if shutil.which("ip") is None or _ip("netns", "add", names[0]):
            yield Node("127.0.0.1"), Node("127.0.0.1")
            return
        _ip("netns", "add", names[1])
        _ip("link", "add", "ray", "netns", names[0], "type", "veth", "peer", "name", "ray", "netns", names[1])
        for name, address in zip(names, addresses, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", "ray")
            for link in ("lo", "ray"):
                _ip("-n", name, "link", "set", link, "up")
        first, second = (
            Node(address, ("ip", "netns", "exec", name, "env", "GLOO_SOCKET_IFNAME=ray"))  # lest it takes "localhost"
            for name, address in zip(names, addresses, strict=True)
        )
        yield first, second
    finally:
        for name in names:
            _ip("netns", "delete", name)


def _ip(*arguments: str) -> int:
    with suppress(FileNotFoundError):
        return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode
    return 1


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Node, str]]:
    """A head and a worker with one CPU each: the head's place, and the address of their Ray. folder: a short path."""
    start = ["-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--object-store-memory=100000000"]
    with two_places() as (first, second):
        address = f"{first.address}:{PORT}"
        head = [f"--node-ip-address={first.address}", "--head", f"--port={PORT}", "--include-dashboard=false"]
        worker = [f"--node-ip-address={second.address}", f"--address={address}"]
        processes = [first.start(*start, f"--temp-dir={folder}", *head)]
        try:
            _wait_for_line(processes[0], "Ray runtime started")
            processes.append(second.start(*start, *worker))
            _wait_for_line(processes[1], "Ray runtime started")
            yield first, address
        finally:
            for process in reversed(processes):
                _stop(process)


def _wait_for_line(process: subprocess.Popen[str], part: str) -> None:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if part in line:
            return
    raise AssertionError(seen)


def _stop(process: subprocess.Popen[str]) -> None:
    """The whole session: Ray's own processes are in it."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def train_all(arguments: dict[str, Any]) -> None:
    """One worker: all runs, one after another, as train_on_ray would let it do each."""
    from t2l.cluster.train import _work

    for run in arguments["runs"]:
        _work(run)


def main(config_file: str) -> None:
    """The driver: one start of two workers for all of STAGES."""
    import ray
    import ray.train.torch

    from t2l.cluster.progress import LiveLine
    from t2l.cluster.run import open_run
    from t2l.cluster.train import check_resources, shown, start_ray
    from t2l.config import load_config

    start_ray()
    nodes = [node for node in ray.nodes() if node["Alive"]]
    assert [node["Resources"]["CPU"] for node in nodes] == [1, 1], nodes
    print("nodes", *sorted(node["NodeManagerAddress"] for node in nodes))
    runs = []
    for stage, shard in STAGES:
        name = f"{stage}-{shard}"
        settings = [f"name={name}", f"cluster.zero_stage={stage}", f"cluster.shard_base={shard}"]
        runs.append(load_config(Path(config_file), [*settings, "cluster.num_workers=2"]))
        open_run(runs[-1])
    assert check_resources(runs[0].cluster) is False
    with shown(LiveLine(runs[0].train.steps)) as status:
        arguments = [
            {"config": run.model_dump(mode="json"), "run_dir": str(run.run_dir), "status": status} for run in runs
        ]
        trainer = ray.train.torch.TorchTrainer(
            train_all,
            train_loop_config={"runs": arguments},
            scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
            run_config=ray.train.RunConfig(name="stages", storage_path=runs[0].output_dir),
        )
        trainer.fit()


if __name__ == "__main__":
    main(sys.argv[1])
