"""The SFT loss: cross-entropy on answers, and a pull of the generated weights towards zero.

Axes: K labels, V vocabulary, n adapters, l layers, r rank, i in_features, o out_features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from t2l.lora import LoraWeights


@dataclass(frozen=True)
class SftLossInputs:
    """One batch's logits at label positions and the adapters behind them; `adapters_in_step` over all workers."""

    logits_K_V: Tensor
    label_ids_K: Tensor
    label_weights_K: Tensor
    weights: LoraWeights
    adapters_in_step: int


class SftLosses(NamedTuple):
    """This batch's share: shares of all batches of a step, on all workers, add up to the loss of the step.

    total is what to differentiate; the others are for the log. A tuple, because DeepSpeed looks for tensors in those.
    """

    total: Tensor
    cross_entropy: Tensor
    l2: Tensor


def sft_losses(inputs: SftLossInputs, label_smoothing: float, l2_generated: float) -> SftLosses:
    """Cross-entropy (mean over a sequence's answer tokens, then over sequences) + L2 of generated weights, in fp32."""
    cross_entropy = answer_loss(inputs.logits_K_V, inputs.label_ids_K, inputs.label_weights_K, label_smoothing)
    l2 = mean_squares(inputs.weights) * (len(inputs.weights) / inputs.adapters_in_step)
    return SftLosses(cross_entropy + l2_generated * l2, cross_entropy.detach(), l2.detach())


def answer_loss(
    logits_K_V: Tensor, label_ids_K: Tensor, label_weights_K: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of labels in fp32, weighted and summed up; the weights make it a mean (see `SftBatch`)."""
    loss_K = F.cross_entropy(logits_K_V.float(), label_ids_K, reduction="none", label_smoothing=label_smoothing)
    return torch.dot(loss_K, label_weights_K)


def mean_squares(weights: LoraWeights) -> Tensor:
    """Sum over target modules of mean A^2 + mean B^2; the means are over adapters and layers too (paper, SFT)."""
    return torch.stack([tensor.float().square().mean() for tensor in weights.tensors()]).sum()
