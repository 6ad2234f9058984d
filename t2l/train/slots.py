"""n adapters in training, each as if it were alone: its own AdamW with its own count of updates, rate and clipping.

All weights of an adapter are one row of one tensor, so that an update is a few operations for all of them.

Axes: n slots (adapters), P weights of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from t2l.lora.flat import FlatLayout
from t2l.lora.weights import LoraWeights

_BETA1, _BETA2, _EPS = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Update:
    """How all slots are updated; rates are given with each update."""

    weight_decay: float
    clip: float


class LoraSlots:
    """fp32 weights and AdamW's moments of n adapters, [n, P] each; `updates` counts each slot's.

    PyTorch's AdamW (decoupled decay, https://arxiv.org/abs/1711.05101) counts once a tensor, and slots that are filled
    at different times need their own counts.
    """

    def __init__(self, weights: LoraWeights) -> None:
        self._layout = FlatLayout(weights.spec)
        self._flat_N_P = self._layout.flatten(weights.to(dtype=torch.float32).detach())
        self._first_N_P, self._second_N_P = torch.zeros_like(self._flat_N_P), torch.zeros_like(self._flat_N_P)
        self.updates = [0] * len(weights)

    def __len__(self) -> int:
        return len(self.updates)

    def weights(self) -> LoraWeights:
        """Views of the weights, which gradients flow to."""
        return self._layout.unflatten(self._flat_N_P.requires_grad_())

    @torch.no_grad()
    def update(self, rates: Sequence[float], how: Update) -> None:
        """One step of AdamW on the gradients so far, at a rate a slot; then they are forgotten."""
        flat, grad_N_P = self._flat_N_P.detach(), self._flat_N_P.grad
        assert grad_N_P is not None
        grad_N_P *= (how.clip / (grad_N_P.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.updates = [count + 1 for count in self.updates]
        decay_N_1, rate_N_1, root_N_1 = self._columns(
            [1 - rate * how.weight_decay for rate in rates],
            [rate / (1 - _BETA1**count) for rate, count in zip(rates, self.updates, strict=True)],
            [(1 - _BETA2**count) ** -0.5 for count in self.updates],
        )
        self._first_N_P.lerp_(grad_N_P, 1 - _BETA1)
        self._second_N_P.mul_(_BETA2).addcmul_(grad_N_P, grad_N_P, value=1 - _BETA2)
        flat.mul_(decay_N_1).sub_(rate_N_1 * self._first_N_P / (self._second_N_P.sqrt() * root_N_1 + _EPS))
        self._flat_N_P.grad = None

    def copy(self) -> Tensor:
        """The weights now, [n, P]."""
        return self._flat_N_P.detach().clone()

    def adapter(self, row_P: Tensor) -> LoraWeights:
        """One row of `copy` as an adapter by itself, on the CPU."""
        return self._layout.unflatten(row_P.cpu()[None]).map(Tensor.contiguous)

    def keep(self, slots: Sequence[int]) -> None:
        """Only these slots go on."""
        index = torch.tensor(slots, dtype=torch.long).to(self._flat_N_P.device)
        for name in ("_flat_N_P", "_first_N_P", "_second_N_P"):
            setattr(self, name, getattr(self, name).detach()[index])
        self.updates = [self.updates[slot] for slot in slots]

    def extend(self, other: Self) -> None:
        """The other's slots follow on these."""
        for name in ("_flat_N_P", "_first_N_P", "_second_N_P"):
            setattr(self, name, torch.cat([getattr(self, name).detach(), getattr(other, name).detach()]))
        self.updates += other.updates

    def _columns(self, *columns: Sequence[float]) -> tuple[Tensor, ...]:
        """Numbers a slot as tensors [n, 1]; the device is not waited for."""
        table = torch.tensor(columns, dtype=torch.float32)[..., None]
        if self._flat_N_P.is_cuda:
            table = table.pin_memory()
        return table.to(self._flat_N_P.device, non_blocking=True).unbind(0)
