"""On a GPU: nothing in a training step makes the host wait for the device (run `pytest tests/gpu` there)."""

from pathlib import Path

import pytest
import torch
from tiny import save_tiny_base, tiny_config

from t2l.config import SftConfig
from t2l.data.descriptions import DescriptionNumbers, DescriptionTable
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.apply import PerRowLora
from t2l.text.encoder import build_encoder
from t2l.train.base import build_spec, load_base
from t2l.train.engine import TorchEngine
from t2l.train.loop import Meter
from t2l.train.step import SftModule, seed_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_never_waits_for_the_device(tmp_path: Path, dtype: str) -> None:
    config = tiny_config(save_tiny_base(tmp_path / "base"), tmp_path, micro_batches=2)
    config = config.model_copy(update={"base": config.base.model_copy(update={"dtype": dtype})})
    assert isinstance(config.train, SftConfig)
    tasks = build_suite(config.data).train
    base, tokenizer = load_base(config.base, "cuda")
    encoder = build_encoder(config.encoder, base, tokenizer)
    numbers = DescriptionNumbers.of("description", tasks, config.data.num_descriptions)
    table = DescriptionTable.encode(numbers.texts, encoder, "cuda")
    spec = build_spec(config.lora, base.config)
    model = build_model(config, spec, encoder.feature_dim)
    engine = TorchEngine(SftModule(PerRowLora(base, spec), model, config.train), config.train, "cuda")
    steps = SftSteps(config, tasks, numbers, tokenizer)
    meter = Meter(engine, 0)
    engine.module.train()
    for step, batches in enumerate(steps.loader(0, pin=True)):
        torch.cuda.set_sync_debug_mode("error" if step else "default")  # the first step sets up kernels
        try:
            seed_step(config.seed, step, 0)
            for batch in batches:
                losses = engine.forward(batch.to("cuda"), table.lookup(batch.description_index_B))
                engine.backward(losses)
                meter.add(losses, batch.count)
            engine.step(1e-3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert meter.record(len(steps), 1e-3).loss > 0
