"""The trunk: what the three variants share between the task's embedding and their heads.

Legend: n tasks, e task embedding, l layers, m target modules, s sides (A, B), r rank, f features of a table,
d latent, h head input.

Layers are numbered inside each nn.Sequential as upstream numbers them, so that its weights map one to one.
"""

from typing import cast

import torch
from torch import Tensor, nn

from t2l import kernels
from t2l.config import HypernetConfig
from t2l.lora.spec import LoraSpec


class NormedTable(nn.Module):
    """Learnt vectors [..., f] through a LayerNorm: the embeddings that depend on no task."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))
        self.norm = nn.LayerNorm(shape[-1])

    def forward(self) -> Tensor:
        return self.norm(self.weight)


class Mlp(nn.Sequential):
    """`first` (dropout or LayerNorm), then Linear, SiLU, dropout, Linear, SiLU, perhaps more dropout."""

    def __init__(self, first: nn.Module, size_in: int, hidden: int, size_out: int, dropout: float) -> None:
        up, down = nn.Linear(size_in, hidden), nn.Linear(hidden, size_out)
        super().__init__(first, up, nn.SiLU(), nn.Dropout(dropout), down, nn.SiLU())

    def forward(self, x: Tensor, residual: bool = False, halved: bool = False) -> Tensor:
        """[..., size_in] -> [..., size_out]; residual: plus x.

        Where nothing is trained, on a GPU, one kernel does it: the same up to rounding, which in fp32 is TF32's.
        halved: it may then give many rows of fp32 as fp16, as the heads' kernel multiplies them.
        """
        norm, up, down = self[0], cast(nn.Linear, self[1]), cast(nn.Linear, self[4])
        if not self.training and kernels.infers(x, up.weight):
            from t2l.kernels.mlp import LARGEST, mlp_rows  # Triton is not there where kernels are not usable

            if x.shape[-1] <= LARGEST:
                return mlp_rows(x, norm if isinstance(norm, nn.LayerNorm) else None, up, down, residual, halved)
        out = super().forward(x)
        return x + out if residual else out


class ResidualBlock(nn.Module):
    """x + MLP(LayerNorm(x)), [..., d] -> [..., d]."""

    def __init__(self, size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mlp = Mlp(nn.LayerNorm(size), size, hidden, size, dropout).append(nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x, residual=True)


class Trunk(nn.Module):
    """Embeddings [n, e] -> head inputs: [n, l, m, h] for L, [n, l, m, s, h] for M, [n, l, m, s, r, h] for S.

    per_side, per_rank: whether the heads ask for A and B (M, S) and for each rank (S) separately.
    """

    def __init__(
        self, spec: LoraSpec, config: HypernetConfig, embedding_dim: int, *, per_side: bool, per_rank: bool
    ) -> None:
        super().__init__()
        latent, hidden, dropout = config.latent_size, config.hidden_size, config.dropout
        modules = len(spec.modules)
        self.task_encoder = nn.Sequential(
            nn.Linear(embedding_dim, config.task_features), nn.LayerNorm(config.task_features)
        )
        self.layer_table = NormedTable(spec.num_layers, config.layer_features)
        self.module_table = NormedTable(modules, config.module_features)
        self.side_table = NormedTable(modules, 2, latent) if per_side else None
        learned = config.rank_positions == "learned"
        self.rank_table = NormedTable(spec.rank, latent) if per_rank and learned else None
        self.rotated_ranks = spec.rank if per_rank and not learned else 0
        self.mixer = Mlp(nn.Dropout(dropout), latent, hidden, latent, dropout).append(nn.Dropout(dropout))
        self.block1 = ResidualBlock(latent, hidden, dropout)
        self.block2 = ResidualBlock(latent, hidden, dropout)
        self.last = Mlp(nn.LayerNorm(latent), latent, hidden, config.head_input_size, dropout)

    def forward(self, embedding_N_E: Tensor, halved: bool = False) -> Tensor:
        """halved: as of an Mlp, the last one."""
        task_N_F = self.task_encoder(embedding_N_E)
        layer_L_F, module_M_F = self.layer_table(), self.module_table()
        grid = (len(task_N_F), len(layer_L_F), len(module_M_F), -1)
        parts = (task_N_F[:, None, None], layer_L_F[:, None], module_M_F)
        x = self.block1(self.mixer(torch.cat([part.expand(grid) for part in parts], dim=-1)))
        if self.side_table is not None:
            x = x.unsqueeze(-2) + self.side_table()  # [n, l, m, s, d]
        x = self.block2(x)
        if self.rank_table is not None:
            # Ranks go through the block by themselves (as upstream): once, not per task, layer and module.
            x = x.unsqueeze(-2) + self.block2(self.rank_table())  # [n, l, m, s, r, d]
        elif self.rotated_ranks:
            x = self.block2(rotated(x, self.rotated_ranks))
        return self.last(x, halved=halved)


def rotated(x: Tensor, ranks: int) -> Tensor:
    """[..., d] -> [..., r, d]: features k and k + d/2, as a point, turn by rank * 10000^(-2k/d) (Llama's RoPE)."""
    half = x.shape[-1] // 2
    step_H = 10000 ** -(torch.arange(half, device=x.device) / half)
    angle_R_H = torch.arange(ranks, device=x.device)[:, None] * step_H
    cos, sin = angle_R_H.cos().to(x), angle_R_H.sin().to(x)
    first, second = x.unsqueeze(-2).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
