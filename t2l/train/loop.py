"""The training loop. It knows no Ray and no DeepSpeed: an engine, batches by step, hooks for what others want to see.

Nothing in a step makes the host wait for the device; losses are fetched when they are logged.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from t2l.config import RunConfig
from t2l.data.collate import SftBatch
from t2l.data.descriptions import DescriptionTable
from t2l.data.steps import SftSteps
from t2l.errors import ConfigError
from t2l.train.engine import Engine
from t2l.train.losses import SftLosses
from t2l.train.schedule import linear_with_warmup
from t2l.train.state import Progress, State
from t2l.train.step import seed_step

SCORE = "exact_match"
"""The validation metric that says which checkpoint is best."""

Validate = Callable[[int], dict[str, float]]
"""Called by all workers after a step; gives all of them the same metrics, none if there is nothing to validate on."""


@dataclass(frozen=True)
class LogRecord:
    """Means over the steps since the last record, over all workers."""

    step: int
    loss: float
    cross_entropy: float
    l2: float
    lr: float
    tokens_per_s: float
    seconds_per_step: float


class Hooks(Protocol):
    """Called by every worker at the same steps."""

    def on_log(self, record: LogRecord) -> None: ...

    def on_validate(self, step: int, metrics: dict[str, float]) -> None: ...

    def on_checkpoint(self, progress: Progress, state: State) -> None: ...


def train(
    engine: Engine,
    steps: SftSteps,
    table: DescriptionTable,
    config: RunConfig,
    hooks: Hooks,
    validate: Validate,
    progress: Progress,
) -> Progress:
    """Train from `progress` to the end and return where that is."""
    device = engine.module.base.model.device
    meter = Meter(engine, config.train.l2_generated, progress.step)
    for step, batches in enumerate(steps.loader(progress.step, pin=device.type == "cuda"), start=progress.step):
        lr = learning_rate(config, step)
        seed_step(config.seed, step, engine.rank)
        engine.module.train()
        for batch in batches:
            features = table.lookup(batch.description_index_B)
            losses = engine.forward(batch.to(device), features)
            engine.backward(losses)
            meter.add(losses, batch)
        engine.step(lr)

        plan = Plan.after(step + 1, config)
        if plan.log:
            hooks.on_log(meter.record(step + 1, lr))
        score = None
        if plan.validate:
            engine.module.eval()
            metrics = validate(step + 1)
            hooks.on_validate(step + 1, metrics)
            score = metrics.get(SCORE)
        progress = progress.after(step + 1, score)
        if plan.checkpoint or progress.best_step == progress.step:
            hooks.on_checkpoint(progress, engine.state())
        if plan.log:
            meter.restart(step + 1)
    return progress


def learning_rate(config: RunConfig, step: int) -> float:
    train = config.train
    return linear_with_warmup(step, train.steps, train.lr, train.warmup_fraction)


@dataclass(frozen=True)
class Plan:
    """What to do after a number of steps. A checkpoint also logs, so that a resumed run logs the same means."""

    log: bool
    validate: bool
    checkpoint: bool

    @classmethod
    def after(cls, done: int, config: RunConfig) -> "Plan":
        train, last = config.train, done == config.train.steps
        validate = last or done % train.eval_every == 0
        checkpoint = last or done % train.checkpoint_every == 0
        return cls(checkpoint or validate or done % train.log_every == 0, validate, checkpoint)


class Meter:
    """Sums of losses on the device, and of tokens, since the last restart."""

    def __init__(self, engine: Engine, l2_generated: float, step: int) -> None:
        self._engine, self._l2_generated = engine, l2_generated
        self.restart(step)

    def restart(self, step: int) -> None:
        device = self._engine.module.base.model.device
        self._sums_2 = torch.zeros(2, dtype=torch.float64, device=device)
        self._tokens, self._first, self._start = 0, step, time.perf_counter()

    def add(self, losses: SftLosses, batch: SftBatch) -> None:
        self._sums_2 += torch.stack([losses.cross_entropy, losses.l2])
        self._tokens += batch.num_tokens

    def record(self, step: int, lr: float) -> LogRecord:
        """Means since the restart. Raises ConfigError where the loss is no longer a number."""
        sums = torch.cat([self._sums_2, self._sums_2.new_tensor([self._tokens])])
        if self._engine.world_size > 1:
            torch.distributed.all_reduce(sums)
        cross_entropy, l2, tokens = sums.tolist()
        seconds, count = time.perf_counter() - self._start, step - self._first
        cross_entropy, l2 = cross_entropy / count, l2 / count
        loss = cross_entropy + self._l2_generated * l2
        if not math.isfinite(loss):
            raise ConfigError(f"the loss is {loss} after step {step}: lower train.lr, or use base.dtype=float32")
        return LogRecord(step, loss, cross_entropy, l2, lr, tokens / seconds, seconds / count)
