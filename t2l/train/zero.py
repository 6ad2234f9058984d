"""The DeepSpeed engine: ZeRO stage 0 to 3 over the trained part, on GPUs (NCCL) or CPUs (gloo).

The base is none of its business: that is frozen, so it has neither gradients nor optimizer state to shard. Where its
weights alone are too large for a worker, `shard.py` partitions them.
"""

import logging
import os
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2l.config import TrainConfig
from t2l.text.encoder import TextFeatures
from t2l.train.engine import (
    MODEL,
    MOMENTS,
    UPDATES,
    State,
    adamw,
    load_model_state,
    load_moments,
    model_state,
    on_cpu,
    set_lr,
    trained,
    updates_of,
)
from t2l.train.losses import Losses
from t2l.train.module import Batch, TrainModule


def import_deepspeed() -> Any:
    """DeepSpeed, quiet, and without its C++ compiling at the start.

    On CPUs it would build a shared-memory op (50 s, and a compiler must be there) that only its inference uses.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # pyright: ignore[reportAttributeAccessIssue]
    return deepspeed


class DeepSpeedEngine:
    """An `Engine` over all workers of torch.distributed, which must be initialised.

    `state`, if given, is what `Engine.state` returned, at whatever stage and number of workers.
    """

    def __init__(
        self,
        module: TrainModule,
        config: TrainConfig,
        zero_stage: int,
        device: torch.device | str = "cpu",
        state: State | None = None,
    ) -> None:
        deepspeed = import_deepspeed()
        self.module = module.to(device)
        self.rank, self.world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._stage, self._micro_batches, self._waiting = zero_stage, config.micro_batches, 0
        if state is not None:
            load_model_state(module, state)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=module, optimizer=adamw(module, config), config=_settings(config, zero_stage)
        )
        self._adamw = self._optimizer if zero_stage == 0 else self._optimizer.optimizer
        if state is not None:
            self._load_optimizer(state)

    def forward(self, batch: Batch, features: TextFeatures) -> Losses:
        return self._engine(batch, features)

    def backward(self, losses: Losses) -> None:
        # DeepSpeed takes the mean over workers and micro-batches, but our losses are shares, to be added up.
        self._engine.backward(losses.total * (self.world_size * self._micro_batches))
        self._waiting += 1
        if self._waiting < self._micro_batches:
            self._engine.step()  # DeepSpeed counts micro-batches by these calls; it does not update yet

    def step(self, lr: float) -> None:
        assert self._waiting == self._micro_batches
        set_lr(self._optimizer, lr)
        self._engine.step()
        self._waiting = 0

    def state(self) -> State:
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        state = model_state(self.module)
        for name, parameter in trained(self.module):
            if self._stage == 3:
                state[MODEL + name] = _found(safe_get_full_fp32_param(parameter))
            for moment in MOMENTS:
                whole = self._stage == 0
                known = (
                    self._adamw.state[parameter][moment] if whole else safe_get_full_optimizer_state(parameter, moment)
                )
                state[f"{moment}/{name}"] = _found(known)
        return on_cpu(state | {UPDATES: updates_of(self._adamw)})

    def _load_optimizer(self, state: State) -> None:
        if self._stage == 0:
            return load_moments(self.module, self._adamw, state)
        self._make_moments(state[UPDATES])
        for name, parameter in trained(self.module):
            for moment in MOMENTS:
                self._put(parameter, moment, state[f"{moment}/{name}"])
        return None

    def _make_moments(self, updates: Tensor) -> None:
        """AdamW makes its moments at the first update only, but they must be there to be set."""
        stage3 = self._stage == 3
        flats = (
            self._optimizer.fp32_partitioned_groups_flat if stage3 else self._optimizer.single_partition_of_fp32_groups
        )
        for flat in flats:
            moments = {moment: torch.zeros_like(flat) for moment in MOMENTS}
            self._adamw.state[flat] = {"step": updates.to(flat.device if flat.is_cuda else "cpu", copy=True), **moments}
        if not stage3:
            self._optimizer._lazy_init_hp_params_optimizer_state()  # lets the setters below find them

    def _put(self, parameter: nn.Parameter, moment: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        value = value.to(parameter.device)
        if self._stage < 3:
            return safe_set_full_optimizer_state(parameter, value, moment)
        # The setter of whole values fails where workers do not divide a parameter's size: cut its part out here.
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        padded = F.pad(value.flatten(), (0, size * self.world_size - value.numel()))
        return safe_set_local_optimizer_state(parameter, padded.narrow(0, size * self.rank, size), moment)


def _settings(config: TrainConfig, zero_stage: int) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed only reports with it: our batches differ in rows
        "gradient_accumulation_steps": config.micro_batches,
        "gradient_clipping": config.clip,
        "zero_optimization": {"stage": zero_stage},
        "steps_per_print": 1 << 60,
    }


def _found(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
