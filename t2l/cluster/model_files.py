"""The part of a checkpoint that others load: the trained weights as a TextToLoraModel's own files."""

from pathlib import Path
from typing import Any

from t2l.checkpoint import write_files
from t2l.config import RunConfig
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.spec import LoraSpec
from t2l.train.engine import MODEL
from t2l.train.state import State

_INNER = MODEL + "model."


class ModelWriter:
    """Writes config.json, model.safetensors and README.md from a training state, which is whole at any ZeRO stage.

    `about` goes into config.json: what `read_info` wants to know besides.
    """

    def __init__(self, config: RunConfig, spec: LoraSpec, feature_dim: int, about: dict[str, Any]) -> None:
        self._config, self._spec, self._feature_dim = config, spec, feature_dim
        self._about = about
        self._model = build_model(config, spec, feature_dim)

    def __call__(self, folder: Path, state: State, step: int) -> None:
        self._model.load_state_dict({k[len(_INNER) :]: v for k, v in state.items() if k.startswith(_INNER)})
        about = {**self._about, "step": step}
        write_files(folder, self._model, self._config, self._spec, self._feature_dim, about)
