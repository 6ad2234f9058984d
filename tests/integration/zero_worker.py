"""What the processes of test_gradients.py run: the job's own step under real DeepSpeed, on a tiny model."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import tiny_llama
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from t2l.config import BaseConfig, EncoderConfig, HypernetConfig, ReaderConfig, RunConfig, SftConfig
from t2l.data.collate import Row, SftBatch, collate, micro_batches
from t2l.data.descriptions import DescriptionTable
from t2l.hypernet.text_to_lora import build_model
from t2l.lora import LoraSpec
from t2l.lora.apply import PerRowLora
from t2l.train.engine import Engine, TorchEngine
from t2l.train.shard import load_sharded_base
from t2l.train.state import State
from t2l.train.step import SftModule
from t2l.train.zero import DeepSpeedEngine

CASES = {"0": (0, False), "1": (1, False), "2": (2, False), "3": (3, False), "3-and-base": (3, True)}
"""ZeRO's stage, and whether the base is partitioned, too."""
ROWS = [
    Row([1, 7, 8, 3], [11, 12, 4], 2),
    Row([1, 9, 3], [21, 4], 0),
    Row([1, 5, 6, 7, 8, 3], [31, 32, 33, 34, 4], 4),
    Row([1, 3], [4], 1),
    Row([1, 40, 41, 42, 3], [43, 44, 4], 3),
]
STEPS, LR = 4, 3e-3


@dataclass(frozen=True)
class Setting:
    """How a step is cut up: 5 rows divide neither by 2 workers nor by 2 micro-batches."""

    world_size: int = 1
    micro_batches: int = 2


def sft_config(setting: Setting, clip: float) -> SftConfig:
    return SftConfig(
        clip=clip, neftune_alpha=0.0, micro_batches=setting.micro_batches, label_smoothing=0.1, l2_generated=0.05
    )


def make_module(config: SftConfig, base: PreTrainedModel | None = None) -> SftModule:
    """Odd sizes, all weights random: a fresh hypernetwork's silent heads would hide most gradients."""
    base = base or tiny_llama()
    spec = LoraSpec.from_config(base.config, ["q_proj", "v_proj", "down_proj"], rank=3, alpha=6.0)
    reader = ReaderConfig(width=12, num_layers=1, num_heads=2, num_queries=3)
    run = RunConfig(
        hypernet=HypernetConfig(variant="S", latent_size=12, head_input_size=13, dropout=0.0),
        encoder=EncoderConfig(reader=reader),
        train=config,
    )
    torch.manual_seed(1)
    model = build_model(run, spec, feature_dim=7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return SftModule(PerRowLora(base, spec), model, config)


def make_table() -> DescriptionTable:
    torch.manual_seed(2)
    states = [part.numpy() for part in torch.randn(12, 7).half().split([3, 1, 4, 2, 2])]
    return DescriptionTable(len(states), lambda numbers: [states[number] for number in numbers], "cpu")


def batches(setting: Setting, rank: int) -> list[SftBatch]:
    mine = ROWS[rank :: setting.world_size]
    return [collate(part, len(ROWS), pad_id=0) for part in micro_batches(mine, setting.micro_batches)]


def step(engine: Engine, setting: Setting, lr: float) -> None:
    table = make_table()
    engine.module.train()
    for batch in batches(setting, engine.rank):
        engine.backward(engine.forward(batch, table.lookup(batch.description_index_B)))
    engine.step(lr)


def gradients(state: State) -> State:
    """After one update AdamW's first moment is a tenth of the gradient, summed over workers and micro-batches."""
    return {name.removeprefix("exp_avg/"): t * 10 for name, t in state.items() if name.startswith("exp_avg/")}


def torch_run(updates: int, state: State | None = None) -> State:
    """The same updates by the plain engine."""
    setting = Setting()
    config = sft_config(setting, clip=0.05)
    engine = TorchEngine(make_module(config), config, state=state)
    for _ in range(updates):
        step(engine, setting, LR)
    return engine.state()


def run(rank: int, setting: Setting, folder: Path, port: int) -> None:
    """Writes, per case: gradients; the state after STEPS clipped updates; the same with a resume half-way;
    of a partitioned base, the part that the first worker holds.
    """
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(setting.world_size)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=setting.world_size)
    half_way = torch_run(STEPS // 2)
    saved = BaseConfig(path=str(folder / "base"))
    for case, (stage, shard) in CASES.items():

        def engine(clip: float, state: State | None = None, stage: int = stage, shard: bool = shard) -> DeepSpeedEngine:
            config = sft_config(setting, clip)
            base = load_sharded_base(saved, "cpu")[0] if shard else None
            return DeepSpeedEngine(make_module(config, base), config, stage, "cpu", state)

        plain = engine(clip=1e9)
        step(plain, setting, lr=0.0)
        results: dict[str, dict[str, Tensor]] = {"gradients": gradients(plain.state())}
        clipped, resumed = engine(clip=0.05), engine(clip=0.05, state=half_way)
        for _ in range(STEPS):
            step(clipped, setting, LR)
        for _ in range(STEPS - STEPS // 2):
            step(resumed, setting, LR)
        results |= {"trained": clipped.state(), "resumed": resumed.state()}
        if shard:
            held = load_sharded_base(saved, "cpu")[0].state_dict()
            parts = {name: t.to_local() if isinstance(t, DTensor) else t for name, t in held.items()}
            results["held"] = parts | {"workers": torch.tensor(setting.world_size)}
        if rank == 0:
            for name, tensors in results.items():
                save_file(tensors, folder / f"{name}-{case}.safetensors")
    torch.distributed.destroy_process_group()
