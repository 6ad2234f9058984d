"""A trained model as a folder that others load: config.json, model.safetensors, README.md; complete or absent."""

import hashlib
import json
import os
import textwrap
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from t2l.config import RunConfig, parse_config
from t2l.errors import CheckpointError
from t2l.files import complete_folder
from t2l.hypernet.text_to_lora import TextToLoraModel, build_model
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
    with complete_folder(directory) as folder:
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
class CheckpointInfo:
    """What config.json says; `base_fingerprint` is None where whoever saved the checkpoint did not say.

    names: what a model knows that reads no texts (t2l/text/conditioning.py); else empty.
    """

    config: RunConfig
    spec: LoraSpec
    feature_dim: int
    base_fingerprint: str | None
    names: tuple[str, ...]

    @cached_property
    def num_parameters(self) -> int:
        """All that are trained: of reader and hypernetwork."""
        with torch.device("meta"):
            model = build_model(self.config, self.spec, self.feature_dim)
        return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True)
class Checkpoint(CheckpointInfo):
    """What a checkpoint folder holds, with the model."""

    model: TextToLoraModel


def read_info(directory: str | os.PathLike[str]) -> CheckpointInfo:
    """Everything but the weights. Raises CheckpointError if the folder is incomplete, damaged or something else."""
    path = Path(directory) / CONFIG_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        of_a_run = Path(directory, "checkpoints").is_dir()
        hint = "; it is a run's folder: give one of those in its checkpoints/" if of_a_run else ""
        raise CheckpointError(f"{directory} is no t2l checkpoint: it lacks {CONFIG_FILE}{hint}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{directory} is damaged ({error}): copy it again") from None
    if not isinstance(about, dict) or "spec" not in about:
        raise CheckpointError(f"{directory} is no t2l checkpoint: its {CONFIG_FILE} describes something else")
    if missing := {"run", "feature_dim"} - set(about):
        raise CheckpointError(f"{directory} is damaged ({CONFIG_FILE} lacks {sorted(missing)}): copy it again")
    spec = LoraSpec.from_dict(about["spec"])
    return CheckpointInfo(
        config=parse_config(about["run"]),
        spec=spec,
        feature_dim=about["feature_dim"],
        base_fingerprint=about.get("base_fingerprint"),
        names=tuple(about.get("names", ())),
    )


def weights_sha256(directory: str | os.PathLike[str]) -> str:
    """Hash of the trained weights, which tells checkpoints apart. Raises CheckpointError if they are not there."""
    try:
        with (Path(directory) / WEIGHTS_FILE).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise CheckpointError(f"{directory} is no t2l checkpoint: it lacks {WEIGHTS_FILE}") from None


def load_checkpoint(directory: str | os.PathLike[str]) -> Checkpoint:
    """Read a folder that `save_checkpoint` wrote. Raises CheckpointError if it is incomplete or damaged."""
    folder = Path(directory)
    info = read_info(folder)
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no t2l checkpoint: it lacks {WEIGHTS_FILE}") from None
    except SafetensorError as error:
        raise CheckpointError(f"{folder} is damaged ({error}): copy it again") from None
    model = build_model(info.config, info.spec, info.feature_dim)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise CheckpointError(f"{folder} holds weights of another model ({reason}): copy it again") from None
    known = {field.name: getattr(info, field.name) for field in fields(info)}
    return Checkpoint(**known, model=model.eval())
