"""Greedy answers of a frozen base model as texts, each prompt with an adapter of its own."""

import sys
from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l.errors import DataError, SpecMismatchError
from t2l.evaluation.decode import Adaptable, greedy_tokens
from t2l.lora.weights import LoraWeights
from t2l.text.positions import positions

_ROWS = {"cpu": 256, "cuda": 1024}
"""Of one batch; more would not be faster."""
_TOKENS = 2**18
"""Of one batch, prompts and answers: 32 GiB of Mistral's keys and values."""


def batch_size(model: PreTrainedModel) -> int:
    """Rows that are answered at once on the model's device."""
    return _ROWS.get(model.device.type, _ROWS["cuda"])


def greedy_answers(
    base: Adaptable,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    weights: LoraWeights | None,
    max_new_tokens: int,
) -> list[str]:
    """What ``greedy_texts`` gives, without outer white space."""
    return [text.strip() for text in greedy_texts(base, tokenizer, prompts, weights, max_new_tokens)]


def greedy_texts(
    base: Adaptable,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    weights: LoraWeights | None,
    max_new_tokens: int | Sequence[int],
    max_prompt_tokens: int | None = None,
) -> list[str]:
    """What the model writes after each prompt, in the prompts' order, without special tokens.

    prompts: whole texts, begin-of-text token included, as PromptFormat makes them.
    weights: one adapter a prompt, or one for all of them; None: the base model alone.
    max_new_tokens: of all answers, or of each.
    max_prompt_tokens: of longer prompts, and of those that leave no room to answer, the end is kept.

    Raises SpecMismatchError for another number of adapters, DataError for a prompt that leaves no room to answer
    and may not be cut.
    """
    if not prompts:
        return []
    if weights is not None and len(weights) not in (1, len(prompts)):
        raise SpecMismatchError(f"{len(weights)} adapters for {len(prompts)} prompts: give one each, or one for all")
    # verbose=False: of what is too long we say more ourselves.
    ids: list[list[int]] = tokenizer(list(prompts), add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[assignment]
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    ids = [
        _with_room(row, prompt_room(base.model, limit), limit, max_prompt_tokens)
        for row, limit in zip(ids, limits, strict=True)
    ]
    answers = [""] * len(prompts)
    for rows in batches(ids, batch_size(base.model), max(limits)):
        mine = weights if weights is None or len(weights) == 1 else weights.select(rows)
        answer_ids = greedy_tokens(base, tokenizer, [ids[row] for row in rows], mine, [limits[row] for row in rows])
        texts = tokenizer.batch_decode(answer_ids, skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            answers[row] = text
    return answers


def _with_room(ids: list[int], room: int, max_new_tokens: int, max_prompt_tokens: int | None) -> list[int]:
    """A prompt, cut where that is allowed."""
    if max_prompt_tokens is not None and room > 0:
        ids = ids[-min(max_prompt_tokens, room) :]
    if len(ids) > room:
        raise DataError(
            f"a prompt of {len(ids)} tokens and an answer of up to {max_new_tokens} exceed the base model's "
            f"{room + max_new_tokens}: shorten the input or lower max_new_tokens"
        )
    return ids


def batches(ids: Sequence[Sequence[int]], size: int, max_new_tokens: int) -> Iterator[list[int]]:
    """Numbers of prompts of like length, so that little padding is computed; fewer where they are long."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    start = 0
    while start < len(order):
        widest = len(ids[order[min(start + size, len(order)) - 1]]) + max_new_tokens
        number = min(size, max(1, _TOKENS // widest))
        yield order[start : start + number]
        start += number


def prompt_room(model: PreTrainedModel, max_new_tokens: int) -> int:
    """Tokens of a prompt that the model's positions leave room for."""
    longest = positions(model.config)
    return sys.maxsize if longest is None else longest - max_new_tokens
