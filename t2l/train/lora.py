"""Plain LoRAs, many trained at once: an oracle for each task of a library, and generated adapters refined by examples.

Each adapter is a slot of one common batch: `rows` consecutive rows that its own weights serve (t2l/lora/apply.py), so
that n LoRAs cost little more than one that sees as many rows. Slots share nothing: weights, gradients, AdamW, clipping,
learning rate and early stopping are each slot's own, and an adapter comes out the same (rounding, and the masks of LoRA
dropout, aside) in whatever company it is trained. So a slot whose adapter is finished takes the next task.

All adapters of a library start from the same A. That is what makes a library reconstructible by a hypernetwork: what
tells its adapters apart is then their tasks, while from random starts, most of A would be noise that no description
tells.

Axes: n slots, B rows, K labels of all rows, T tokens, P weights of one adapter.
"""

import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from t2l.config.data import DataConfig
from t2l.data.collate import Row, SftBatch, collate
from t2l.data.steps import padding_id
from t2l.data.tokens import Text, Tokenizing
from t2l.errors import ConfigError, DataError
from t2l.lora.apply import PerRowLora
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Example, Task
from t2l.text.positions import positions
from t2l.text.prompts import PromptFormat
from t2l.train.lora_settings import LoraTraining, OracleTraining
from t2l.train.losses import answer_loss
from t2l.train.schedule import linear_with_warmup
from t2l.train.slots import LoraSlots, Update
from t2l.train.step import check_head, label_logits, seed_step

_DEFAULTS = DataConfig()


@dataclass(frozen=True)
class TrainedLora:
    """A finished adapter: `weights` (n = 1, fp32, on the CPU) are those of the best validation loss."""

    task: Task
    weights: LoraWeights
    steps: int
    validation_loss: float
    stopped_early: bool
    seconds: float


@dataclass(frozen=True)
class Round:
    """What `eval_every` steps came to: the adapters that are finished, and the number that go on."""

    finished: tuple[TrainedLora, ...]
    in_training: int


def train_loras(
    base: PerRowLora,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Iterable[Task],
    settings: OracleTraining,
    at_once: int = 24,
    data: DataConfig = _DEFAULTS,
) -> Iterator[Round]:
    """Train an adapter for each task, `at_once` of them in one batch; tasks are taken as slots become free.

    Prompts hold the input alone, no description; they and answers are cut to the limits of `data`. The host waits for
    the device at evaluations only. Raises DataError for a task with too few examples (see `num_train`), ConfigError for
    a base whose logits are more than its head's output, and for an adapter whose loss has never been a number.
    """
    check_head(base.model)
    waiting, queue = iter(tasks), _Queue(base, RowMaker(base, tokenizer, data), settings)
    queue.fill(list(islice(waiting, at_once)))
    while len(queue):
        yield queue.round()
        queue.fill(list(islice(waiting, at_once - len(queue))))


def num_train(task: Task, settings: OracleTraining) -> int:
    """Examples that may be trained on, which validation leaves; none: the task cannot be trained."""
    return max(0, len(task.train) - settings.validation_examples)


def refine_loras(
    base: PerRowLora,
    tokenizer: PreTrainedTokenizerBase,
    weights: LoraWeights,
    examples: Sequence[Sequence[Example]],
    settings: LoraTraining,
    data: DataConfig = _DEFAULTS,
) -> LoraWeights:
    """Train n adapters further, all at once, on n lists of a few examples each; all steps, without validation.

    Prompts and answers are cut to the limits of `data`. Returns fp32 weights, on the base's device. Raises DataError
    unless there is a list for each adapter with something in it, ConfigError for a base whose logits are more than its
    head's output.
    """
    if len(weights) != len(examples) or not all(examples):
        sizes = [len(few) for few in examples]
        raise DataError(f"{len(weights)} adapters cannot be refined with {sizes} examples: give each of them some")
    check_head(base.model)
    rows = RowMaker(base, tokenizer, data)
    known = [rows.make(few) for few in examples]
    slots = LoraSlots(weights.to(base.model.device))
    base.train()
    for step in range(settings.steps):
        seed_step(settings.seed, step, 0)
        drawn = [few[i] for few in known for i in draw(len(few), settings.rows, f"{settings.seed}:{step}")]
        fit(base, slots, rows.batch(drawn, settings.rows), settings)
    base.eval()
    return slots.weights().detach()


def draw(of: int, number: int, key: str) -> list[int]:
    """`number` places in a list of length `of`, chosen by the key: all different as far as there are as many."""
    places = random.Random(key).sample(range(of), min(of, number))
    return [places[i % len(places)] for i in range(number)]


def fit(base: PerRowLora, slots: LoraSlots, batch: SftBatch, settings: LoraTraining) -> None:
    """One step of every slot, by its own place in the schedule."""
    batch = batch.to(base.model.device)
    logits_K_V = label_logits(base, slots.weights(), batch)
    answer_loss(logits_K_V, batch.label_ids_K, batch.label_weights_K).backward()
    rates = [linear_with_warmup(n, settings.steps, settings.lr, settings.warmup_fraction) for n in slots.updates]
    slots.update(rates, Update(settings.weight_decay, settings.clip))


class RowMaker:
    """Examples -> token ids -> batches, without descriptions; cut to the limits of `data` and the base's positions."""

    def __init__(self, base: PerRowLora, tokenizer: PreTrainedTokenizerBase, data: DataConfig) -> None:
        self._tokens = Tokenizing(tokenizer, data.within(positions(base.model.config)), caches=None)
        self._chat, self._pad_id = PromptFormat.of(tokenizer), padding_id(tokenizer)

    def make(self, examples: Sequence[Example]) -> list[Row]:
        chat = self._chat
        texts = [Text(chat.prompt(one.input), chat.answer(one.output), comes_again=False) for one in examples]
        return [Row(tokens.prompt, tokens.answer, description=0) for tokens in self._tokens(texts)]

    def batch(self, rows: Sequence[Row], rows_of_each: int) -> SftBatch:
        """Weights of labels make the weighted sum over all rows the sum of the slots' mean losses."""
        batch = collate(rows, rows_of_each, self._pad_id)
        return batch.pin_memory() if torch.cuda.is_available() else batch


@dataclass
class _InTraining:
    """A task that has a slot; `stale` counts the evaluations since the best one."""

    task: Task
    validation: list[Row]
    started: float
    best_loss: float = math.inf
    stale: int = 0


class _Queue:
    """The slots in training, in rounds of `eval_every` steps: they are filled, stopped and handed out between rounds.

    Rounds are common to all slots, as every adapter starts with one and ends with one.
    """

    def __init__(self, base: PerRowLora, rows: RowMaker, settings: OracleTraining) -> None:
        self._base, self._rows, self._settings = base, rows, settings
        self._in: list[_InTraining] = []
        generator = torch.Generator().manual_seed(settings.seed)  # on the CPU: the same A on every device
        self._start = LoraWeights.init(base.spec, 1, generator).to(base.model.device)
        self._slots = LoraSlots(self._start.select([]))
        self._best_N_P = self._slots.copy()
        self._steps = 0

    def __len__(self) -> int:
        return len(self._in)

    def fill(self, tasks: Sequence[Task]) -> None:
        """Give each task a slot."""
        for task in tasks:
            number = num_train(task, self._settings)
            if not number:
                raise DataError(
                    f"task '{task.name}' has {len(task.train)} training examples, of which validation takes "
                    f"{self._settings.validation_examples}: give it more, or lower validation_examples"
                )
            held_out = range(number, len(task.train))
            validation = self._rows.make([task.train[i] for i in held_out])
            self._in.append(_InTraining(task, validation, time.perf_counter()))
        fresh = LoraSlots(self._start.select([0] * len(tasks)))
        self._slots.extend(fresh)
        self._best_N_P = torch.cat([self._best_N_P, fresh.copy()])

    def round(self) -> Round:
        """Train, evaluate, and empty the slots that are finished."""
        self._base.train()
        for _ in range(self._settings.eval_every):
            seed_step(self._settings.seed, self._steps, 0)  # LoRA dropout
            fit(self._base, self._slots, self._batch(), self._settings)
            self._steps += 1
        self._base.eval()
        self._remember(self._validation_losses())
        finished = self._hand_out()
        return Round(finished, len(self))

    def _batch(self) -> SftBatch:
        """What a slot sees depends on (seed, its task's name, its own step) alone."""
        seed, number = self._settings.seed, self._settings.rows
        drawn = [
            one.task.train[i]
            for one, step in zip(self._in, self._slots.updates, strict=True)
            for i in draw(num_train(one.task, self._settings), number, f"{seed}:{one.task.name}:{step}")
        ]
        return self._rows.batch(self._rows.make(drawn), number)

    @torch.no_grad()
    def _validation_losses(self) -> list[float]:
        """Mean over each slot's validation examples of the mean over their tokens; `rows` of each slot at a time."""
        settings, weights = self._settings, self._slots.weights()
        losses_n = torch.zeros(len(self), device=self._base.model.device)
        for start in range(0, settings.validation_examples, settings.rows):
            parts = [one.validation[start : start + settings.rows] for one in self._in]
            rows = [row for part in parts for row in part]
            batch = self._rows.batch(rows, settings.validation_examples).to(losses_n.device)
            logits_K_V = label_logits(self._base, weights, batch)
            loss_K = F.cross_entropy(logits_K_V.float(), batch.label_ids_K, reduction="none") * batch.label_weights_K
            slot_K = batch.label_positions_K // (batch.input_ids_B_T.shape[1] * len(parts[0]))
            losses_n.index_add_(0, slot_K, loss_K)
        return losses_n.tolist()

    def _remember(self, losses: Sequence[float]) -> None:
        """Keep the weights of the slots that are better than ever."""
        now_N_P = self._slots.copy()
        for slot, (one, loss) in enumerate(zip(self._in, losses, strict=True)):
            one.stale += 1
            if loss < one.best_loss:
                one.best_loss, one.stale = loss, 0
                self._best_N_P[slot] = now_N_P[slot]

    def _hand_out(self) -> tuple[TrainedLora, ...]:
        done = [n for n, one in enumerate(self._in) if one.stale >= self._settings.patience or self._ended(n)]
        finished = tuple(self._finished(slot) for slot in done)
        going_on = [slot for slot in range(len(self)) if slot not in done]
        self._in = [self._in[slot] for slot in going_on]
        self._slots.keep(going_on)
        self._best_N_P = self._best_N_P[going_on]
        return finished

    def _finished(self, slot: int) -> TrainedLora:
        one, steps = self._in[slot], self._slots.updates[slot]
        if math.isinf(one.best_loss):  # its best weights would be those that it began with, which do nothing
            raise ConfigError(f"the adapter of task '{one.task.name}' diverged: lower lr")
        weights, seconds = self._slots.adapter(self._best_N_P[slot]), time.perf_counter() - one.started
        return TrainedLora(one.task, weights, steps, one.best_loss, not self._ended(slot), seconds)

    def _ended(self, slot: int) -> bool:
        return self._slots.updates[slot] >= self._settings.steps
