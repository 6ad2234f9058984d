"""A tiny random base model and an untrained but lively checkpoint for it, as real folders."""

from pathlib import Path

import pytest
import torch
from tiny import save_tiny_base, tiny_llama, tiny_settings

from t2l.checkpoint import save_checkpoint
from t2l.config import parse_config
from t2l.hypernet.text_to_lora import build_model
from t2l.lora import LoraSpec


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_base: Path) -> Path:
    """Its encoder is the base model's token states under a reader; its adapters change what the base model says."""
    settings = tiny_settings(tiny_base, tiny_base.parent)
    encoder = {"kinds": ["llm"], "reader": {"width": 16, "num_heads": 2}, "probes": ["a, b", "7"]}
    config = parse_config({**settings, "encoder": encoder})
    base_config = tiny_llama().config
    spec = LoraSpec.from_config(base_config, config.lora.target_modules, config.lora.rank, config.lora.alpha)
    feature_dim = base_config.hidden_size * config.encoder.probe_layers
    torch.manual_seed(0)
    model = build_model(config, spec, feature_dim)
    with torch.no_grad():
        for name, parameter in model.hypernet.heads.named_parameters():
            parameter.normal_(std=0.3 if name.endswith("weight") else 0.05)
    return save_checkpoint(tiny_base.parent / "checkpoint", model, config, spec, feature_dim)
