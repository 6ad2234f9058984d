"""Validation during training: exact match on held-out tasks of the training family, shared out over the workers.

Axes: N descriptions (one a question), B questions of one generation batch, T prompt tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from t2l.data.prompts import PromptFormat
from t2l.lora.apply import PerRowLora
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.text.encoder import TextEncoder, TextFeatures
from t2l.train.engine import Engine
from t2l.train.loop import SCORE

_BATCH = 256


@dataclass(frozen=True)
class Question:
    """An input to answer with the adapter of a description, and the right answer."""

    description: str
    prompt: str
    answer: str


def questions(tasks: Sequence[Task], chat: PromptFormat, inputs_per_task: int) -> list[Question]:
    """The first inputs of each task, each under another description, in prompts without it."""
    return [
        Question(task.descriptions[i % len(task.descriptions)], chat.prompt(task.test[i].input), task.test[i].output)
        for task in tasks
        for i in range(min(inputs_per_task, len(task.test)))
    ]


class Validator:
    """Calls with a step give {"exact_match": share of right answers}; nothing if there are no questions.

    Every worker makes the adapters of all questions, as ZeRO 3 needs all of them in every forward pass, and answers its
    share. They then agree on the sum.
    """

    def __init__(
        self, engine: Engine, encoder: TextEncoder, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Question]
    ) -> None:
        self._engine, self._tokenizer, self._asked = engine, tokenizer, asked
        self._features = encoder.encode([question.description for question in asked]) if asked else None

    @torch.no_grad()
    def __call__(self, step: int) -> dict[str, float]:
        if self._features is None:
            return {}
        rank, world_size = self._engine.rank, self._engine.world_size
        base = self._engine.module.base
        right = 0
        for start in range(0, len(self._asked), _BATCH * world_size):
            chosen = slice(start, start + _BATCH * world_size)
            weights = self._weights(self._features, chosen)
            mine = slice(rank, None, world_size)
            asked = self._asked[chosen][mine]
            if asked:
                answers = greedy_answers(base, self._tokenizer, weights.select(mine), asked)
                right += sum(a == question.answer.strip() for a, question in zip(answers, asked, strict=True))
        total = torch.tensor(float(right), device=base.model.device)
        if world_size > 1:
            torch.distributed.all_reduce(total)
        return {SCORE: total.item() / len(self._asked)}

    def _weights(self, features: TextFeatures, chosen: slice) -> LoraWeights:
        device = self._engine.module.base.model.device
        part = TextFeatures(features.states_N_T_D[chosen], features.mask_N_T[chosen]).to(device)
        return self._engine.module.model(part.states_N_T_D, part.mask_N_T)


def greedy_answers(
    base: PerRowLora, tokenizer: PreTrainedTokenizerBase, weights: LoraWeights, asked: Sequence[Question]
) -> list[str]:
    """What the model answers to each prompt with its own adapter, at most as long as the longest right answer."""
    ids = tokenizer(
        [q.prompt for q in asked], add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt"
    )
    longest = max(map(len, tokenizer([q.answer for q in asked], add_special_tokens=False)["input_ids"]))  # type: ignore
    with base.adapters(weights):
        output = base.model.generate(  # type: ignore[operator]
            input_ids=ids["input_ids"].to(base.model.device),
            attention_mask=ids["attention_mask"].to(base.model.device),
            max_new_tokens=math.ceil((longest + 1) / 4) * 4,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    answers = output[:, ids["input_ids"].shape[1] :]
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]
