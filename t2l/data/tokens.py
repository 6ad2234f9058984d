"""Examples as token ids, each cut to its limit. Those of finite tasks come again: they are tokenized once for all runs.

Each when it is first drawn: all of 479 tasks with thousands of examples would keep two cores busy for minutes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from t2l.config.data import DataConfig
from t2l.data.cache import ArrowCache, Caches, content_key
from t2l.data.collate import cut_left
from t2l.text.tokenizer import tokenizer_json


class Text(NamedTuple):
    """What a sample says; `comes_again` if the same prompt and answer will be drawn again and again."""

    prompt: str
    answer: str
    comes_again: bool


class Tokens(NamedTuple):
    prompt: list[int]
    answer: list[int]


class Tokenizing:
    """Called with texts, gives their tokens; without caches, anew every time."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: DataConfig, caches: Caches | None) -> None:
        self._tokenizer = tokenizer
        self._limits = config.max_prompt_tokens, config.max_response_tokens
        self._cache: ArrowCache | None = None
        if caches:
            self._cache = caches.open("tokens", tokenizer_json(tokenizer), self._limits)

    def __call__(self, texts: Sequence[Text]) -> list[Tokens]:
        if self._cache is None:
            return self._tokenize(texts)
        keys = [content_key(text.prompt, text.answer) if text.comes_again else b"" for text in texts]
        records = self._cache.find(keys)
        missing = [i for i, record in enumerate(records) if record is None]
        fresh = dict(zip(missing, self._tokenize([texts[i] for i in missing]), strict=True))
        for i, tokens in fresh.items():
            if texts[i].comes_again:
                self._cache.add(keys[i], {name: np.array(ids, np.int32) for name, ids in tokens._asdict().items()})
        return [
            fresh[i] if record is None else Tokens(record["prompt"].tolist(), record["answer"].tolist())
            for i, record in enumerate(records)
        ]

    def flush(self) -> None:
        if self._cache is not None:
            self._cache.flush()

    def _tokenize(self, texts: Sequence[Text]) -> list[Tokens]:
        if not texts:
            return []
        both = [text.prompt for text in texts] + [text.answer for text in texts]
        # verbose=False: a text longer than the model's positions is cut below, so there is nothing to warn of.
        ids: list[list[int]] = self._tokenizer(both, add_special_tokens=False, verbose=False)["input_ids"]  # type: ignore[assignment]
        prompt_limit, answer_limit = self._limits
        return [
            Tokens(cut_left(prompt, prompt_limit), cut_left(answer, answer_limit))
            for prompt, answer in zip(ids[: len(texts)], ids[len(texts) :], strict=True)
        ]
