"""Causal attention of prompts that stand one after the other without padding; their keys and values enter the cache.

A token knows its row and its position there, and no program where rows begin: so a CUDA graph of it holds for any
prompts of as many tokens together.

Legend: T tokens of all prompts, R rows of the cache, H query heads, G key-value heads, L positions, D head size.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2l.kernels.attention import FORWARD, NO_WINDOW, attend, common, constants, in_rows, put, tile


@triton.jit
def _prompts(
    q_ptr,
    k_ptr,
    v_ptr,
    row_ptr,
    position_ptr,
    keys_ptr,
    values_ptr,
    out_ptr,
    q_stride,
    k_stride,
    v_stride,
    tokens,
    scale,
    window,
    cache_row_stride,
    cache_head_stride,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: one query head of some tokens, and, for the first of its group, their keys and values."""
    first, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    m, d = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    position_m = tl.load(position_ptr + m, mask=m < tokens, other=-1)
    row_m = tl.load(row_ptr + m, mask=m < tokens, other=-1)
    if head % GROUP == 0:
        row_places = row_m.to(tl.int64) * cache_row_stride + head // GROUP * cache_head_stride + position_m * SIZE
        places, kept = row_places[:, None] + d[None, :], (position_m >= 0)[:, None] & (d < SIZE)[None, :]
        tl.store(keys_ptr + places, tile(k_ptr, k_stride, 0, head // GROUP, m, d, tokens, SIZE), mask=kept)
        tl.store(values_ptr + places, tile(v_ptr, v_stride, 0, head // GROUP, m, d, tokens, SIZE), mask=kept)
    q = tile(q_ptr, q_stride, 0, head, m, d, tokens, SIZE)
    oldest_m = m - tl.minimum(tl.maximum(position_m, 0), window - 1)
    highest = tl.full([BLOCK_M], -1e30, dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    found = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    end = tl.minimum(first + BLOCK_M, tokens)
    for row in range(tl.load(row_ptr + first), tl.load(row_ptr + end - 1) + 1):  # mostly one
        own = row_m == row
        from_n, to_n = tl.min(tl.where(own, oldest_m, tokens)), tl.max(tl.where(own, m, -1)) + 1
        for start in range(from_n, to_n, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            k = tile(k_ptr, k_stride, 0, head // GROUP, n, d, to_n, SIZE)
            v = tile(v_ptr, v_stride, 0, head // GROUP, n, d, to_n, SIZE)
            seen = own[:, None] & (n[None, :] >= oldest_m[:, None]) & (n[None, :] <= m[:, None])
            highest, total, more = attend(q, k, v, seen, scale, highest, total, found, PRECISION)
            found = tl.where(own[:, None], more, found)  # 0 * NaN: one row's values are nothing to another
    put(out_ptr, HEADS * SIZE, 0, head, m, d, tokens, found / total[:, None], SIZE)


@torch.library.custom_op("t2l::prompt_attention", mutates_args=("cache_2_R_G_L_D",))
def prompt_attention(
    q_T_H_D: Tensor,
    k_T_G_D: Tensor,
    v_T_G_D: Tensor,
    cache_2_R_G_L_D: Tensor,
    row_T: Tensor,
    position_T: Tensor,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """[T, H, D]: attention of each token to those of its own prompt up to itself; an operator, for torch.compile.

    row_T: of the cache, ascending. position_T: from 0 on; -1 where there is no token.
    window: how many positions, its own included, a token sees.
    """
    tokens, heads, size = q_T_H_D.shape
    keys_R_G_L_D, values_R_G_L_D = cache_2_R_G_L_D
    assert keys_R_G_L_D.stride()[2:] == (size, 1)
    q_T_H_D, k_T_G_D, v_T_G_D = map(in_rows, (q_T_H_D, k_T_G_D, v_T_G_D))
    out_T_H_D, blocks = q_T_H_D.new_empty(q_T_H_D.shape), FORWARD.cut(size)
    _prompts[(triton.cdiv(tokens, blocks.own), heads)](
        q_T_H_D,
        k_T_G_D,
        v_T_G_D,
        row_T,
        position_T,
        keys_R_G_L_D,
        values_R_G_L_D,
        out_T_H_D,
        *common(q_T_H_D, k_T_G_D, v_T_G_D, scale, window or NO_WINDOW),
        *keys_R_G_L_D.stride()[:2],
        BLOCK_M=blocks.own,
        BLOCK_N=blocks.other,
        **constants(q_T_H_D, k_T_G_D, blocks),
    )
    return out_T_H_D


prompt_attention.register_fake(lambda q_T_H_D, *_: q_T_H_D.new_empty(q_T_H_D.shape))
