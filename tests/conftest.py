"""Makes the helper modules of this folder importable from all tests; one local Ray and one server for all of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported, which torch does; not by workers of Ray

import hypothesis
import pytest

if TYPE_CHECKING:
    from serving import Server

hypothesis.settings.register_profile("t2l", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("t2l")


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Its address, for RAY_ADDRESS; in this process Ray is initialised."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # for `serve`, on every worker
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # one process less for each training run to start
    import ray  # here, since unit tests need none

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="session")
def server(cluster: str) -> "Iterator[Server]":
    """The real application on the shipped checkpoint."""
    from serving import running

    with running() as server:
        yield server
