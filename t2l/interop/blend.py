"""Sums of adapters by what they do: weighted sums of their products B A, which are never formed.

Not the arithmetic of LoraWeights, which acts on A and on B: (A1 + A2) and (B1 + B2) also multiply A1 with B2.

Legend: n adapters, l layers, r rank of each, R = n r, k rank kept, i in_features, o out_features.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from t2l.errors import ConfigError
from t2l.lora.weights import LoraWeights


def blend(weights: LoraWeights, factors: Sequence[float]) -> LoraWeights:
    """n adapters -> one of rank R whose delta W is the sum of factor * delta W: their ranks side by side, exact.

    B takes up the factors, and the change of the scaling, which depends on the rank.
    Raises ConfigError unless there is one finite factor for each adapter.
    """
    if len(factors) != len(weights) or not all(map(math.isfinite, factors)):
        raise ConfigError(f"weights {list(factors)} for {len(weights)} adapters: give one finite number for each")
    spec = replace(weights.spec, rank=len(weights) * weights.spec.rank)
    scale = torch.tensor(factors, dtype=torch.float64) * (weights.spec.scaling / spec.scaling)
    scale_N111 = scale.to(weights.device, weights.dtype)[:, None, None, None]
    A = {name: A_NLrI.transpose(0, 1).flatten(1, 2)[None] for name, A_NLrI in weights.A.items()}
    B = {name: (B_NLOr * scale_N111).permute(1, 2, 0, 3).flatten(2)[None] for name, B_NLOr in weights.B.items()}
    return LoraWeights(spec, A, B)


def compress(weights: LoraWeights, rank: int) -> tuple[LoraWeights, float]:
    """The nearest adapters of rank k (Frobenius, per layer), and the relative error |change| / |delta W| over all.

    Raises ConfigError if the rank is not from 1 to that of `weights`.
    """
    if not 1 <= rank <= weights.spec.rank:
        raise ConfigError(f"rank {rank} must lie between 1 and {weights.spec.rank}, the rank of what is compressed")
    spec = replace(weights.spec, rank=rank)
    A: dict[str, Tensor] = {}
    B: dict[str, Tensor] = {}
    kept = lost = 0.0
    for name in weights.A:
        U_NLOK, S_NLK, V_NLIK = _svd(weights.B[name].double(), weights.A[name].double())
        kept += S_NLK[..., :rank].square().sum().item()
        lost += S_NLK[..., rank:].square().sum().item()
        root = (S_NLK[..., None, :rank] * (weights.spec.scaling / spec.scaling)).sqrt()
        fill = (0, rank - root.shape[-1])  # a layer narrower than the rank has fewer directions
        A[name] = pad(V_NLIK[..., :rank] * root, fill).mT.to(weights.dtype)
        B[name] = pad(U_NLOK[..., :rank] * root, fill).to(weights.dtype)
    return LoraWeights(spec, A, B), math.sqrt(lost / (kept + lost)) if lost else 0.0


def _svd(B_NLOR: Tensor, A_NLRI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """B A = U diag(S) V' by QR of both sides and an SVD of what is between them, [R, R]."""
    Q_B, R_B = torch.linalg.qr(B_NLOR)
    Q_A, R_A = torch.linalg.qr(A_NLRI.mT)
    U, S, Vh = torch.linalg.svd(R_B @ R_A.mT, full_matrices=False)
    return Q_B @ U, S, Q_A @ Vh.mT
