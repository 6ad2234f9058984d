"""What training minimises: cross-entropy or KL on answers, and a pull of the generated weights towards zero.

Axes: K labels, V vocabulary, J likeliest tokens, n adapters, l layers, r rank, i in_features, o out_features.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from t2l.lora import LoraWeights


@dataclass(frozen=True)
class SoftLabels:
    """What the base model itself would say, had it read the definition: its J likeliest tokens, adding up to 1."""

    ids_K_J: Tensor
    probs_K_J: Tensor


@dataclass(frozen=True)
class LossInputs:
    """One batch's logits at label positions and the adapters behind them; `adapters_in_step` over all workers."""

    logits_K_V: Tensor
    label_ids_K: Tensor
    label_weights_K: Tensor
    weights: LoraWeights
    adapters_in_step: int
    teacher: SoftLabels | None = None


class Losses(NamedTuple):
    """This batch's share: shares of all batches of a step, on all workers, add up to the loss of the step.

    total is what to differentiate; the others are for the log: how far the answers (or, in reconstruction, the
    adapters) are off, and the penalty on the weights. A tuple, because DeepSpeed looks for tensors in those.
    """

    total: Tensor
    fit: Tensor
    l2: Tensor


def through_base_losses(inputs: LossInputs, label_smoothing: float, l2_generated: float) -> Losses:
    """Cross-entropy or, with a teacher, KL (mean over a sequence's answer tokens, then over sequences), and L2 of
    generated weights, in fp32.
    """
    if inputs.teacher is None:
        fit = answer_loss(inputs.logits_K_V, inputs.label_ids_K, inputs.label_weights_K, label_smoothing)
    else:
        fit = kl_loss(inputs.logits_K_V, inputs.teacher, inputs.label_weights_K)
    l2 = mean_squares(inputs.weights) * (len(inputs.weights) / inputs.adapters_in_step)
    return Losses(fit + l2_generated * l2, fit.detach(), l2.detach())


def answer_loss(
    logits_K_V: Tensor, label_ids_K: Tensor, label_weights_K: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of labels in fp32, weighted and summed up; the weights make it a mean (see `SftBatch`)."""
    loss_K = F.cross_entropy(logits_K_V.float(), label_ids_K, reduction="none", label_smoothing=label_smoothing)
    return torch.dot(loss_K, label_weights_K)


def kl_loss(logits_K_V: Tensor, teacher: SoftLabels, label_weights_K: Tensor) -> Tensor:
    """KL(teacher || model) in fp32, weighted and summed up as `answer_loss`; of a sure teacher, the cross-entropy.

    The model's probabilities are those over its whole vocabulary: what it gives to other tokens counts against it.
    """
    log_q_K_J = F.log_softmax(logits_K_V.float(), dim=-1).gather(1, teacher.ids_K_J)
    p_K_J = teacher.probs_K_J.float()
    loss_K = (torch.xlogy(p_K_J, p_K_J) - p_K_J * log_q_K_J).sum(1)
    return torch.dot(loss_K, label_weights_K)


def mean_squares(weights: LoraWeights) -> Tensor:
    """Sum over target modules of mean A^2 + mean B^2; the means are over adapters and layers too (paper, SFT)."""
    return torch.stack([tensor.float().square().mean() for tensor in weights.tensors()]).sum()
