"""One interface for everything that turns text into vectors: sentence-transformers, the base LLM itself, one-hot.

Axes: N texts, T tokens, D features.

An encoder is frozen. With ``pooling: sentence`` (the paper's) it gives one vector a text, T = 1, normalised × sqrt(D).
With ``pooling: tokens`` it gives its token states, which a small trained reader (t2l/hypernet/reader.py) condenses: a
pooled vector of a short sentence has already lost which word did what.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from t2l.config import EncoderConfig
from t2l.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextFeatures:
    """States of N texts, padded on the right; ``mask`` is True on real tokens."""

    states_N_T_D: Tensor
    mask_N_T: Tensor

    def __len__(self) -> int:
        return len(self.states_N_T_D)

    def select(self, index: Tensor) -> "TextFeatures":
        return TextFeatures(self.states_N_T_D[index], self.mask_N_T[index])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "TextFeatures":
        return TextFeatures(self.states_N_T_D.to(device=device, dtype=dtype), self.mask_N_T.to(device=device))

    @classmethod
    def cat(cls, parts: Sequence["TextFeatures"]) -> "TextFeatures":
        width = max(part.mask_N_T.shape[1] for part in parts)
        states = [pad(part.states_N_T_D, (0, 0, 0, width - part.mask_N_T.shape[1])) for part in parts]
        masks = [pad(part.mask_N_T, (0, width - part.mask_N_T.shape[1])) for part in parts]
        return cls(torch.cat(states), torch.cat(masks))


class TextEncoder(Protocol):
    """Frozen text -> features. Raises DescriptionError for empty or over-long texts."""

    feature_dim: int

    def encode(self, texts: Sequence[str]) -> TextFeatures: ...

    def identity(self) -> str:
        """The same for encoders that say the same: a digest of weights and settings."""
        ...

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """What sets the shape of each text's computation: its tokens, for each tokenizer that reads it."""
        ...


def encoder_digest(model: nn.Module, *settings: object) -> str:
    """Settings, and a few dozen values of every parameter: a model is told from what was trained on from it."""
    digest = hashlib.sha256(repr(settings).encode())
    for parameter in model.parameters():
        some = parameter.detach().flatten()[:: max(1, parameter.numel() // 64)].float()
        digest.update(f"{tuple(parameter.shape)} {parameter.dtype}".encode() + some.cpu().numpy().tobytes())
    return digest.hexdigest()


def batches_by_length(texts: Sequence[str], size: int) -> Iterator[list[int]]:
    """Indices of texts of like length, so that little padding is computed."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def encode_in_batches(texts: Sequence[str], size: int, encode: "EncodeBatch") -> TextFeatures:
    """Run ``encode`` over batches of like length and put the rows back in order."""
    order: list[int] = []
    parts: list[TextFeatures] = []
    for index in batches_by_length(texts, size):
        order.extend(index)
        parts.append(encode([texts[i] for i in index]))
    return TextFeatures.cat(parts).select(torch.tensor(order).argsort().to(parts[0].mask_N_T.device))


class EncodeBatch(Protocol):
    def __call__(self, texts: list[str]) -> TextFeatures: ...


def build_encoder(
    config: EncoderConfig, base: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", names: Sequence[str] = ()
) -> TextEncoder:
    """The encoder that a run's settings name; if there are `names`, one that knows these by their place alone.

    Raises ConfigError for several encoders without a reader, whose tokens nothing would condense.
    """
    from t2l.text.joint import JointEncoder
    from t2l.text.llm import LlmEncoder
    from t2l.text.one_hot import OneHotEncoder
    from t2l.text.sentence import SentenceEncoder

    if names:
        return OneHotEncoder(names)
    if len(config.kinds) > 1 and config.reader is None:
        raise ConfigError(f"encoder.kinds {list(config.kinds)} side by side need encoder.reader, which condenses them")
    pooling = "sentence" if config.reader is None else "tokens"
    makers = {
        "sentence": lambda: SentenceEncoder(config, base.device),
        "llm": lambda: LlmEncoder(base, tokenizer, pooling, config.probes, config.probe_layers),
    }
    encoders = [makers[kind]() for kind in config.kinds]
    return encoders[0] if len(encoders) == 1 else JointEncoder(encoders)
