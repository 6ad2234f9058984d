"""Upstream's checkpoints: folders of random weights, and a plain restatement of what upstream makes of them.

The restatement goes adapter by adapter, layer by layer, rank by rank, over upstream's own names of tensors. It is held
to the folders that upstream's code wrote; what these lack (rotary ranks, an offset, MLP modules) is held to it.

Legend: l layers, r rank, i in_features, o out_features, d latent, h head input, e embedding.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, rotate_half

State = dict[str, Tensor]
VARIANTS = {
    "L": {"shared_AB_head": False, "autoreg_gen": False, "learnable_pos_emb": False},
    "M": {"shared_AB_head": True, "autoreg_gen": False, "learnable_pos_emb": False},
    "S": {"shared_AB_head": True, "autoreg_gen": True, "learnable_pos_emb": True},
    "S, rotary": {"shared_AB_head": True, "autoreg_gen": True, "learnable_pos_emb": False},
}
OBJECTIVES = {
    "SFT": {"training_task": "sft", "pred_z_score": False},
    "z-scores": {"training_task": "recon", "pred_z_score": True, "factorized": True},
    "reconstruction": {"training_task": "recon", "pred_z_score": False, "factorized": True},
}
SAVED_BESIDE = {
    "exp_setup": "hyper_lora",
    "encoder_type": "linear",
    "use_one_hot_task_emb": False,
    "head_use_bias": False,
    "emb_model": "Alibaba-NLP/gte-large-en-v1.5",
    "model_dir": "mistralai/Mistral-7B-Instruct-v0.2",
}


@dataclass(frozen=True)
class Shape:
    """sizes: i and o of the target modules, in the order that the weights were trained in."""

    sizes: dict[str, tuple[int, int]] = field(default_factory=lambda: {"v_proj": (32, 16), "q_proj": (32, 32)})
    layers: int = 2
    rank: int = 3
    latent: int = 16
    head: int = 24
    embedding: int = 48


def random_state(shape: Shape, args: dict[str, Any], seed: int = 0) -> State:
    """Every tensor random, but standard deviations positive."""
    generator = torch.Generator().manual_seed(seed)
    d, rank, task, half_task = shape.latent, shape.rank, shape.latent // 2, shape.latent // 4
    sizes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, i: int, o: int, bias: bool = True) -> None:
        sizes.update({f"{name}.weight": (o, i)} | ({f"{name}.bias": (o,)} if bias else {}))

    def norm(name: str, size: int) -> None:
        sizes.update({f"{name}.weight": (size,), f"{name}.bias": (size,)})

    def table(name: str, rows: int, size: int) -> None:
        sizes[f"{name}.0.weight"] = (rows, size)
        norm(f"{name}.1", size)

    linear("task_encoder.mlp.0", shape.embedding, task)
    norm("task_encoder.mlp.1", task)
    table("layer_depth_encoder", shape.layers, half_task)
    table("layer_type_encoder", len(shape.sizes), half_task)
    for name, out in (("mixer", d), ("mlp1.mlp", d), ("mlp2.mlp", d), ("mlp3", shape.head)):
        linear(f"{name}.1", d, 4 * d)
        linear(f"{name}.4", 4 * d, out)
        if name != "mixer":
            norm(f"{name}.0", d)
    if args["learnable_pos_emb"]:
        table("pos_emb", rank, d)
    if args["shared_AB_head"]:
        norm("out_emb_norm", d)
    for name, (i, o) in shape.sizes.items():
        rows = max(i, o) if args["shared_AB_head"] else i + o
        linear(f"heads.{name}", shape.head, rows * (1 if args["autoreg_gen"] else rank), bias=not args["pred_z_score"])
        if args["shared_AB_head"]:
            sizes |= {f"out_emb.{name}.{side}": (d,) for side in "AB"}
        for kind in ("AB_offset", "mean_recon_target", "std_recon_target"):
            sizes |= {f"{kind}.A.{name}": (shape.layers, rank, i), f"{kind}.B.{name}": (shape.layers, o, rank)}
    state = {name: 0.3 * torch.randn(size, generator=generator) for name, size in sizes.items()}
    return {name: tensor.abs() if name.startswith("std") else tensor for name, tensor in state.items()}


def write_folder(folder: Path, state: State, args: dict[str, Any], targets: list[str], **lora: Any) -> Path:
    folder.mkdir()
    torch.save(state, folder / "hypermod.pt")
    (folder / "args.yaml").write_text(yaml.safe_dump({**SAVED_BESIDE, **args}))
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "lora_alpha": 16, "use_rslora": True, **lora}
    rank = next(tensor.shape[1] for name, tensor in state.items() if name.startswith("AB_offset.A."))
    settings = {"r": rank, "target_modules": targets, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def upstream_adapter(state: State, args: dict[str, Any], targets: list[str], embedding_E: Tensor) -> State:
    """One adapter: "A.<module>" [l, r, i] and "B.<module>" [l, o, r]."""
    adapter: State = {}
    task = _norm(state, "task_encoder.mlp.1", _linear(state, "task_encoder.mlp.0", embedding_E))
    for number, name in enumerate(targets):
        kind = _norm(state, "layer_type_encoder.1", state["layer_type_encoder.0.weight"][number])
        layers = [_layer(state, args, name, task, layer, kind) for layer in state["layer_depth_encoder.0.weight"]]
        adapter[f"A.{name}"] = torch.stack([A_RI for A_RI, _ in layers])
        adapter[f"B.{name}"] = torch.stack([B_RO.T for _, B_RO in layers])
    for key, tensor in adapter.items():
        if args["training_task"] == "sft":
            adapter[key] = tensor + state[f"AB_offset.{key}"]
        elif args["pred_z_score"]:
            adapter[key] = tensor * (state[f"std_recon_target.{key}"] + 1e-10) + state[f"mean_recon_target.{key}"]
    return adapter


def _layer(
    state: State, args: dict[str, Any], name: str, task: Tensor, layer: Tensor, kind: Tensor
) -> tuple[Tensor, Tensor]:
    """Rows of A and B, without offset."""
    A, B = state[f"AB_offset.A.{name}"], state[f"AB_offset.B.{name}"]
    rank, i, o = A.shape[1], A.shape[2], B.shape[1]
    x = _mlp(state, "mixer", torch.cat([task, _norm(state, "layer_depth_encoder.1", layer), kind]))
    x = _block(state, "mlp1.mlp", x)
    if not args["shared_AB_head"]:
        flat = _linear(state, f"heads.{name}", _last(state, _block(state, "mlp2.mlp", x)))
        return flat[: rank * i].view(rank, i), flat[rank * i :].view(rank, o)
    sides = []
    for side, size in (("A", i), ("B", o)):
        y = _block(state, "mlp2.mlp", x + _norm(state, "out_emb_norm", state[f"out_emb.{name}.{side}"]))
        if args["autoreg_gen"]:
            ranks = [_ranked(state, args, y, place) for place in range(rank)]
            rows = torch.stack([_linear(state, f"heads.{name}", _last(state, z)) for z in ranks])
        else:
            rows = _linear(state, f"heads.{name}", _last(state, y)).view(rank, -1)
        sides.append(rows[:, :size])
    return sides[0], sides[1]


def _ranked(state: State, args: dict[str, Any], y: Tensor, place: int) -> Tensor:
    if args["learnable_pos_emb"]:
        return y + _block(state, "mlp2.mlp", _norm(state, "pos_emb.1", state["pos_emb.0.weight"][place]))
    size = len(y)
    rotary = LlamaRotaryEmbedding(LlamaConfig(hidden_size=size, num_attention_heads=1, max_position_embeddings=64))
    cos, sin = rotary(y[None, None], torch.tensor([[place]]))
    return _block(state, "mlp2.mlp", y * cos[0, 0] + rotate_half(y) * sin[0, 0])


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def _norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape, state[f"{name}.weight"], state[f"{name}.bias"])


def _mlp(state: State, name: str, x: Tensor) -> Tensor:
    return F.silu(_linear(state, f"{name}.4", F.silu(_linear(state, f"{name}.1", x))))


def _block(state: State, name: str, x: Tensor) -> Tensor:
    return x + _mlp(state, name, _norm(state, f"{name}.0", x))


def _last(state: State, x: Tensor) -> Tensor:
    return _mlp(state, "mlp3", _norm(state, "mlp3.0", x))


def scaled(vector: Tensor) -> Tensor:
    """Upstream's scale of an embedding: length sqrt(e)."""
    return vector.float() / vector.float().norm() * math.sqrt(len(vector))
