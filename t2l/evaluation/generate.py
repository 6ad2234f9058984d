"""Greedy answers of a frozen base model, each prompt with an adapter of its own.

Axes: B prompts of one batch, T tokens of the longest of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l.errors import DataError, SpecMismatchError
from t2l.lora.weights import LoraWeights

_ROWS = {"cpu": 256, "cuda": 1024}
"""Of one batch; more would not be faster."""


class Adaptable(Protocol):
    """A base model that answers with adapters, as a PerRowLora does."""

    @property
    def model(self) -> PreTrainedModel: ...

    def adapters(self, weights: LoraWeights | None) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Unadapted:
    """A model that answers as it is."""

    model: PreTrainedModel

    def adapters(self, weights: LoraWeights | None) -> AbstractContextManager[None]:
        assert weights is None
        return nullcontext()


def batch_size(model: PreTrainedModel) -> int:
    """Rows that are answered at once on the model's device."""
    return _ROWS.get(model.device.type, _ROWS["cuda"])


@torch.no_grad()
def greedy_answers(
    base: Adaptable,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    weights: LoraWeights | None,
    max_new_tokens: int,
) -> list[str]:
    """What the model writes after each prompt, in the prompts' order, without special tokens and outer white space.

    prompts: whole texts, begin-of-text token included, as PromptFormat makes them.
    weights: one adapter a prompt, or one for all of them; None: the base model alone.

    Raises SpecMismatchError for another number of adapters, DataError for a prompt that leaves no room to answer.
    """
    if not prompts:
        return []
    if weights is not None and len(weights) not in (1, len(prompts)):
        raise SpecMismatchError(f"{len(weights)} adapters for {len(prompts)} prompts: give one each, or one for all")
    ids: list[list[int]] = tokenizer(list(prompts), add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
    _check_room(base.model, max(map(len, ids)), max_new_tokens)
    answers = [""] * len(prompts)
    for rows in _batches(ids, batch_size(base.model)):
        mine = weights if weights is None or len(weights) == 1 else weights.select(rows)
        with base.adapters(mine):
            answer_ids = greedy_tokens(base.model, tokenizer, [ids[row] for row in rows], max_new_tokens)
        texts = tokenizer.batch_decode(answer_ids, skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            answers[row] = text.strip()
    return answers


def _batches(ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Numbers of prompts of like length, so that little padding is computed."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def greedy_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]], max_new_tokens: int
) -> Tensor:
    """New tokens [B, <= max_new_tokens]; a row that has ended is filled up with padding."""
    width, ends = max(map(len, ids)), end_tokens(model, tokenizer)
    pad = ends[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    # Padded here, not by the tokenizer: many have no padding token, and generation wants it on the left.
    input_ids_B_T = torch.tensor([[pad] * (width - len(row)) + list(row) for row in ids])
    mask_B_T = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
    output = model.generate(  # type: ignore[operator]
        input_ids=input_ids_B_T.to(model.device),
        attention_mask=mask_B_T.to(model.device),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=pad,
        eos_token_id=ends,
    )
    return output[:, width:]


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Everything that ends an answer: the tokenizer's end token and those of the model's own generation settings."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    listed = own if isinstance(own, list) else [own]
    return [token for token in dict.fromkeys([tokenizer.eos_token_id, *listed]) if isinstance(token, int)]


def _check_room(model: PreTrainedModel, longest: int, max_new_tokens: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest + max_new_tokens > limit:
        raise DataError(
            f"a prompt of {longest} tokens and an answer of up to {max_new_tokens} exceed the base model's {limit}: "
            "shorten the input or lower max_new_tokens"
        )
