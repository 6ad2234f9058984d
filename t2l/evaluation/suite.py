"""Answers questions in batches, each row with an adapter of its own, and grades the answers."""

from collections.abc import Callable, Sequence
from statistics import mean

from transformers import PreTrainedTokenizerBase

from t2l.evaluation.decode import Adaptable
from t2l.evaluation.generate import greedy_answers
from t2l.evaluation.questions import Question
from t2l.evaluation.records import TaskScore
from t2l.evaluation.scorers import SCORERS
from t2l.lora.weights import LoraWeights
from t2l.text.prompts import PromptFormat

MakeAdapters = Callable[[Sequence[str]], LoraWeights]
"""Distinct keys -> one adapter each, or a single one for all of them."""
ALWAYS = ("exact_match", "rouge_l")
"""Scorers that all tasks are graded by, besides each task's own."""
_BATCH = 1024
_SPARE_TOKENS = 4


class Evaluation:
    """A frozen base model, and something that makes adapters of questions' keys (None: the base model alone)."""

    def __init__(self, base: Adaptable, tokenizer: PreTrainedTokenizerBase, make_adapters: MakeAdapters | None):
        self._base, self._tokenizer, self._make_adapters = base, tokenizer, make_adapters
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
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            prompts = [self._chat.prompt(question.input, question.definition, question.shots) for question in batch]
            answers += greedy_answers(self._base, self._tokenizer, prompts, self._adapters(batch), self._longest(batch))
        return answers

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

    def _longest(self, batch: Sequence[Question]) -> int:
        """A few tokens more than the longest right answer: enough to be wrong in."""
        ids = self._tokenizer([question.answer for question in batch], add_special_tokens=False)["input_ids"]
        return max(map(len, ids)) + _SPARE_TOKENS  # type: ignore[arg-type]


def _score(answered: Sequence[tuple[Question, str]]) -> TaskScore:
    """Of the questions of one task."""
    own = answered[0][0].metric
    by_scorer = {
        name: mean(SCORERS[name](answer, question.answer) for question, answer in answered)
        for name in dict.fromkeys((*ALWAYS, own))
    }
    return TaskScore(by_scorer[own], by_scorer, len(answered))
