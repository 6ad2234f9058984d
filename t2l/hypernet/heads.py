"""Heads: from the trunk's output to the weights of one target module; one class a variant.

Legend: n tasks, l layers, s sides (A, B), r rank, h head input, i in_features, o out_features, w max(i, o).

A head returns "rows": A [n, l, r, i] and B [n, l, r, o], B transposed so that a rank is a row on both sides.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2l.lora.spec import TargetModule


class Head(nn.Module, ABC):
    """A linear layer for one target module, left empty for `bias_hyperinit_`.

    per_side, per_rank: whether it wants an input of its own for A and B (M, S), and for each rank (S).
    """

    per_side: ClassVar[bool]
    per_rank: ClassVar[bool]

    def __init__(self, module: TargetModule, rank: int, input_size: int) -> None:
        super().__init__()
        self.rank, self.sizes = rank, (module.in_features, module.out_features)
        self.weight = nn.Parameter(torch.empty(self.output_size(), input_size))
        self.bias = nn.Parameter(torch.empty(self.output_size()))

    @abstractmethod
    def output_size(self) -> int:
        """Number of outputs of the linear layer."""

    @abstractmethod
    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Trunk output -> rows of A and B."""


class HeadL(Head):
    """A and B at once: [n, l, h] -> r (i + o) outputs."""

    per_side, per_rank = False, False

    def output_size(self) -> int:
        return self.rank * sum(self.sizes)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        flat = F.linear(hidden, self.weight, self.bias)
        A, B = flat.split([self.rank * size for size in self.sizes], dim=-1)
        return A.unflatten(-1, (self.rank, -1)), B.unflatten(-1, (self.rank, -1))


class HeadM(Head):
    """A or B: [n, l, s, h] -> r w outputs, each row cut to its side's width."""

    per_side, per_rank = True, False

    def output_size(self) -> int:
        return self.rank * max(self.sizes)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        A, B = (self._side(hidden[:, :, side], size) for side, size in enumerate(self.sizes))
        return A, B

    def _side(self, x_N_L_H: Tensor, size: int) -> Tensor:
        # Cut the weight, not the output: it is small, and the outputs beyond the cut are never computed.
        weight = self.weight.unflatten(0, (self.rank, -1))[:, :size].flatten(0, 1)
        bias = self.bias.unflatten(0, (self.rank, -1))[:, :size].flatten()
        return F.linear(x_N_L_H, weight, bias).unflatten(-1, (self.rank, size))


class HeadS(Head):
    """One rank of A or B: [n, l, s, r, h] -> w outputs, cut to the side's width."""

    per_side, per_rank = True, True

    def output_size(self) -> int:
        return max(self.sizes)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        A, B = (
            F.linear(hidden[:, :, side], self.weight[:size], self.bias[:size]) for side, size in enumerate(self.sizes)
        )
        return A, B


HEADS: dict[str, type[Head]] = {"S": HeadS, "M": HeadM, "L": HeadL}


class OutputUnits(nn.Module):
    """weights = head output * scale + shift, per weight of one module; buffers in the state dict, untrained.

    shift is what a silent head yields: a fresh LoRA, a given adapter, or a library's mean.
    scale is 1, or the library's standard deviation.
    """

    A_shift: Tensor
    B_shift: Tensor
    A_scale: Tensor
    B_scale: Tensor

    def __init__(self, module: TargetModule, num_layers: int, rank: int) -> None:
        super().__init__()
        for side, size in (("A", module.in_features), ("B", module.out_features)):
            self.register_buffer(f"{side}_shift", torch.zeros(num_layers, rank, size))
            self.register_buffer(f"{side}_scale", torch.ones(num_layers, rank, size))

    def forward(self, A_NLRI: Tensor, B_NLRO: Tensor) -> tuple[Tensor, Tensor]:
        """Head output -> weights, as rows."""
        A = torch.addcmul(self.A_shift, A_NLRI, self.A_scale)
        return A, torch.addcmul(self.B_shift, B_NLRO, self.B_scale)

    def inverse(self, A_NLRI: Tensor, B_NLRO: Tensor) -> tuple[Tensor, Tensor]:
        """Weights -> head output, as rows; 0 where scale is 0, since no head output changes that weight."""
        A = torch.where(self.A_scale > 0, (A_NLRI - self.A_shift) / self.A_scale, 0)
        return A, torch.where(self.B_scale > 0, (B_NLRO - self.B_shift) / self.B_scale, 0)
