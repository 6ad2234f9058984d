"""The training loop. It knows no Ray and no DeepSpeed: an engine, batches by step, hooks for what others want to see.

Nothing in a step makes the host wait for the device; losses are fetched when they are logged.
"""

import gc
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from t2l.config import RunConfig
from t2l.data.descriptions import DescriptionTable
from t2l.errors import ConfigError
from t2l.train.engine import Engine
from t2l.train.losses import Losses
from t2l.train.module import Batch
from t2l.train.schedule import linear_with_warmup
from t2l.train.state import State
from t2l.train.step import seed_step
from t2l.train.validations import Validate

T = TypeVar("T")


class Steps(Protocol):
    """What is trained on; `unit` names what its batches count."""

    unit: str

    def loader(self, start: int, pin: bool) -> Iterator[Sequence[Batch]]:
        """This worker's micro-batches of each step from `start` to the end."""
        ...


@dataclass(frozen=True)
class LogRecord:
    """Means over the steps since the last record, over all workers; `rate` is in the steps' units a second.

    busy: share of the time in which a worker did not wait for its batches.
    """

    step: int
    loss: float
    fit: float
    l2: float
    lr: float
    rate: float
    seconds_per_step: float
    busy: float
    workers: int


class Hooks(Protocol):
    """Called by every worker at the same steps."""

    def on_log(self, record: LogRecord) -> None: ...

    def on_checkpoint(self, step: int, state: State, validate: bool) -> None:
        """validate: whether this checkpoint is to be validated."""
        ...


def _sound(state: State, step: int) -> State:
    """The state. Raises ConfigError where an update has left something that is no number: a run could never go on from
    it, and the loss is from before the update.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ConfigError(f"{name} is not finite after step {step}: lower train.lr, or use base.dtype=float32")
    return state


def train(
    engine: Engine,
    steps: Steps,
    table: DescriptionTable,
    config: RunConfig,
    hooks: Hooks,
    validate: Validate | None,
    start: int = 0,
) -> None:
    """Train from after step `start` to the end.

    validate: called by all workers when a step's checkpoint is there; None where there is nothing to validate on.
    """
    device = engine.module.device
    engine.module.train()
    meter = Meter(engine, start)
    loader = meter.timed(steps.loader(start, pin=device.type == "cuda"))
    try:
        for step, batches in enumerate(loader, start=start):
            lr = learning_rate(config, step)
            seed_step(config.seed, step, engine.rank)
            for batch in batches:
                features = table.lookup(batch.description_index_B)
                losses = engine.forward(batch.to(device), features)
                engine.backward(losses)
                meter.add(losses, batch.count)
            engine.step(lr)
            if step == start:
                gc.freeze()  # a compiled model is millions of objects, which take longer to look through than a step

            done = step + 1
            plan = Plan.after(done, config, validates=validate is not None)
            if plan.log:
                hooks.on_log(meter.record(done, lr))
            if plan.checkpoint:
                hooks.on_checkpoint(done, _sound(engine.state(), done), plan.validate)
            if plan.validate and validate is not None:
                validate(done)
            if plan.log:
                meter.restart(done)
    finally:
        gc.unfreeze()


def learning_rate(config: RunConfig, step: int) -> float:
    train = config.train
    return linear_with_warmup(step, train.steps, train.lr, train.warmup_fraction)


@dataclass(frozen=True)
class Plan:
    """What to do after a number of steps. What is validated is a checkpoint; a checkpoint also logs, so that a resumed
    run logs the same means.
    """

    log: bool
    checkpoint: bool
    validate: bool

    @classmethod
    def after(cls, done: int, config: RunConfig, validates: bool) -> "Plan":
        train, last = config.train, done == config.train.steps
        validate = validates and (last or done % train.eval_every == 0)
        checkpoint = last or validate or done % train.checkpoint_every == 0
        return cls(checkpoint or done % train.log_every == 0, checkpoint, validate)


class Meter:
    """Sums of losses on the device, the count of what was trained on and the wait for it, since the last restart."""

    def __init__(self, engine: Engine, step: int) -> None:
        self._engine = engine
        self.restart(step)

    def restart(self, step: int) -> None:
        self._sums_3 = torch.zeros(3, dtype=torch.float64, device=self._engine.module.device)
        self._count, self._waited, self._first, self._start = 0, 0.0, step, time.perf_counter()

    def timed(self, loader: Iterator[T]) -> Iterator[T]:
        """The same items; the time until each is there counts as waited for."""
        asked = time.perf_counter()
        for item in loader:
            self._waited += time.perf_counter() - asked
            yield item
            asked = time.perf_counter()

    def add(self, losses: Losses, count: int) -> None:
        self._sums_3 += torch.stack([losses.total.detach(), losses.fit, losses.l2])
        self._count += count

    def record(self, step: int, lr: float) -> LogRecord:
        """Means since the restart. Raises ConfigError where the loss is no longer a number."""
        workers = self._engine.world_size
        sums = torch.cat([self._sums_3, self._sums_3.new_tensor([self._count, self._waited])])
        if workers > 1:
            torch.distributed.all_reduce(sums)
        *totals, count, waited = sums.tolist()
        seconds, steps = time.perf_counter() - self._start, step - self._first
        loss, fit, l2 = (total / steps for total in totals)
        if not math.isfinite(loss):
            raise ConfigError(f"the loss is {loss} after step {step}: lower train.lr, or use base.dtype=float32")
        busy = 1 - waited / workers / seconds
        return LogRecord(step, loss, fit, l2, lr, count / seconds, seconds / steps, busy, workers)
