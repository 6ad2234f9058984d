"""LoRA on prompts that stand one after the other, each by the adapter of its row: y + s B (A x), without gradients.

Two operators: `prompt_down` for all layers that read the same x, `prompt_up` for each of them.

Legend: T tokens, N adapters, R rank, M layers, I in_features, O out_features, P parts of I.
"""

import torch
import triton
from torch import Tensor

from t2l.kernels.lora_products import Dropout, go_down, go_up

PART = 512
"""Of I: each has programs of its own, as few tokens make few. The fastest on an H200 for 32 to 512 tokens, and at 2,000
a tenth slower than twice as much."""


@torch.library.custom_op("t2l::prompt_down", mutates_args=())
def prompt_down(x_T_I: Tensor, A_NRI_of_each: list[Tensor], adapter_T: Tensor) -> Tensor:
    """[P, T, M * R], fp32, whose sum over P is A x of each layer; adapter_T: of each token, ascending. An operator, for
    torch.compile."""
    return go_down(x_T_I.contiguous(), A_NRI_of_each, adapter_T, 1.0, Dropout(adapter_T, 0), PART)


@torch.library.custom_op("t2l::prompt_up", mutates_args=())
def prompt_up(y_T_O: Tensor, h_P_T_R: Tensor, B_NOR: Tensor, adapter_T: Tensor, scaling: float) -> Tensor:
    """[T, O]: y + s B h, from one layer's part of what `prompt_down` gives. An operator, for torch.compile."""
    return go_up(h_P_T_R, B_NOR.mT, adapter_T, scaling, Dropout(adapter_T, 0), y_T_O.contiguous())


prompt_up.register_fake(lambda y_T_O, *_: y_T_O.new_empty(y_T_O.shape))


@prompt_down.register_fake
def _(x_T_I: Tensor, A_NRI_of_each: list[Tensor], adapter_T: Tensor) -> Tensor:
    tokens, size = x_T_I.shape  # `len` would be a constant to torch.compile
    ranks = sum(A_NRI.shape[1] for A_NRI in A_NRI_of_each)
    return x_T_I.new_empty(triton.cdiv(size, PART), tokens, ranks, dtype=torch.float32)
