"""SFT across two Ray nodes with DeepSpeed ZeRO 1, 2 and 3, and with the base partitioned: the losses of one worker."""

import tempfile
from pathlib import Path

import pytest
import torch
from nodes import STAGES, two_nodes
from safetensors.torch import load_file
from slow import slow
from tiny import tiny_settings

from t2l.cluster.alone import train_alone
from t2l.cluster.metrics import Metrics
from t2l.config import RunConfig, dump_config, parse_config

pytestmark = slow


@pytest.fixture(scope="module")
def reference(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Six steps by one worker in this process. No dropout and no noise: they differ from worker to worker."""
    runs = tmp_path_factory.mktemp("nodes")
    settings = tiny_settings(tiny_base, runs, neftune_alpha=0.0, validation_inputs=0, report_inputs=0)
    settings["lora"], settings["hypernet"] = {"dropout": 0.0}, settings["hypernet"] | {"dropout": 0.0}
    settings["encoder"] |= {"reader": {"width": 16, "num_layers": 1, "num_heads": 2}, "probes": ["owl, cap", "a, b"]}
    config = parse_config(settings | {"name": "alone"})
    train_alone(config)
    return config


@pytest.fixture(scope="module")
def across_nodes(reference: RunConfig) -> Path:
    """The folder of the same runs by two workers, each on a node of its own."""
    file = Path(reference.output_dir) / "run.yaml"
    file.write_text(dump_config(reference))
    with (
        tempfile.TemporaryDirectory(prefix="t2l-") as short,  # Ray's socket names want a short path
        two_nodes(Path(short)) as (place, address),
    ):
        driver = place.start("tests/integration/nodes.py", str(file), RAY_ADDRESS=address)
        output, _ = driver.communicate(timeout=270)
    assert driver.returncode == 0, output
    return Path(reference.output_dir)


@pytest.mark.parametrize(("stage", "shard"), STAGES)
def test_losses_are_those_of_one_worker(reference: RunConfig, across_nodes: Path, stage: int, shard: bool) -> None:
    def losses(run_dir: Path) -> list[float]:
        return [record["loss"] for record in Metrics(run_dir).read() if "loss" in record]

    expected, found = losses(reference.run_dir), losses(across_nodes / f"{stage}-{shard}")
    assert len(expected) == reference.train.steps and min(expected) < max(expected)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("stage", "shard"), STAGES)
def test_checkpoints_hold_what_is_trained(reference: RunConfig, across_nodes: Path, stage: int, shard: bool) -> None:
    path = f"checkpoints/step-{reference.train.steps:06d}/model.safetensors"
    expected, found = load_file(reference.run_dir / path), load_file(across_nodes / f"{stage}-{shard}" / path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-2, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
