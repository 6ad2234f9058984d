"""Bias-HyperInit (Beck et al., https://arxiv.org/abs/2210.11348): every task starts at the same fresh LoRA.

Upstream writes the LoRA init into the heads' bias, which its M and S share between A and B, so that their B,
and with it their change of the base model, is not 0 at step 0. Here the head is silent (weight and bias 0)
and the LoRA init lies in the output's shift, which knows sides, layers and ranks: B is exactly 0 in every
variant, each layer has its own A, and weight decay pulls the bias towards the init rather than away from it.
Upstream's weights still fit exactly: its bias in the head, shift 0.
"""

from typing import TYPE_CHECKING

import torch

from t2l.lora.weights import LoraWeights

if TYPE_CHECKING:
    from t2l.hypernet.model import HyperNetwork


@torch.no_grad()
def bias_hyperinit_(hypernet: "HyperNetwork", offset: LoraWeights | None = None) -> None:
    """Silence the heads and start at `offset` (one adapter), or at a fresh LoRA (A Kaiming uniform, B 0).

    Draws from torch's global generator.
    """
    for head in hypernet.heads.parameters():
        head.zero_()
    hypernet.set_offset(LoraWeights.init(hypernet.spec, 1) if offset is None else offset)
