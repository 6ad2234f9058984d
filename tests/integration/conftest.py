"""One tiny base model and one run on the test session's Ray for all integration tests."""

from pathlib import Path

import pytest
from tiny import save_tiny_base, tiny_settings

from t2l.cluster.run import Finished
from t2l.cluster.train import train_on_ray
from t2l.config import RunConfig, parse_config


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("base"))


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
