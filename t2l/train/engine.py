"""Engines: what turns losses into updates of the trained weights. Here plain torch's for one device; DeepSpeed's is in
`zero.py`. Both have the same methods, so the loop does not know which it drives.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from t2l.config import TrainConfig
from t2l.text.encoder import TextFeatures
from t2l.train.losses import Losses
from t2l.train.module import Batch, TrainModule
from t2l.train.state import State

MODEL, UPDATES = "model/", "updates"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of every parameter."""


class Engine(Protocol):
    """A module in training. Per step: forward and backward for each micro-batch, then one step."""

    module: TrainModule
    rank: int
    world_size: int

    def forward(self, batch: Batch, features: TextFeatures) -> Losses: ...

    def backward(self, losses: Losses) -> None: ...

    def step(self, lr: float) -> None:
        """Sum gradients over micro-batches and workers, clip them, update, and forget them."""
        ...

    def state(self) -> State:
        """Everything to resume from, whole and on the CPU, whatever the number of workers; all of them must call.

        "model/<name>": parameters and buffers; "<moment>/<name>": AdamW's; "updates": how many there were (not 0).
        """
        ...


def adamw(module: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimizer; its rate is 0 until `Engine.step` sets it."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(parameters, lr=0.0, weight_decay=config.weight_decay, fused=parameters[0].is_cuda)


class TorchEngine:
    """One process, one device, no DeepSpeed. `state`, if given, is what `Engine.state` returned."""

    rank, world_size = 0, 1

    def __init__(
        self, module: TrainModule, config: TrainConfig, device: torch.device | str = "cpu", state: State | None = None
    ) -> None:
        self.module = module.to(device)
        self._clip = config.clip
        if state is not None:
            load_model_state(module, state)
        self._optimizer = adamw(module, config)
        if state is not None:
            load_moments(module, self._optimizer, state)

    def forward(self, batch: Batch, features: TextFeatures) -> Losses:
        return self.module(batch, features)

    def backward(self, losses: Losses) -> None:
        losses.total.backward()

    def step(self, lr: float) -> None:
        nn.utils.clip_grad_norm_(self.module.parameters(), self._clip)
        set_lr(self._optimizer, lr)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def state(self) -> State:
        moments = {
            f"{moment}/{name}": self._optimizer.state[parameter][moment]
            for name, parameter in trained(self.module)
            for moment in MOMENTS
        }
        return on_cpu(model_state(self.module) | moments | {UPDATES: updates_of(self._optimizer)})


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def set_lr(optimizer: Any, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def updates_of(optimizer: torch.optim.Optimizer) -> Tensor:
    """AdamW's count of updates, which its bias correction needs. There must have been one."""
    return torch.as_tensor(next(iter(optimizer.state.values()))["step"])


def model_state(module: nn.Module) -> State:
    return {MODEL + name: tensor for name, tensor in module.state_dict().items()}


def load_model_state(module: nn.Module, state: State) -> None:
    module.load_state_dict({name[len(MODEL) :]: tensor for name, tensor in state.items() if name.startswith(MODEL)})


def on_cpu(state: State) -> State:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load_moments(module: nn.Module, optimizer: torch.optim.Optimizer, state: State) -> None:
    for name, parameter in trained(module):
        known = {moment: state[f"{moment}/{name}"].to(parameter.device, copy=True) for moment in MOMENTS}
        step = state[UPDATES].to(parameter.device if parameter.is_cuda else "cpu", copy=True)
        optimizer.state[parameter] = {"step": step, **known}
