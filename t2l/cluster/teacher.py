"""The base model as the teacher of distillation: its answers with the definition in the prompt.

Axes: B prompts of one batch, T tokens, K tokens of all answers, V vocabulary, J likeliest tokens.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from t2l.config import DistillConfig
from t2l.data.collate import Row, collate, cut_left
from t2l.data.steps import padding_id
from t2l.errors import ConfigError
from t2l.evaluation.decode import greedy_tokens
from t2l.evaluation.generate import batch_size, batches, prompt_room
from t2l.lora.apply import PerRowLora
from t2l.train.step import label_logits

_ROWS_OF_LOGITS = 64
"""Rows whose logits are there at once: of 64 tokens each and Qwen's vocabulary, 2.5 GB in fp32."""


class Teacher:
    """Called with prompts, gives a part of a `TeacherPool` (t2l/data/teacher.py)."""

    def __init__(self, base: PerRowLora, tokenizer: PreTrainedTokenizerBase, config: DistillConfig) -> None:
        self._base, self._tokenizer, self._config = base, tokenizer, config

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        answers: list[Tensor] = [torch.empty(0)] * len(prompts)
        tops: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(prompts)
        prompt_ids = self._tokens(prompts)
        for batch in batches(prompt_ids, batch_size(self._base.model), self._config.answer_tokens):
            rows = self._answer([prompt_ids[i] for i in batch])
            starts = range(0, len(rows), _ROWS_OF_LOGITS)
            found = [top for start in starts for top in self._likeliest(rows[start : start + _ROWS_OF_LOGITS])]
            for i, row, top in zip(batch, rows, found, strict=True):
                answers[i], tops[i] = torch.tensor(row.answer, dtype=torch.int32), top
        ids, probs = zip(*tops, strict=True)
        lengths_M = torch.tensor([len(answer) for answer in answers])
        return {
            "answer_S": torch.cat(answers),
            "ids_S_J": torch.cat(ids),
            "probs_S_J": torch.cat(probs),
            "lengths_M": lengths_M,
        }

    def _tokens(self, prompts: Sequence[str]) -> list[list[int]]:
        """With room to answer."""
        whole: list[list[int]] = self._tokenizer(list(prompts), add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
        room = prompt_room(self._base.model, self._config.answer_tokens)
        if room < 1:
            raise ConfigError(
                f"train.answer_tokens {self._config.answer_tokens} leaves a prompt no room in the base model: lower it"
            )
        return [cut_left(row, room) for row in whole]

    def _answer(self, ids: Sequence[list[int]]) -> list[Row]:
        """Greedy answers, each up to its end token."""
        limits = [self._config.answer_tokens] * len(ids)
        answers = greedy_tokens(self._base, self._tokenizer, ids, None, limits)
        return [Row(prompt, answer, 0) for prompt, answer in zip(ids, answers, strict=True)]

    def _likeliest(self, rows: Sequence[Row]) -> list[tuple[Tensor, Tensor]]:
        """Ids and probabilities [len(answer), J] of each row, from one forward pass over prompts and answers."""
        batch = collate(rows, len(rows), padding_id(self._tokenizer)).to(self._base.model.device)
        logits_K_V = label_logits(self._base, None, batch)
        top = logits_K_V.float().softmax(-1).topk(min(self._config.top_k, logits_K_V.shape[1]))
        probs_K_J = (top.values / top.values.sum(1, keepdim=True)).bfloat16().cpu()
        lengths = [len(row.answer) for row in rows]
        return list(zip(top.indices.int().cpu().split(lengths), probs_K_J.split(lengths), strict=True))
