"""Answers questions in batches, each row with an adapter of its own, and grades the answers."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import mean

from transformers import PreTrainedTokenizerBase

from t2l.config import DataConfig
from t2l.evaluation.decode import Adaptable
from t2l.evaluation.generate import greedy_texts
from t2l.evaluation.questions import Question
from t2l.evaluation.records import TaskScore
from t2l.lora.weights import LoraWeights
from t2l.text.positions import positions
from t2l.text.prompts import PromptFormat

MakeAdapters = Callable[[Sequence[str]], LoraWeights]
"""Distinct keys -> one adapter each, or a single one for all of them."""
ALWAYS = ("exact_match", "rouge_l")
"""Scorers that all tasks are graded by, besides each task's own, except those whose answers are run."""
_BATCH = 1024
ADAPTER_BYTES = 8 << 30
"""That adapters may take: 200 questions with those of Mistral-7B."""
_SPARE_TOKENS = 4


class Evaluation:
    """A frozen base model, and something that makes adapters of questions' keys (None: the base model alone).

    data: its limits on tokens cut prompts, from the left as in training, and end answers. What training prompts have
    none of, definitions and examples, may take all the room that the base has.
    """

    def __init__(
        self,
        base: Adaptable,
        tokenizer: PreTrainedTokenizerBase,
        make_adapters: MakeAdapters | None,
        data: DataConfig,
    ):
        self._base, self._tokenizer, self._make_adapters, self._data = base, tokenizer, make_adapters, data
        self._chat = PromptFormat.of(tokenizer)

    def grade(self, asked: Sequence[Question]) -> dict[str, TaskScore]:
        """Answer all questions; task -> means over its questions."""
        answers: dict[str, list[tuple[Question, str]]] = {}
        for question, answer in zip(asked, self.answer(asked), strict=True):
            answers.setdefault(question.task, []).append((question, answer))
        return {task: _score(own) for task, own in answers.items()}

    def answer(self, asked: Sequence[Question]) -> list[str]:
        """Greedy answers, in order."""
        answers: list[str] = []
        at_once = self._at_once()
        for start in range(0, len(asked), at_once):
            batch = asked[start : start + at_once]
            texts = greedy_texts(
                self._base,
                self._tokenizer,
                [self._prompt(question) for question in batch],
                self._adapters(batch),
                self._limits(batch),
                self._longest_prompt(batch),
            )
            answers += [(question.prefill + text).strip() for question, text in zip(batch, texts, strict=True)]
        return answers

    def _at_once(self) -> int:
        """Questions whose adapters are in memory together: as made, one a question, and as the base takes them."""
        spec = self._base.spec
        if spec is None or self._make_adapters is None:
            return _BATCH
        return max(1, min(_BATCH, ADAPTER_BYTES // (3 * 4 * spec.num_parameters)))

    def _prompt(self, question: Question) -> str:
        return self._chat.prompt(question.input, question.definition, question.shots) + question.prefill

    def _adapters(self, batch: Sequence[Question]) -> LoraWeights | None:
        """One adapter a question, or one for all; a key that several share is made once."""
        if self._make_adapters is None:
            return None
        keys = [question.key or "" for question in batch]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        weights = self._make_adapters(list(number))
        if len(weights) in (1, len(batch)):
            return weights
        return weights.select([number[key] for key in keys])

    def _longest_prompt(self, batch: Sequence[Question]) -> int:
        explained = any(question.definition or question.shots for question in batch)
        return sys.maxsize if explained else self._data.max_prompt_tokens

    def _limits(self, batch: Sequence[Question]) -> list[int]:
        """Tokens of each answer: what its task says, or a few more than any right one has: enough to be wrong in."""
        most = self._data.within(positions(self._base.model.config)).max_response_tokens
        wanted = (one.max_new_tokens or self._longest_right(one) + _SPARE_TOKENS for one in batch)
        return [min(number, most) for number in wanted]

    def _longest_right(self, question: Question) -> int:
        """Tokens."""
        ids: list[list[int]] = self._tokenizer([question.answer, *question.also], add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
        return max(map(len, ids))


def _score(answered: Sequence[tuple[Question, str]]) -> TaskScore:
    """Of the questions of one task. Code is run and no more: it has no reference text."""
    own = answered[0][0].metric
    if own == "pass_at_1":
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # each answer has a process, which threads wait for
            by_scorer = {own: mean(pool.map(lambda pair: pair[0].score(pair[1], own), answered))}
    else:
        scorers = dict.fromkeys((*ALWAYS, own))
        by_scorer = {name: mean(question.score(answer, name) for question, answer in answered) for name in scorers}
    return TaskScore(by_scorer[own], by_scorer, len(answered))
