"""Plain LoRAs, several trained at once: the baselines that generated adapters are held against.

Each adapter has its own tasks and its own rows of one common batch, so that n LoRAs cost little more than one that sees
as many rows. Nothing is shared between them: parameters, gradients, AdamW's moments and clipping are per adapter, and
an adapter comes out the same (rounding aside) in whatever company it is trained.

Axes: n adapters, K labels of all rows.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from t2l.data.collate import Row, SftBatch, collate, cut_left
from t2l.data.sampler import TaskSampler
from t2l.data.steps import padding_id
from t2l.lora.apply import PerRowLora
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.text.prompts import PromptFormat
from t2l.train.engine import set_lr
from t2l.train.losses import answer_loss
from t2l.train.schedule import linear_with_warmup
from t2l.train.step import check_head, label_logits, seed_step

OnStep = Callable[[int, Tensor], None]
"""Called after a step with the steps done and the mean loss of the adapters, on the device."""


@dataclass(frozen=True)
class LoraTraining:
    """How each adapter is trained; `rows` samples a step, prompts and answers cut to `max_tokens` each."""

    steps: int = 250
    rows: int = 8
    lr: float = 5e-3
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0
    max_tokens: int = 512
    seed: int = 0


def train_loras(
    base: PerRowLora,
    tokenizer: PreTrainedTokenizerBase,
    groups: Sequence[Sequence[Task]],
    settings: LoraTraining,
    on_step: OnStep = lambda done, loss: None,
) -> LoraWeights:
    """Train n adapters for n groups of tasks (one task each: oracles; one group of many: a multi-task LoRA).

    Prompts hold the input alone, no description. Returns fp32 weights. Raises ConfigError for an empty group, or for a
    base whose logits are more than its head's output.
    """
    check_head(base.model)
    batches = LoraBatches(groups, tokenizer, settings)
    weights = initial_weights(base.spec, groups, settings.seed).to(base.model.device)
    parameters = [tensor.requires_grad_() for tensor in weights.tensors()]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=settings.weight_decay)
    base.train()
    for step in range(settings.steps):
        seed_step(settings.seed, step, 0)  # LoRA dropout
        loss = loss_of(base, weights, batches[step].to(base.model.device))
        loss.backward()
        clip_each(weights, settings.clip)
        set_lr(optimizer, linear_with_warmup(step, settings.steps, settings.lr, settings.warmup_fraction))
        optimizer.step()
        optimizer.zero_grad()
        on_step(step + 1, loss.detach() / len(groups))
    base.eval()
    return weights.detach()


class LoraBatches:
    """Item i is the batch of step i: each group's rows one after another, a group's tasks in `TaskSampler`'s order.

    What a group sees depends on (seed, its tasks' names, step) alone, not on the other groups.
    """

    def __init__(
        self, groups: Sequence[Sequence[Task]], tokenizer: PreTrainedTokenizerBase, settings: LoraTraining
    ) -> None:
        self._groups, self._tokenizer, self._settings = groups, tokenizer, settings
        self._chat, self._pad_id = PromptFormat.of(tokenizer), padding_id(tokenizer)
        self._samplers = [TaskSampler(len(tasks), settings.seed, settings.rows) for tasks in groups]

    def __getitem__(self, step: int) -> SftBatch:
        """Weights of labels make the weighted sum over all rows the sum of the groups' mean losses."""
        drawn = [
            self._draw(tasks[slot.task], step, slot.place)
            for tasks, sampler in zip(self._groups, self._samplers, strict=True)
            for slot in sampler(step)
        ]
        prompts, answers = (self._ids(texts) for texts in zip(*drawn, strict=True))
        rows = [Row(prompt, answer, description=0) for prompt, answer in zip(prompts, answers, strict=True)]
        return collate(rows, self._settings.rows, self._pad_id)

    def _draw(self, task: Task, step: int, place: int) -> tuple[str, str]:
        rng = random.Random(f"{self._settings.seed}:{task.name}:{step}:{place}")
        example = task.train[rng.randrange(len(task.train))]
        return self._chat.prompt(example.input), self._chat.answer(example.output)

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]  # type: ignore[assignment]
        return [cut_left(row, self._settings.max_tokens) for row in ids]


def initial_weights(spec: LoraSpec, groups: Sequence[Sequence[Task]], seed: int) -> LoraWeights:
    """PEFT's initialisation, drawn for each adapter by itself, the same on every device."""
    return LoraWeights.cat([LoraWeights.init(spec, 1, torch.Generator().manual_seed(seed)) for _ in groups])


def loss_of(base: PerRowLora, weights: LoraWeights, batch: SftBatch) -> Tensor:
    """Sum over adapters of the mean over their rows of the mean over the answer's tokens."""
    embeddings_B_T_H = base.model.get_input_embeddings()(batch.input_ids_B_T)
    logits_K_V = label_logits(base, weights, embeddings_B_T_H, batch.label_positions_K)
    return answer_loss(logits_K_V, batch.label_ids_K, batch.label_weights_K)


def clip_each(weights: LoraWeights, limit: float) -> None:
    """Scale down the gradient of each adapter whose norm, over all its tensors, exceeds the limit."""
    gradients = [tensor.grad for tensor in weights.tensors() if tensor.grad is not None]
    norm_n = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scale_n = (limit / (norm_n + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale_n[:, None, None, None])
