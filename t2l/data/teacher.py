"""What the base model answers when the definition is in its prompt: the labels of distillation, made beforehand.

Axes: M answers, S tokens of all answers together, J likeliest tokens.

Sample j of a task is its j-th training input under its j-th description, and from the first one on again where these
are fewer. The base model's answer and its distribution over each token of it depend on nothing that is trained, so they
are made once, like the descriptions' states.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from t2l.config import DistillConfig
from t2l.tasks.task import Task
from t2l.text.prompts import PromptFormat


@dataclass(frozen=True)
class Taught:
    """One answer: its token ids, and ids and probabilities [len(answer), J] of the likeliest tokens at each place."""

    answer: list[int]
    ids: Tensor
    probs: Tensor


def pool_sizes(tasks: Sequence[Task], config: DistillConfig) -> list[int]:
    """Answers for each task: `pool_size`, or as many as it has training inputs."""
    return [min(config.pool_size, len(task.train)) for task in tasks]


def teacher_prompts(tasks: Sequence[Task], chat: PromptFormat, config: DistillConfig) -> list[str]:
    """Prompts with a definition, task by task."""
    return [
        chat.prompt(task.train[j].input, task.descriptions[j % len(task.descriptions)])
        for task, size in zip(tasks, pool_sizes(tasks, config), strict=True)
        for j in range(size)
    ]


class TeacherPool:
    """The answers to `teacher_prompts`, from their parts: answer_S, ids_S_J, probs_S_J (bf16) and lengths_M."""

    def __init__(self, parts: Sequence[dict[str, Tensor]], tasks: Sequence[Task], config: DistillConfig) -> None:
        self.sizes, self.sft_share = pool_sizes(tasks, config), config.sft_share
        self._starts = list(itertools.accumulate(self.sizes, initial=0))
        whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        self._lengths_M = whole.pop("lengths_M")
        self._tokens = whole
        self._ends_M = self._lengths_M.cumsum(0)

    def look_up(self, task_number: int, sample: int) -> Taught:
        m = self._starts[task_number] + sample
        span = slice(int(self._ends_M[m] - self._lengths_M[m]), int(self._ends_M[m]))
        tokens = {name: tensor[span] for name, tensor in self._tokens.items()}
        return Taught(tokens["answer_S"].tolist(), tokens["ids_S_J"].long(), tokens["probs_S_J"].float())
