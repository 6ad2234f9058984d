"""Checkpoints of the paper's authors (SakanaAI/text-to-lora) as checkpoints of ours.

A folder of theirs holds hypermod.pt (a state dict), args.yaml (the settings of its training) and adapter_config.json
(PEFT's). The order of target modules is adapter_config.json's, which is the one the weights were trained in: both
come from one iteration over one set. Where shapes tell a size they are believed, not args.yaml: its head_use_bias,
for one, says nothing about the heads that were trained.

Legend: l layers, r rank, i in_features, o out_features.
"""

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from t2l.checkpoint import save_checkpoint
from t2l.config import RunConfig, parse_config
from t2l.errors import CheckpointError
from t2l.hub import find
from t2l.hypernet.text_to_lora import build_model
from t2l.interop.upstream_weights import load_weights, tensor_named
from t2l.lora.peft_io import read_config
from t2l.lora.spec import LoraSpec, TargetModule

WEIGHTS_FILE, ARGS_FILE = "hypermod.pt", "args.yaml"

_SUPPORTED: dict[str, tuple[object, ...]] = {
    "exp_setup": ("hyper_lora",),
    "training_task": ("sft", "recon"),
    "encoder_type": ("linear",),
    "use_one_hot_task_emb": (False,),
    "use_inp_as_desc": (False,),
}
# Where every decoder that upstream was released for (Mistral, Llama, Gemma) has its linear layers.
_LAYERS_PATH = "model.layers"
_PATHS = {
    **{name: f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{name: f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")},
}


@dataclass(frozen=True)
class UpstreamCheckpoint:
    """What such a folder holds; lora: adapter_config.json."""

    folder: Path
    args: Mapping[str, Any]
    lora: Mapping[str, Any]
    state: Mapping[str, Tensor]


def import_upstream(
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    overrides: Sequence[str] = (),
) -> RunConfig:
    """Write a checkpoint folder of ours, complete or absent, and return the settings that its config.json holds.

    overrides: settings in place of those that args.yaml leads to, such as "base.path=/models/mistral".
    Raises CheckpointError if the folder lacks a file, if hypermod.pt holds more than tensors, if something in
    args.yaml is not supported (naming it), or if `output` exists; HubAccessError if target modules of unusual names
    must be looked up in a base model that is out of reach.
    """
    theirs = read_upstream(directory)
    config = parse_config(_settings(theirs), overrides)
    spec = _spec(theirs, config.base.path)
    feature_dim = tensor_named(theirs.state, "task_encoder.mlp.0.weight").shape[1]
    model = build_model(config, spec, feature_dim)
    zscore = theirs.args["training_task"] == "recon" and bool(theirs.args.get("pred_z_score"))
    load_weights(model.hypernet, theirs.state, offset=config.train.objective == "sft", zscore=zscore)
    save_checkpoint(output, model, config, spec, feature_dim)
    return config


def read_upstream(directory: str | os.PathLike[str]) -> UpstreamCheckpoint:
    """Read the three files. Raises CheckpointError as `import_upstream` does."""
    folder = Path(directory)
    for name in (WEIGHTS_FILE, ARGS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} is no checkpoint of upstream's: it lacks {name}")
    args = _read_args(folder / ARGS_FILE)
    _refuse_unsupported(args, folder / ARGS_FILE)
    return UpstreamCheckpoint(folder, args, read_config(folder), _read_state(folder / WEIGHTS_FILE))


def _read_args(path: Path) -> dict[str, Any]:
    try:
        args = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path} is no plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(args, dict):
        raise CheckpointError(f"{path} is no list of settings: take the one that was saved beside {WEIGHTS_FILE}")
    if missing := [key for key in ("training_task", "model_dir") if not args.get(key)]:
        raise CheckpointError(f"{path} lacks {', '.join(missing)}: take the one that was saved beside {WEIGHTS_FILE}")
    return args


def _refuse_unsupported(args: Mapping[str, Any], path: Path) -> None:
    for key, supported in _SUPPORTED.items():
        if key in args and args[key] not in supported:
            choices = " or ".join(map(str, supported))
            raise CheckpointError(f"{path} has {key}: {args[key]}, which t2l cannot import: it must be {choices}")
    if args.get("autoreg_gen") and not args.get("shared_AB_head"):
        raise CheckpointError(
            f"{path} has autoreg_gen: true with shared_AB_head: false, which is none of the variants S, M and L"
        )
    if args["training_task"] == "recon" and not args.get("factorized", True):
        raise CheckpointError(
            f"{path} has factorized: false with training_task: recon: its heads were trained for products B A "
            f"times delta_w_scaling ({args.get('delta_w_scaling')}), which is not supported"
        )


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name, in fp32 on the CPU; nothing else is unpickled."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = next((line.strip() for line in str(error).splitlines() if "Unsupported" in line), "not a state dict")
        raise CheckpointError(f"{path} is refused, for it holds more than tensors ({reason})") from None
    except (RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} is damaged ({str(error).splitlines()[0]}): copy it again") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path} is no state dict: take the {WEIGHTS_FILE} that upstream's training saved")
    return {name: tensor.float() for name, tensor in state.items()}


def _spec(theirs: UpstreamCheckpoint, base: str) -> LoraSpec:
    """Modules in the order of adapter_config.json, their shapes from the offset that every state dict holds."""
    targets = theirs.lora["target_modules"]
    where = theirs.folder / WEIGHTS_FILE
    known = {key.removeprefix("AB_offset.A.") for key in theirs.state if key.startswith("AB_offset.A.")}
    if not known:
        raise CheckpointError(f"{where} lacks AB_offset, whose shapes tell those of the adapters: save it again")
    if set(targets) != known:
        raise CheckpointError(f"adapter_config.json has target_modules {targets}, but {where} has {sorted(known)}")
    layers_path, paths = _places(targets, base)
    shapes = {name: [tensor_named(theirs.state, f"AB_offset.{side}.{name}") for side in "AB"] for name in targets}
    num_layers, rank = shapes[targets[0]][0].shape[:2]
    if rank != theirs.lora["r"]:
        raise CheckpointError(f"adapter_config.json has r: {theirs.lora['r']}, but {where} has rank {rank}")
    return LoraSpec(
        modules=tuple(TargetModule(name, paths[name], A.shape[2], B.shape[1]) for name, (A, B) in shapes.items()),
        num_layers=num_layers,
        layers_path=layers_path,
        rank=rank,
        alpha=float(theirs.lora["lora_alpha"]),
        use_rslora=theirs.lora.get("use_rslora", False),
        dropout=theirs.lora.get("lora_dropout", 0.0),
    )


def _places(targets: list[str], base: str) -> tuple[str, dict[str, str]]:
    """Path of the list of layers, and each target's path in a layer; the base model is asked for unusual names only."""
    if set(targets) <= set(_PATHS):
        return _LAYERS_PATH, _PATHS
    from transformers import AutoConfig  # takes seconds to import

    spec = LoraSpec.from_config(AutoConfig.from_pretrained(find(base)), targets)
    return spec.layers_path, {module.name: module.path for module in spec.modules}


def _settings(theirs: UpstreamCheckpoint) -> dict[str, Any]:
    """Settings of ours for the same run, as far as generating and evaluating ask for them."""
    args, lora, state = theirs.args, theirs.lora, theirs.state
    variant = ("S" if args.get("autoreg_gen") else "M") if args.get("shared_AB_head") else "L"
    inside = theirs.folder / args["model_dir"]
    return {
        "name": theirs.folder.resolve().name,
        "base": {"path": str(inside.resolve()) if inside.is_dir() else args["model_dir"], "dtype": "bfloat16"},
        "lora": {
            "target_modules": lora["target_modules"],
            "rank": lora["r"],
            "alpha": lora["lora_alpha"],
            "use_rslora": lora.get("use_rslora", False),
            "dropout": lora.get("lora_dropout", 0.0),
        },
        "hypernet": {
            "variant": variant,
            "latent_size": tensor_named(state, "mixer.4.weight").shape[0],
            "head_input_size": tensor_named(state, "mlp3.4.weight").shape[0],
            "rank_positions": "rotary" if variant == "S" and not args.get("learnable_pos_emb") else "learned",
        },
        "encoder": _encoder(args.get("emb_model"), theirs.folder / ARGS_FILE),
        "train": {"objective": args["training_task"]},
    }


def _encoder(model: str | None, path: Path) -> dict[str, Any]:
    """Upstream's rule: no emb_model is the base LLM's last token."""
    if not model:
        return {"kinds": ["llm"]}
    if "SFR" in model:
        raise CheckpointError(
            f"{path} has emb_model: {model}, to which upstream gives descriptions in a template of its own: t2l cannot"
        )
    return {"kinds": ["sentence"], "model": model}
