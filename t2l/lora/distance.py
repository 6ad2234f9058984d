"""How far adapters are apart in what they do: distances and products of their B A, which are never formed.

Legend: n adapters, l layers, r rank, i in_features, o out_features.

|B1 A1 - B2 A2|^2 (Frobenius) = <B1'B1, A1 A1'> + <B2'B2, A2 A2'> - 2 <B1'B2, A1 A2'>: all factors are [r, r]. The L1
distance has no such form. A and B themselves may differ without any difference in what an adapter does (B Q, Q^-1 A).
"""

import torch
from torch import Tensor

from t2l.lora.weights import LoraWeights


def squared_norms(weights: LoraWeights) -> Tensor:
    """[n]: sum over modules and layers of |B A|^2, without the scaling."""
    return _inner(weights, weights)


def squared_distances(weights: LoraWeights, others: LoraWeights) -> Tensor:
    """[n]: sum over modules and layers of |B1 A1 - B2 A2|^2 of each pair, without the scaling.

    In fp32 good to about 1e-6 of the norms. Raises SpecMismatchError for two specs.
    """
    others.spec.check_matches(weights.spec, "the right side", "the left side")
    apart = squared_norms(weights) + squared_norms(others) - 2 * _inner(weights, others)
    return apart.clamp(min=0)


def inner_products(weights: LoraWeights) -> Tensor:
    """[n, n]: <ΔW, ΔW'> of all pairs, with the scaling, summed over modules and layers."""
    n, rank = len(weights), weights.spec.rank
    total_N_N = torch.zeros(n, n, device=weights.device)
    for name in weights.spec.module_names:
        for A_NRI, B_NOR in zip(weights.A[name].unbind(1), weights.B[name].unbind(1), strict=True):
            A_Nr_I, B_Nr_O = A_NRI.flatten(0, 1), B_NOR.mT.flatten(0, 1)
            both = (A_Nr_I @ A_Nr_I.T).mul_(B_Nr_O @ B_Nr_O.T)
            total_N_N += both.view(n, rank, n, rank).sum((1, 3))
    return total_N_N * weights.spec.scaling**2


def _inner(weights: LoraWeights, others: LoraWeights) -> Tensor:
    total = torch.zeros(len(weights), device=weights.device)
    for name in weights.A:
        A_NLRR = weights.A[name].float() @ others.A[name].float().mT
        B_NLRR = weights.B[name].float().mT @ others.B[name].float()
        total = total + (A_NLRR * B_NLRR).sum((1, 2, 3))
    return total
