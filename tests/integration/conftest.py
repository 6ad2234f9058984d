"""One tiny base model, one local Ray cluster of two CPUs and one run on it for all integration tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from serving import Server, running
from tiny import save_tiny_base, tiny_settings

from serve.settings import EngineSettings, Settings, Timeouts
from t2l.cluster.run import Finished
from t2l.cluster.train import train_on_ray
from t2l.config import RunConfig, parse_config


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """Its address, for RAY_ADDRESS; in this process Ray is initialised."""
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])  # for `serve`, on every worker
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="session")
def whole_config(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """40 steps on two workers, in micro-batches, each step logged."""
    runs = tmp_path_factory.mktemp("runs")
    settings = tiny_settings(tiny_base, runs, steps=40, checkpoint_every=5, eval_every=20, micro_batches=2)
    return parse_config(settings | {"name": "whole", "cluster": {"num_workers": 2, "zero_stage": 2}})


@pytest.fixture(scope="session")
def whole_run(cluster: str, whole_config: RunConfig) -> Finished:
    """That run, never stopped."""
    return train_on_ray(whole_config)


@pytest.fixture(scope="session")
def server(cluster: str) -> Iterator[Server]:
    """The real application on the shipped checkpoint; few rows and fewer slots, so that requests queue and evict."""
    settings = Settings(
        engine=EngineSettings(rows=16, adapter_slots=4, host_cache_mb=8),
        timeouts=Timeouts(encode_s=25.0),  # longer than a replica takes to come back, shorter than a test
    )
    with running(settings) as server:
        yield server
