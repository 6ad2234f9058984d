"""Attention on a GPU, given to transformers under a name of its own: one kernel reads prompts, another decodes.

Axes: B rows of the model's input (rows in use, or 1 where prompts are packed), T tokens of each, R rows of the cache, H
query heads, K key-value heads, L positions, D head size.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from t2l import kernels

NAME = "t2l_rows"
_CACHE = "row_cache_2_R_K_L_D"
"""Attribute of an attention layer: its keys and values. By the layer's number, each would be compiled anew."""


def can_fuse(model: PreTrainedModel) -> bool:
    """Not on CPUs, and not where attention is not torch's fused one either (Gemma 2 caps its scores)."""
    return kernels.usable(model.device) and model.config._attn_implementation != "eager"


def fuse_attention(model: PreTrainedModel, buffer: Tensor) -> None:
    """Let the model attend with `fused_attention` from now on, to this buffer [layers, 2, R, K, L, D]."""
    AttentionInterface.register(NAME, fused_attention)
    model.set_attn_implementation(NAME)
    for module in model.modules():
        if isinstance(layer := getattr(module, "layer_idx", None), int):
            setattr(module, _CACHE, buffer[layer])


def fused_attention(
    module: nn.Module,
    query_B_H_T_D: Tensor,
    key_B_K_T_D: Tensor,
    value_B_K_T_D: Tensor,
    attention_mask: Tensor | None,
    row_position_N: Tensor | None = None,
    row_T: Tensor | None = None,
    position_T: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[B, T, H, D], called by every attention layer; new keys and values enter the cache.

    The model's forward is called with one of these: row_position_N, where single tokens of the first N rows stand; or
    row_T and position_T, of packed prompts.
    """
    kernels.check_attention(kwargs)
    # Triton is not there where kernels are not usable
    from t2l.kernels.decode_attention import decode_attention
    from t2l.kernels.prompt_attention import prompt_attention

    cache, scale = getattr(module, _CACHE), scaling or query_B_H_T_D.shape[-1] ** -0.5
    if row_position_N is not None:
        new = (x_B_H_T_D[:, :, 0] for x_B_H_T_D in (query_B_H_T_D, key_B_K_T_D, value_B_K_T_D))
        return decode_attention(*new, cache, row_position_N, scale, sliding_window)[:, None], None
    assert row_T is not None and position_T is not None
    new = (x_1_H_T_D[0].transpose(0, 1) for x_1_H_T_D in (query_B_H_T_D, key_B_K_T_D, value_B_K_T_D))
    return prompt_attention(*new, cache, row_T, position_T, scale, sliding_window)[None], None
