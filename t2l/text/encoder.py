"""One interface for everything that turns text into vectors: sentence-transformers, the base LLM itself, one-hot.

Axes: N texts, T tokens, D features.

An encoder is frozen. With ``pooling: sentence`` (the paper's) it gives one vector a text, T = 1, normalised × sqrt(D).
With ``pooling: tokens`` it gives its token states, which a small trained reader (t2l/hypernet/reader.py) condenses: a
pooled vector of a short sentence has already lost which word did what.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from t2l.config import EncoderConfig
from t2l.errors import ConfigError, DescriptionError
from t2l.text.normalize import clean_descriptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_BATCH = 128


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
        """The same for encoders that say the same: a digest of weights, settings and tokenizer."""
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


class TokenEncoder(TextEncoder, ABC):
    """One that reads words. What its device does is apart, in `read`: of one shape, it can be recorded."""

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @property
    @abstractmethod
    def limits(self) -> tuple[int, ...]:
        """Tokens of a text that are read, for each tokenizer; what is beyond is cut off."""

    def check_whole(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Their `token_counts`. Raises DescriptionError for a text of which something would be cut off."""
        every = self.token_counts(texts)
        for count, limit in (pair for counts in every for pair in zip(counts, self.limits, strict=True)):
            if count > limit:
                raise DescriptionError(
                    f"a description has {count} tokens, of which the text encoder reads {limit}: shorten it"
                )
        return every

    @abstractmethod
    def tokenize(self, texts: Sequence[str], multiple: int = 1) -> "Tokens":
        """One batch of clean texts, on the CPU, as wide as its longest, rounded up to a multiple."""

    @abstractmethod
    def read(self, tokens: "Tokens") -> TextFeatures:
        """Features of one batch, fp32, from tokens on the device."""

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> TextFeatures:
        texts, order = clean_descriptions(texts), []
        parts: list[TextFeatures] = []
        for batch in batches_by_length(texts, _BATCH):
            order += batch
            tokens = self.tokenize([texts[i] for i in batch])
            parts.append(self.read({name: tensor.to(self.device) for name, tensor in tokens.items()}))
        return TextFeatures.cat(parts).select(torch.tensor(order).argsort().to(self.device))


Tokens = Mapping[str, Tensor]
"""What an encoder reads of a batch, by the encoder's own names."""


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
