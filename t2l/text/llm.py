"""The frozen base LLM as text encoder: what it makes of a description that it reads as a prompt.

Axes: N texts, D tokens of the longest description, P tokens of all probes, T = D + P, H hidden, F features.

Two ways. ``sentence`` is the paper's: the state of the description's last token. ``tokens`` reads *probes*: a few
inputs that follow the description as a user's input would. The model's states there say what it is about to do with
them, nearly the same for every wording of one task: what the base can do when prompted, it can tell us here.
"""

import sys
from collections.abc import Sequence
from itertools import chain
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l.errors import ConfigError
from t2l.text.encoder import TextFeatures, TokenEncoder, Tokens, encoder_digest
from t2l.text.normalize import clean_descriptions, scaled_unit
from t2l.text.positions import positions
from t2l.text.prompts import PromptFormat
from t2l.text.tokenizer import tokenizer_json


class LlmEncoder(TokenEncoder):
    """States of a causal LM after a description.

    In ``tokens`` mode a probe token's features are its states after the last ``num_layers`` layers, each scaled to unit
    RMS, side by side. All probes are read in one forward pass: each attends to the description and to itself alone, at
    the positions it would have if it stood there alone.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pooling: Literal["sentence", "tokens"],
        probes: Sequence[str] = (),
        num_layers: int = 2,
    ):
        if pooling == "tokens" and not probes:
            raise ConfigError(
                "encoder.probes is empty: give a few inputs for the base model to read after a description"
            )
        self._model, self._tokenizer, self._pooling, self._num_layers = model, tokenizer, pooling, num_layers
        self.feature_dim: int = model.config.get_text_config().hidden_size * (num_layers if pooling == "tokens" else 1)
        chat = PromptFormat.of(tokenizer)
        self._opening = chat.opening
        self._probes = [self._ids(f"\n\n{probe}{chat.user_to_assistant}") for probe in probes]
        room = positions(model.config)
        read_after = max(map(len, self._probes)) if pooling == "tokens" else 0
        self._limit = sys.maxsize if room is None else room - read_after
        if self._limit < 1:
            raise ConfigError(
                f"a probe has {read_after} tokens, of which the base model has {room} positions: shorten encoder.probes"
            )
        self._probe_ids_P = torch.tensor(list(chain(*self._probes)), dtype=torch.long, device=model.device)

    def identity(self) -> str:
        settings = self._pooling, self._opening, self._probes, self._num_layers, tokenizer_json(self._tokenizer)
        return encoder_digest(self._model, *settings)

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(len(row),) for row in self._rows(clean_descriptions(texts))]

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        if self._pooling == "tokens":
            return [self._ids(self._opening + text) for text in texts]
        # With the special tokens that the tokenizer puts around a text, as upstream.
        return self._tokenizer(list(texts), verbose=False)["input_ids"]  # type: ignore[return-value]

    def _ids(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[return-value]

    @property
    def limits(self) -> tuple[int, ...]:
        return (self._limit,)

    @property
    def device(self) -> torch.device:
        return self._model.device

    def tokenize(self, texts: Sequence[str], multiple: int = 1) -> Tokens:
        """Padded here, not by the tokenizer: many have no padding token. Probes follow on the right, so there it is on
        the left; nothing looks at it in either place."""
        rows = [row[: self._limit] for row in self._rows(texts)]
        width = -(-max(map(len, rows)) // multiple) * multiple
        ids_N_T = torch.zeros(len(rows), width, dtype=torch.long)
        for ids_T, row in zip(ids_N_T, rows, strict=True):
            start = width - len(row) if self._pooling == "tokens" else 0
            ids_T[start : start + len(row)] = torch.tensor(row)
        return {"ids": ids_N_T, "lengths": torch.tensor([len(row) for row in rows])}

    @torch.inference_mode()
    def read(self, tokens: Tokens) -> TextFeatures:
        """States [N, P, num_layers * H] (tokens) or [N, 1, H] (sentence)."""
        read = self._read_last_token if self._pooling == "sentence" else self._read_probes
        training = self._model.training  # as it is between the steps of a run
        if training:  # else it would go through all modules for nothing
            self._model.eval()
        try:
            return read(tokens["ids"], tokens["lengths"])
        finally:
            if training:
                self._model.train()

    def _read_last_token(self, ids_N_T: Tensor, lengths_N: Tensor) -> TextFeatures:
        states_N_T_H = self._model.base_model(input_ids=ids_N_T, use_cache=False)[0]
        vectors = scaled_unit(states_N_T_H[torch.arange(len(ids_N_T), device=ids_N_T.device), lengths_N - 1])
        return TextFeatures(vectors[:, None], torch.ones_like(lengths_N, dtype=torch.bool)[:, None])

    def _read_probes(self, ids_N_D: Tensor, lengths_N: Tensor) -> TextFeatures:
        width, probe_lengths = ids_N_D.shape[1], [len(probe) for probe in self._probes]
        ids_N_T = torch.cat([ids_N_D, self._probe_ids_P.to(ids_N_D.device).expand(len(ids_N_D), -1)], dim=1)
        places_N_T = _positions(lengths_N, width, probe_lengths)
        allowed_N_T_T = _attention(lengths_N, width, probe_lengths)
        bias = torch.zeros(allowed_N_T_T.shape, dtype=self._model.dtype, device=ids_N_T.device)
        bias.masked_fill_(~allowed_N_T_T, torch.finfo(bias.dtype).min)
        states = self._model.base_model(
            input_ids=ids_N_T,
            position_ids=places_N_T,
            attention_mask=bias[:, None],
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states[-self._num_layers :]
        features = torch.cat([scaled_unit(layer[:, width:]) for layer in states], dim=-1)
        return TextFeatures(features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device))


def _positions(lengths_N: Tensor, width: int, probe_lengths: Sequence[int]) -> Tensor:
    """Position of each column: a description from 0 on, every probe from the description's end on. [N, T]"""
    device = lengths_N.device
    described = (torch.arange(width, device=device) - (width - lengths_N)[:, None]).clamp(min=0)
    within = torch.cat([torch.arange(length, device=device) for length in probe_lengths])
    return torch.cat([described, lengths_N[:, None] + within], dim=1)


def _attention(lengths_N: Tensor, width: int, probe_lengths: Sequence[int]) -> Tensor:
    """Who sees whom, [N, T, T]: causal, no padding, and no probe sees another. Padding sees itself, to stay finite."""
    device = lengths_N.device
    block_T = torch.cat(
        [torch.full((length,), number, device=device) for number, length in enumerate([width, *probe_lengths])]
    )
    columns_T = torch.arange(len(block_T), device=device)
    causal_T_T = columns_T[:, None] >= columns_T
    related_T_T = (block_T[:, None] == block_T) | (block_T == 0)
    real_N_T = columns_T >= (width - lengths_N)[:, None]
    itself_T_T = torch.eye(len(block_T), dtype=torch.bool, device=device)
    return (causal_T_T & related_T_T)[None] & real_N_T[:, None, :] | itself_T_T
