"""LoraWeights <-> PEFT adapter folder: adapter_config.json, adapter_model.safetensors and a README.md card.

The folder is what `peft.PeftModel.from_pretrained`, vLLM and SGLang read. The files are written and read here
rather than through peft: it keeps target modules in a set, whose order changes from process to process.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from t2l.errors import CheckpointError
from t2l.files import complete_folder
from t2l.lora.spec import LoraSpec, TargetModule
from t2l.lora.weights import PEFT_PREFIX, LoraWeights

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"

# Settings that say what plain LoRA is, or that change nothing once the adapter is trained. Any other setting,
# also one that a later PEFT adds, is refused unless it is off.
_UNDERSTOOD = {
    *("peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules"),
    *("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "inference_mode"),
    *("runtime_config", "init_lora_weights", "eva_config", "megatron_core", "qalora_group_size"),
    *("exclude_modules",),
}
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) also change the base weights.
_PLAIN_INITS = (True, False, "gaussian", "eva", "orthogonal")
_KEY = re.compile(PEFT_PREFIX + r"(?P<layers>.+?)\.(?P<layer>\d+)\.(?P<path>.+)\.lora_[AB]\.weight")

_CARD = """---
base_model: {base_model}
library_name: peft
pipeline_tag: text-generation
tags: [lora, text-to-lora]
---

# LoRA adapter

{origin}

| base model | rank | alpha | scaling | target modules | parameters |
|---|---|---|---|---|---|
| {base_name} | {rank} | {alpha:g} | {scaling:.4g} | {modules} | {parameters:,} |

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({base_model})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```
"""


def save_peft(
    weights: LoraWeights,
    index: int,
    directory: str | os.PathLike[str],
    base_model_name: str,
    description: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write adapter `index` as a PEFT folder and return its path; the folder is complete or absent.

    description: the task text it was generated from, for the card. Raises CheckpointError if the folder
    exists and `overwrite` is False.
    """
    write_folder(directory, peft_files(weights, index, base_model_name, description), overwrite)
    return Path(directory)


def peft_files(
    weights: LoraWeights, index: int, base_model_name: str, description: str | None = None
) -> dict[str, bytes]:
    """The files of adapter `index`'s PEFT folder, by name."""
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.state_dict(index).items()}
    return {
        WEIGHTS_FILE: save(state, metadata={"format": "pt"}),
        CONFIG_FILE: f"{json.dumps(_config(weights.spec, base_model_name), indent=2)}\n".encode(),
        CARD_FILE: _card(weights.spec, base_model_name, description).encode(),
    }


def write_folder(directory: str | os.PathLike[str], files: Mapping[str, bytes], overwrite: bool = False) -> None:
    """Write a folder of these files, complete or absent. Raises CheckpointError as `complete_folder` does."""
    with complete_folder(directory, overwrite) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)


def load_peft(directory: str | os.PathLike[str], hf_config: "PretrainedConfig | None" = None) -> LoraWeights:
    """Read a PEFT folder as one adapter (n = 1), in the dtype of the file.

    The order of modules is that of `target_modules` in its config, or of names if that is a pattern. Folders
    saved by PEFT itself have an arbitrary order: follow with `in_order_of(spec)` where the order matters.
    hf_config: the base model's config; if given, modules and shapes are checked against it.

    Raises CheckpointError for an incomplete folder or one that uses more than plain LoRA (naming the
    feature), and SpecMismatchError (naming both sides) if it does not fit the base model.
    """
    folder = Path(directory)
    config = read_config(folder)
    state = _read_state(folder)
    spec = _spec(config, state, folder)
    if hf_config is not None:
        paths = [module.path for module in spec.modules]
        base = LoraSpec.from_config(hf_config, paths, spec.rank, spec.alpha, spec.use_rslora)
        spec.check_matches(base, f"the adapter {folder}", f"the base model ({hf_config.model_type})")
    return LoraWeights.from_state_dict(spec, state)


def _config(spec: LoraSpec, base_model_name: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_name,
        "r": spec.rank,
        "lora_alpha": int(spec.alpha) if spec.alpha == int(spec.alpha) else spec.alpha,
        "lora_dropout": spec.dropout,
        "use_rslora": spec.use_rslora,
        "target_modules": list(spec.module_names),
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _card(spec: LoraSpec, base_model_name: str, description: str | None) -> str:
    origin = "Made by t2l."
    if description is not None:
        quote = "\n".join(f"> {line}" for line in description.strip().splitlines())
        origin = f"Generated by t2l from this description:\n\n{quote}"
    return _CARD.format(
        base_model=json.dumps(base_model_name),
        base_name=base_model_name,
        origin=origin,
        rank=spec.rank,
        alpha=spec.alpha,
        scaling=spec.scaling,
        modules=", ".join(spec.module_names),
        parameters=spec.num_parameters,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """A PEFT folder's settings. Raises CheckpointError if they ask for more than plain LoRA, naming the feature."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no PEFT folder: it has no {CONFIG_FILE}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} is no valid JSON: {error}") from None
    if missing := {"r", "lora_alpha", "target_modules"} - set(config):
        raise CheckpointError(f"{folder / CONFIG_FILE} lacks {sorted(missing)}")
    _refuse_unsupported(config, folder)
    return config


def _refuse_unsupported(config: Mapping[str, Any], folder: Path) -> None:
    unsupported = {key: value for key, value in config.items() if key not in _UNDERSTOOD and value and value != "none"}
    if config.get("peft_type", "LORA") != "LORA":
        unsupported["peft_type"] = config["peft_type"]
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        unsupported["task_type"] = config["task_type"]
    if config.get("init_lora_weights", True) not in _PLAIN_INITS:
        unsupported["init_lora_weights"] = config["init_lora_weights"]
    if unsupported:
        features = ", ".join(f"{key}={value!r}" for key, value in sorted(unsupported.items()))
        raise CheckpointError(f"{folder} uses {features}: t2l reads plain LoRA adapters of causal LMs only")


def _read_state(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.exists():
        raise CheckpointError(f"{folder} has no {WEIGHTS_FILE} (pickled adapter_model.bin files are not read)")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def _spec(config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> LoraSpec:
    """Modules, layers and shapes as the tensors' names and shapes tell them."""
    layers_paths, layers, paths = set[str](), set[int](), dict[str, None]()
    for key in sorted(state):
        match = _KEY.fullmatch(key)
        if match is None:
            raise CheckpointError(f"{folder} holds {key!r}: t2l reads plain LoRA of linear layers only")
        layers_paths.add(match["layers"])
        layers.add(int(match["layer"]))
        paths[match["path"]] = None
    if len(layers_paths) != 1:
        raise CheckpointError(f"{folder} has adapters in {sorted(layers_paths)}: t2l reads one stack of layers")
    layers_path = layers_paths.pop()
    if layers != set(range(len(layers))):
        raise CheckpointError(f"{folder} has adapters in layers {sorted(layers)} only: t2l reads those in all layers")
    modules = [_module(path, f"{PEFT_PREFIX}{layers_path}.0.{path}", state) for path in paths]
    return LoraSpec(
        modules=tuple(_ordered(modules, config["target_modules"])),
        num_layers=len(layers),
        layers_path=layers_path,
        rank=config["r"],
        alpha=float(config["lora_alpha"]),
        use_rslora=config.get("use_rslora", False),
        dropout=config.get("lora_dropout", 0.0),
    )


def _module(path: str, prefix: str, state: Mapping[str, Tensor]) -> TargetModule:
    A_key, B_key = f"{prefix}.lora_A.weight", f"{prefix}.lora_B.weight"
    if A_key not in state or B_key not in state:
        raise CheckpointError(f"the adapter lacks one of {A_key!r} and {B_key!r}")
    return TargetModule(path.rpartition(".")[2], path, state[A_key].shape[1], state[B_key].shape[0])


def _ordered(modules: list[TargetModule], targets: list[str] | str) -> list[TargetModule]:
    """Modules in the order of the config's list; in order of names if the config has a pattern."""
    if isinstance(targets, str):
        return modules

    def position(module: TargetModule) -> int:
        places = [place for place, target in enumerate(targets) if _names(target, module.path)]
        if not places:
            raise CheckpointError(f"the adapter holds {module.path!r}, which target_modules {targets} does not name")
        return places[0]

    return sorted(modules, key=position)


def _names(target: str, path: str) -> bool:
    """Whether a PEFT target, short ("q_proj") or full ("layers.0.self_attn.q_proj"), means this path in a layer."""
    return f".{path}".endswith(f".{target}") or target.endswith(f".{path}")
