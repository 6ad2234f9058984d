"""Attention on a GPU, given to transformers under a name of its own: our kernel decodes, torch's reads prompts.

Axes: N rows in use (the first of R), H query heads, K key-value heads, T new tokens, L positions, D head size.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

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
    query_N_H_T_D: Tensor,
    key_N_K_T_D: Tensor,
    value_N_K_T_D: Tensor,
    attention_mask: Tensor | None,
    row_position_N: Tensor | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[N, T, H, D], called by every attention layer.

    row_position_N: what the model's forward was called with: the positions of single tokens; None: prompts are read.
    """
    kernels.check_attention(kwargs)
    if row_position_N is None:
        return sdpa_attention_forward(
            module, query_N_H_T_D, key_N_K_T_D, value_N_K_T_D, attention_mask, scaling=scaling, **kwargs
        )
    from t2l.kernels.decode_attention import decode_attention  # Triton is not there where kernels are not usable

    out_N_H_D = decode_attention(
        query_N_H_T_D[:, :, 0],
        key_N_K_T_D[:, :, 0],
        value_N_K_T_D[:, :, 0],
        getattr(module, _CACHE),
        row_position_N,
        scaling or query_N_H_T_D.shape[-1] ** -0.5,
        sliding_window,
    )
    return out_N_H_D[:, None], None
