"""Runs conditions over splits: batches of questions with one adapter a row, scored and summed up."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from transformers import PreTrainedTokenizerBase

from t2l.evaluation.conditions import Question, questions
from t2l.evaluation.generate import greedy_answers
from t2l.evaluation.scorers import exact_match, rouge_l
from t2l.lora.apply import PerRowLora
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.text.prompts import PromptFormat

MakeAdapters = Callable[[Sequence[str]], LoraWeights]
OnProgress = Callable[[str, str], None]
"""Called with split and condition before each of them."""
_BATCH = 1024
_SPARE_TOKENS = 4


@dataclass(frozen=True)
class Score:
    """Means over the questions of one split under one condition; ``by_task`` are exact matches."""

    exact_match: float
    rouge_l: float
    num_questions: int
    by_task: dict[str, float]

    @property
    def margin(self) -> float:
        """Half the width of a 95 % interval of the exact match, tasks taken as the independent units."""
        scores = list(self.by_task.values())
        if len(scores) < 2:
            return float("nan")
        variance = sum((score - mean(scores)) ** 2 for score in scores) / (len(scores) - 1)
        return 1.96 * (variance / len(scores)) ** 0.5


class Evaluation:
    """A frozen base model, and something that makes adapters of descriptions."""

    def __init__(self, base: PerRowLora, tokenizer: PreTrainedTokenizerBase, make_adapters: MakeAdapters):
        self._base, self._tokenizer, self._make_adapters = base, tokenizer, make_adapters
        self._chat = PromptFormat.of(tokenizer)

    def run(
        self,
        splits: Mapping[str, Sequence[Task]],
        conditions: Sequence[str],
        inputs_per_task: int,
        on_progress: OnProgress = lambda split, condition: None,
    ) -> dict[str, dict[str, Score]]:
        """split -> condition -> score."""
        results: dict[str, dict[str, Score]] = {}
        for split, tasks in splits.items():
            results[split] = {}
            for condition in conditions:
                on_progress(split, condition)
                results[split][condition] = self.score(questions(condition, tasks, inputs_per_task))
        return results

    def score(self, asked: Sequence[Question]) -> Score:
        """Answer all questions and score them."""
        answers = self.answer(asked)
        matches: defaultdict[str, list[float]] = defaultdict(list)
        for question, answer in zip(asked, answers, strict=True):
            matches[question.task].append(exact_match(answer, question.answer))
        return Score(
            exact_match=mean(match for task in matches.values() for match in task),
            rouge_l=mean(rouge_l(answer, question.answer) for answer, question in zip(answers, asked, strict=True)),
            num_questions=len(asked),
            by_task={task: mean(found) for task, found in matches.items()},
        )

    def answer(self, asked: Sequence[Question]) -> list[str]:
        """Greedy answers, in order; each row of a batch has the adapter of its own description."""
        answers: list[str] = []
        for start in range(0, len(asked), _BATCH):
            batch = asked[start : start + _BATCH]
            prompts = [self._chat.prompt(question.input, question.definition) for question in batch]
            answers += greedy_answers(self._base, self._tokenizer, prompts, self._adapters(batch), self._longest(batch))
        return answers

    def _adapters(self, batch: Sequence[Question]) -> LoraWeights | None:
        descriptions = [question.description for question in batch]
        if descriptions[0] is None:
            return None
        distinct = list(dict.fromkeys(text for text in descriptions if text is not None))
        number = {text: i for i, text in enumerate(distinct)}
        weights = self._make_adapters(distinct)
        return (
            weights if len(distinct) == len(batch) else weights.select([number[text] for text in descriptions if text])
        )

    def _longest(self, batch: Sequence[Question]) -> int:
        """A few tokens more than the longest right answer: enough to be wrong in."""
        ids = self._tokenizer([question.answer for question in batch], add_special_tokens=False)["input_ids"]
        return max(map(len, ids)) + _SPARE_TOKENS  # type: ignore[arg-type]
