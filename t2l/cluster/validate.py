"""Validation during training: exact match on held-out tasks of the training family, shared out over the workers."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from t2l.evaluation.conditions import questions
from t2l.evaluation.generate import greedy_answers
from t2l.evaluation.scorers import exact_match
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.text.encoder import TextEncoder
from t2l.text.prompts import PromptFormat
from t2l.train.engine import Engine
from t2l.train.loop import SCORE

_BATCH = 256
_SPARE_TOKENS = 4


class Validator:
    """Called with a step, gives {"exact_match": share of right answers}; {} if there are no tasks.

    Descriptions in training wording: unseen wording is for the final report alone. Every worker makes the adapters of
    all questions, as ZeRO 3 needs all workers in every forward pass, then answers its share; they agree on the sum.
    """

    def __init__(
        self,
        engine: Engine,
        encoder: TextEncoder,
        tokenizer: PreTrainedTokenizerBase,
        tasks: Sequence[Task],
        inputs_per_task: int,
    ) -> None:
        self._engine, self._tokenizer = engine, tokenizer
        self._asked = questions("t2l_seen", tasks, inputs_per_task)
        chat = PromptFormat.of(tokenizer)
        self._prompts = [chat.prompt(question.input) for question in self._asked]
        answers = [question.answer for question in self._asked]
        if answers:
            self._features = encoder.encode([str(question.description) for question in self._asked])
            ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
            self._longest = max(map(len, ids)) + _SPARE_TOKENS  # type: ignore[arg-type]

    @torch.no_grad()
    def __call__(self, step: int) -> dict[str, float]:
        if not self._asked:
            return {}
        batch = _BATCH * self._engine.world_size
        right = sum(self._right(slice(start, start + batch)) for start in range(0, len(self._asked), batch))
        total = torch.tensor(right, device=self._engine.module.base.model.device)
        if self._engine.world_size > 1:
            torch.distributed.all_reduce(total)
        return {SCORE: total.item() / len(self._asked)}

    def _right(self, batch: slice) -> float:
        """Right answers among this worker's share of a batch."""
        weights = self._adapters(batch)
        mine = slice(self._engine.rank, None, self._engine.world_size)
        asked, prompts = self._asked[batch][mine], self._prompts[batch][mine]
        base = self._engine.module.base
        answers = greedy_answers(base, self._tokenizer, prompts, weights.select(mine), self._longest)
        return sum(exact_match(answer, question.answer) for answer, question in zip(answers, asked, strict=True))

    def _adapters(self, batch: slice) -> LoraWeights:
        device = self._engine.module.base.model.device
        states_N_T_D, mask_N_T = self._features.states_N_T_D[batch], self._features.mask_N_T[batch]
        return self._engine.module.model(states_N_T_D.to(device), mask_N_T.to(device))
