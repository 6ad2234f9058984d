"""Heads: from the trunk's output to the weights of one target module; one class a variant.

Legend: n tasks, l layers, s sides (A, B), r rank, h head input, i in_features, o out_features, w max(i, o).

A head returns "rows": A [n, l, r, i] and B [n, l, r, o], B transposed so that a rank is a row on both sides.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2l import kernels
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
    def sides(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Of weight or bias, what makes A [r, i, ...] and what makes B [r, o, ...]; r is 1 if ranks share it."""

    def forward(self, hidden: Tensor, units: "OutputUnits | None" = None) -> tuple[Tensor, Tensor]:
        """Trunk output [n, l, (s), (r), h] -> rows of A and B, in `units` if given.

        Without gradients, on a GPU, one kernel a side does both: the same up to rounding, which in fp32 is TF32's
        or, of many rows, that of halves.
        """
        inputs = hidden.unbind(2) if self.per_side else (hidden, hidden)
        layers = tuple(zip(inputs, self.sides(self.weight), self.sides(self.bias), strict=True))
        if units is not None and kernels.infers(hidden, self.weight):
            from t2l.kernels.heads import head_rows  # Triton is not there where kernels are not usable

            A, B = (head_rows(*layer, *side) for layer, side in zip(layers, units.sides(), strict=True))
            return A, B
        A, B = (self._rows(*layer) for layer in layers)
        return (A, B) if units is None else units(A, B)

    def _rows(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # In two dimensions: else torch would add the bias in a pass of its own.
        flat = F.linear(x.flatten(0, -2), weight.flatten(0, 1), bias.flatten())
        return flat.view(*x.shape[:2], self.rank, weight.shape[1])


class HeadL(Head):
    """A and B at once: [n, l, h] -> r (i + o) outputs."""

    per_side, per_rank = False, False

    def output_size(self) -> int:
        return self.rank * sum(self.sizes)

    def sides(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        for_A, for_B = parameter.split([self.rank * size for size in self.sizes])
        return for_A.unflatten(0, (self.rank, -1)), for_B.unflatten(0, (self.rank, -1))


class HeadM(Head):
    """A or B: [n, l, s, h] -> r w outputs, each row cut to its side's width."""

    per_side, per_rank = True, False

    def output_size(self) -> int:
        return self.rank * max(self.sizes)

    def sides(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        # Cut the weight, not the output: it is small, and the outputs beyond the cut are never computed.
        wide = parameter.unflatten(0, (self.rank, -1))
        return wide[:, : self.sizes[0]], wide[:, : self.sizes[1]]


class HeadS(Head):
    """One rank of A or B: [n, l, s, r, h] -> w outputs, cut to the side's width."""

    per_side, per_rank = True, True

    def output_size(self) -> int:
        return max(self.sizes)

    def sides(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        return parameter[None, : self.sizes[0]], parameter[None, : self.sizes[1]]


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

    def sides(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Scale and shift of A, and of B."""
        return (self.A_scale, self.A_shift), (self.B_scale, self.B_shift)

    def forward(self, A_NLRI: Tensor, B_NLRO: Tensor) -> tuple[Tensor, Tensor]:
        """Head output -> weights, as rows."""
        A = torch.addcmul(self.A_shift, A_NLRI, self.A_scale)
        return A, torch.addcmul(self.B_shift, B_NLRO, self.B_scale)

    def inverse(self, A_NLRI: Tensor, B_NLRO: Tensor) -> tuple[Tensor, Tensor]:
        """Weights -> head output, as rows; 0 where scale is 0, since no head output changes that weight."""
        A = torch.where(self.A_scale > 0, (A_NLRI - self.A_shift) / self.A_scale, 0)
        return A, torch.where(self.B_scale > 0, (B_NLRO - self.B_shift) / self.B_scale, 0)
