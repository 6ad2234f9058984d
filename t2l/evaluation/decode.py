"""Greedy decoding of one batch of prompts, whose rows leave it when they end.

Axes: B prompts, R rows that are still in the batch, T tokens.

transformers' `generate` carries every row on until the longest has ended. Answers differ much in length, so that would
be half of the work. What a model's generation settings would change (repetition penalties, say) is left out: greedy.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.text.prompts import PromptFormat

_ENDED_SHARE = 0.25
"""Ended rows are dropped when they are so many: dropping copies the cache and the adapters of the others."""


class Adaptable(Protocol):
    """A base model that answers with adapters, as a PerRowLora does."""

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def spec(self) -> LoraSpec | None:
        """Of its adapters."""
        ...

    def adapters(self, weights: LoraWeights | None) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Unadapted:
    """A model that answers as it is."""

    model: PreTrainedModel
    spec: None = None

    def adapters(self, weights: LoraWeights | None) -> AbstractContextManager[None]:
        assert weights is None
        return nullcontext()


@torch.no_grad()
def greedy_tokens(
    base: Adaptable,
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[Sequence[int]],
    weights: LoraWeights | None,
    limits: Sequence[int],
) -> list[list[int]]:
    """New tokens of each prompt, up to its end token and with it, or to its own limit, whatever the others do.

    weights: one adapter a prompt, or one for all.
    """
    ends = end_tokens(base.model, tokenizer)
    rows = _Rows(ids, ends, limits, base.model.device)
    new_B_T = torch.full((len(ids), max(limits)), ends[0], device=base.model.device)
    while len(rows):
        with base.adapters(weights):
            rows.advance(base.model, new_B_T)
        kept_R = rows.drop_ended()
        if weights is not None and len(weights) > 1:
            weights = weights.select(kept_R)
    return [_up_to_end(row[:limit], ends) for row, limit in zip(new_B_T.tolist(), limits, strict=True)]


class _Rows:
    """The rows in the batch: which prompts they answer, and what the model needs to go on with them."""

    def __init__(
        self, ids: Sequence[Sequence[int]], ends: Sequence[int], limits: Sequence[int], device: torch.device
    ) -> None:
        width = max(map(len, ids))
        # Padded here, not by the tokenizer: many have no padding token, and generation wants it on the left.
        self._input_R_T = torch.tensor([[ends[0]] * (width - len(row)) + list(row) for row in ids], device=device)
        self._mask_R_T = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
        self._positions_R_T = (self._mask_R_T.cumsum(1) - 1).clamp(min=0)
        self._numbers_R = torch.arange(len(ids), device=device)
        self._ended_R = torch.zeros(len(ids), dtype=torch.bool, device=device)
        self._limit_R = torch.tensor(limits, device=device)
        self._ends = torch.tensor(ends, device=device)
        self._cache: DynamicCache | None = None
        self._written = 0

    def __len__(self) -> int:
        return len(self._numbers_R)

    def advance(self, model: PreTrainedModel, new_B_T: Tensor) -> None:
        """Write tokens, one a row and step, until dropping the rows that have ended pays."""
        while True:
            token_R = self._next(model)
            new_B_T[self._numbers_R, self._written] = token_R
            self._written += 1
            self._ended_R |= torch.isin(token_R, self._ends) | (self._limit_R <= self._written)
            if self._written == new_B_T.shape[1] or int(self._ended_R.sum()) >= _ENDED_SHARE * len(self):
                return

    def _next(self, model: PreTrainedModel) -> Tensor:
        if self._cache is None:
            self._cache = DynamicCache(config=model.config)
        output = model(
            input_ids=self._input_R_T,
            attention_mask=self._mask_R_T,
            position_ids=self._positions_R_T,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        token_R = output.logits[:, -1].argmax(-1)
        self._input_R_T = token_R[:, None]
        self._mask_R_T = torch.cat([self._mask_R_T, self._mask_R_T.new_ones(len(self), 1)], dim=1)
        self._positions_R_T = self._positions_R_T[:, -1:] + 1
        return token_R

    def drop_ended(self) -> Tensor:
        """Places [R] of the rows that stay."""
        kept_R = (~self._ended_R).nonzero().flatten()
        for name in ("_input_R_T", "_mask_R_T", "_positions_R_T", "_numbers_R", "_limit_R", "_ended_R"):
            setattr(self, name, getattr(self, name)[kept_R])
        if self._cache is not None and len(kept_R):
            self._cache.batch_select_indices(kept_R)
        return kept_R


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """All that ends an answer: what ends one in a chat, the end token, those of the model's generation settings."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    listed = own if isinstance(own, list) else [own]
    marker = tokenizer.convert_tokens_to_ids(PromptFormat.of(tokenizer).answer_end)
    return [token for token in dict.fromkeys([marker, tokenizer.eos_token_id, *listed]) if isinstance(token, int)]


def _up_to_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """Tokens behind the first end token, written while a row waited to be dropped, are none of the answer."""
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: end + 1]
