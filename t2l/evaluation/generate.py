"""Greedy answers of a frozen base model as texts, each prompt with an adapter of its own."""

from collections.abc import Iterator, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l.errors import DataError, SpecMismatchError
from t2l.evaluation.decode import Adaptable, greedy_tokens
from t2l.lora.weights import LoraWeights

_ROWS = {"cpu": 256, "cuda": 1024}
"""Of one batch; more would not be faster."""


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
        answer_ids = greedy_tokens(base, tokenizer, [ids[row] for row in rows], mine, max_new_tokens)
        texts = tokenizer.batch_decode(answer_ids, skip_special_tokens=True)
        for row, text in zip(rows, texts, strict=True):
            answers[row] = text.strip()
    return answers


def _batches(ids: Sequence[Sequence[int]], size: int) -> Iterator[list[int]]:
    """Numbers of prompts of like length, so that little padding is computed."""
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _check_room(model: PreTrainedModel, longest: int, max_new_tokens: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and longest + max_new_tokens > limit:
        raise DataError(
            f"a prompt of {longest} tokens and an answer of up to {max_new_tokens} exceed the base model's {limit}: "
            "shorten the input or lower max_new_tokens"
        )
