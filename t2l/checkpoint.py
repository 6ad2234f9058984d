"""A trained model as a folder that others load: config.json, model.safetensors, README.md; complete or absent."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from t2l.config import RunConfig, parse_config
from t2l.errors import CheckpointError
from t2l.hypernet.text_to_lora import TextToLoraModel, build_model
from t2l.lora.peft_io import complete_or_absent
from t2l.lora.spec import LoraSpec

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"

_CARD = """---
base_model: {base}
tags: [text-to-lora, lora]
---

# Text-to-LoRA model `{name}`

Turns a description of a task into a LoRA for `{base}`: rank {rank}, modules {modules}, hypernetwork {variant}.

```python
from t2l import TextToLora

adapters = TextToLora.from_pretrained("path/to/this/folder").generate(["Sort the words, longest first."])
```
"""


def save_checkpoint(
    directory: str | os.PathLike[str],
    model: TextToLoraModel,
    config: RunConfig,
    spec: LoraSpec,
    feature_dim: int,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a model as a folder, complete or absent; `extra` goes into config.json.

    Raises CheckpointError if the folder exists.
    """
    with complete_or_absent(directory) as folder:
        write_files(folder, model, config, spec, feature_dim, extra)
    return Path(directory)


def write_files(
    folder: Path,
    model: TextToLoraModel,
    config: RunConfig,
    spec: LoraSpec,
    feature_dim: int,
    extra: dict[str, Any] | None = None,
) -> None:
    """The files of a checkpoint, into a folder that somebody else completes."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    about = {"run": config.model_dump(mode="json"), "spec": spec.to_dict(), "feature_dim": feature_dim, **(extra or {})}
    (folder / CONFIG_FILE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    card = _CARD.format(
        base=config.base.path,
        name=config.name,
        rank=spec.rank,
        modules=", ".join(spec.module_names),
        variant=config.hypernet.variant,
    )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds; `base_fingerprint` is None where whoever saved it did not say."""

    model: TextToLoraModel
    config: RunConfig
    spec: LoraSpec
    base_fingerprint: str | None


def load_checkpoint(directory: str | os.PathLike[str]) -> Checkpoint:
    """Read a folder that `save_checkpoint` wrote. Raises CheckpointError if it is incomplete or damaged."""
    folder = Path(directory)
    try:
        about = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} is no t2l checkpoint: it lacks {Path(str(error.filename)).name}") from None
    except (json.JSONDecodeError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}): copy it again") from None
    config, spec = parse_config(about["run"]), LoraSpec.from_dict(about["spec"])
    model = build_model(config, spec, about["feature_dim"])
    model.load_state_dict(state)
    return Checkpoint(model.eval(), config, spec, about.get("base_fingerprint"))
