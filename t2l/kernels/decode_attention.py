"""Attention of one new token a row to the row's own cache, which it enters on the way.

Rows are at positions of their own, which only the device knows: no mask, nothing read beyond a row's position, and a
CUDA graph of it holds for all positions.

Legend: N rows, Q query heads, K key-value heads, G query heads a key-value head, D head size, L positions.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2l.kernels import dot_block, precision

_BLOCK_BYTES = 64 * 256
"""Of keys, and of values, at a time: 64 positions of 128 in bf16. Three such blocks of both are in flight, 96 KiB."""


@triton.jit
def _decode_attention(
    q_ptr,
    k_ptr,
    v_ptr,
    keys_ptr,
    values_ptr,
    position_ptr,
    out_ptr,
    q_row_stride,
    k_row_stride,
    v_row_stride,
    cache_row_stride,
    cache_head_stride,
    scale,
    window,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    WINDOWED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """One program: the query heads of one key-value head of one row."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    position = tl.load(position_ptr + row)
    d = tl.arange(0, BLOCK_D)
    g = tl.arange(0, BLOCK_G)
    cache = row * cache_row_stride + head * cache_head_stride
    k = tl.load(k_ptr + row * k_row_stride + head * SIZE + d, mask=d < SIZE, other=0.0)
    v = tl.load(v_ptr + row * v_row_stride + head * SIZE + d, mask=d < SIZE, other=0.0)
    tl.store(keys_ptr + cache + position * SIZE + d, k, mask=d < SIZE)
    tl.store(values_ptr + cache + position * SIZE + d, v, mask=d < SIZE)

    inside = (g < GROUP)[:, None] & (d < SIZE)[None, :]
    place = (head * GROUP + g)[:, None] * SIZE + d[None, :]
    q = tl.load(q_ptr + row * q_row_stride + place, mask=inside, other=0.0)
    # The new token is what the sum begins with, so that nothing just written is read back.
    highest = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], axis=1) * scale
    total = tl.full([BLOCK_G], 1.0, dtype=tl.float32)
    found = tl.zeros([BLOCK_G, BLOCK_D], dtype=tl.float32) + v.to(tl.float32)[None, :]
    first = 0
    if WINDOWED:
        first = tl.maximum(position + 1 - window, 0)
    for start in range(first, position, BLOCK_L):
        where = start + tl.arange(0, BLOCK_L)
        seen = where < position
        places = cache + where[:, None] * SIZE + d[None, :]
        known = seen[:, None] & (d < SIZE)[None, :]
        keys = tl.load(keys_ptr + places, mask=known, other=0.0)
        scores = tl.dot(q, tl.trans(keys), input_precision=PRECISION) * scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        shares = tl.exp(scores - higher[:, None])
        shrink = tl.exp(highest - higher)
        values = tl.load(values_ptr + places, mask=known, other=0.0)
        found = found * shrink[:, None] + tl.dot(shares.to(values.dtype), values, input_precision=PRECISION)
        total = total * shrink + tl.sum(shares, axis=1)
        highest = higher
    out = out_ptr + row * HEADS * GROUP * SIZE + place
    tl.store(out, (found / total[:, None]).to(q.dtype), mask=inside)


@torch.library.custom_op("t2l::decode_attention", mutates_args=("cache_2_N_K_L_D",))
def decode_attention(
    q_N_Q_D: Tensor,
    k_N_K_D: Tensor,
    v_N_K_D: Tensor,
    cache_2_N_K_L_D: Tensor,
    position_N: Tensor,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """[N, Q, D]: attention of each row's token at `position_N` to itself and the row's positions before it.

    k and v are written to that position of the cache (keys, then values). window: how many positions, its own included,
    a token sees. An operator, for torch.compile.
    """
    rows, query_heads, size = q_N_Q_D.shape
    heads = k_N_K_D.shape[1]
    keys_N_K_L_D, values_N_K_L_D = cache_2_N_K_L_D
    assert keys_N_K_L_D.stride()[2:] == (size, 1)
    assert all(tensor.stride()[1:] == (size, 1) for tensor in (q_N_Q_D, k_N_K_D, v_N_K_D))
    group = query_heads // heads
    block_d = dot_block(size)
    out_N_Q_D = q_N_Q_D.new_empty(q_N_Q_D.shape)
    _decode_attention[(rows, heads)](
        q_N_Q_D,
        k_N_K_D,
        v_N_K_D,
        keys_N_K_L_D,
        values_N_K_L_D,
        position_N,
        out_N_Q_D,
        q_N_Q_D.stride(0),
        k_N_K_D.stride(0),
        v_N_K_D.stride(0),
        keys_N_K_L_D.stride(0),
        keys_N_K_L_D.stride(1),
        scale,
        window or 0,
        HEADS=heads,
        GROUP=group,
        SIZE=size,
        WINDOWED=window is not None,
        PRECISION=precision(q_N_Q_D.dtype),
        BLOCK_G=dot_block(group),
        BLOCK_D=block_d,
        BLOCK_L=min(64, max(16, _BLOCK_BYTES // (block_d * q_N_Q_D.itemsize))),
    )
    return out_N_Q_D


decode_attention.register_fake(lambda q_N_Q_D, *_: q_N_Q_D.new_empty(q_N_Q_D.shape))
