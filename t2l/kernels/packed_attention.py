"""Causal attention of rows that stand one after the other without padding, and its gradients.

Rows are short, a block or a few: so no sums of several programs meet in memory, query heads of one key-value head add
up in registers, and there is one program for each block of each row, which ends at once where its row is shorter.

Legend: T tokens of all rows, B rows, H query heads, G key-value heads, D head size, M queries and N keys of a block.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634
NO_WINDOW = 1 << 30


class Blocks(NamedTuple):
    """What a program keeps (its own queries, or its own keys), and what it goes through."""

    own: int
    other: int
    warps: int
    stages: int


FORWARD = Blocks(64, 64, warps=4, stages=2)
QUERIES = Blocks(64, 64, warps=4, stages=2)
KEYS = Blocks(64, 64, warps=4, stages=2)
"""The fastest on an H200, for heads of 128 in bf16."""


@triton.jit
def _tile(ptr, stride, row, head, rows, d, length, SIZE: tl.constexpr):
    """Rows of one head, zeros beyond its row's end: [len(rows), len(d)]."""
    places = (row + rows)[:, None].to(tl.int64) * stride + head * SIZE + d[None, :]
    return tl.load(ptr + places, mask=(rows < length)[:, None] & (d < SIZE)[None, :], other=0.0)


@triton.jit
def _put(ptr, stride, row, head, rows, d, length, values, SIZE: tl.constexpr):
    places = (row + rows)[:, None].to(tl.int64) * stride + head * SIZE + d[None, :]
    tl.store(ptr + places, values.to(ptr.dtype.element_ty), mask=(rows < length)[:, None] & (d < SIZE)[None, :])


@triton.jit
def _seen(m, n, length, window):
    """Whether the queries m see the keys n: [len(m), len(n)]."""
    behind = m[:, None] - n[None, :]
    return (behind >= 0) & (behind < window) & (n < length)[None, :]


@triton.jit
def _forward(
    q_ptr,
    k_ptr,
    v_ptr,
    start_ptr,
    out_ptr,
    lse_ptr,
    q_stride,
    k_stride,
    v_stride,
    tokens,
    scale,
    window,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: queries of one head of one row. lse: log2 of the sum of exp, by which backward finds the shares."""
    row = tl.load(start_ptr + tl.program_id(2))
    length = tl.load(start_ptr + tl.program_id(2) + 1) - row
    first, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    if first >= length:
        return
    m, d = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    q = _tile(q_ptr, q_stride, row, head, m, d, length, SIZE)
    highest = tl.full([BLOCK_M], -1e30, dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    found = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    from_n = tl.maximum(first + 1 - window, 0) // BLOCK_N * BLOCK_N
    for start in range(from_n, tl.minimum(first + BLOCK_M, length), BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = _tile(k_ptr, k_stride, row, head // GROUP, n, d, length, SIZE)
        v = _tile(v_ptr, v_stride, row, head // GROUP, n, d, length, SIZE)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        scores = tl.where(_seen(m, n, length, window), scores, -1e30)
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        shares = tl.exp2(scores - higher[:, None])
        shrink = tl.exp2(highest - higher)
        found = tl.dot(shares.to(v.dtype), v, found * shrink[:, None], input_precision=PRECISION)
        total = total * shrink + tl.sum(shares, axis=1)
        highest = higher
    _put(out_ptr, HEADS * SIZE, row, head, m, d, length, found / total[:, None], SIZE)
    tl.store(lse_ptr + head * tokens + row + m, highest + tl.log2(total), mask=m < length)


@triton.jit
def _backward_queries(
    q_ptr,
    k_ptr,
    v_ptr,
    start_ptr,
    out_ptr,
    lse_ptr,
    dout_ptr,
    delta_ptr,
    dq_ptr,
    q_stride,
    k_stride,
    v_stride,
    tokens,
    scale,
    window,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """As `_forward`, for dq; and delta, out * dout summed over D, for `_backward_keys`."""
    row = tl.load(start_ptr + tl.program_id(2))
    length = tl.load(start_ptr + tl.program_id(2) + 1) - row
    first, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    if first >= length:
        return
    m, d = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    q = _tile(q_ptr, q_stride, row, head, m, d, length, SIZE)
    dout = _tile(dout_ptr, HEADS * SIZE, row, head, m, d, length, SIZE)
    out = _tile(out_ptr, HEADS * SIZE, row, head, m, d, length, SIZE)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1)
    tl.store(delta_ptr + head * tokens + row + m, delta, mask=m < length)
    lse = tl.load(lse_ptr + head * tokens + row + m, mask=m < length, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    from_n = tl.maximum(first + 1 - window, 0) // BLOCK_N * BLOCK_N
    for start in range(from_n, tl.minimum(first + BLOCK_M, length), BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = _tile(k_ptr, k_stride, row, head // GROUP, n, d, length, SIZE)
        v = _tile(v_ptr, v_stride, row, head // GROUP, n, d, length, SIZE)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * 1.4426950408889634)
        shares = tl.where(_seen(m, n, length, window), tl.exp2(scores - lse[:, None]), 0.0)
        dshares = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
        dscores = shares * (dshares - delta[:, None])
        dq = tl.dot(dscores.to(k.dtype), k, dq, input_precision=PRECISION)
    _put(dq_ptr, HEADS * SIZE, row, head, m, d, length, dq * scale, SIZE)


@triton.jit
def _backward_keys(
    q_ptr,
    k_ptr,
    v_ptr,
    start_ptr,
    lse_ptr,
    dout_ptr,
    delta_ptr,
    dk_ptr,
    dv_ptr,
    q_stride,
    k_stride,
    v_stride,
    tokens,
    scale,
    window,
    GROUP: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: keys of one key-value head of one row; through the queries of all its query heads."""
    row = tl.load(start_ptr + tl.program_id(2))
    length = tl.load(start_ptr + tl.program_id(2) + 1) - row
    first, group = tl.program_id(0) * BLOCK_N, tl.program_id(1)
    if first >= length:
        return
    n, d = first + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    k = _tile(k_ptr, k_stride, row, group, n, d, length, SIZE)
    v = _tile(v_ptr, v_stride, row, group, n, d, length, SIZE)
    dk = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    from_m = first // BLOCK_M * BLOCK_M
    blocks = tl.cdiv(tl.minimum(length, first + BLOCK_N - 1 + window) - from_m, BLOCK_M)
    for turn in range(0, GROUP * blocks):
        head = group * GROUP + turn // blocks
        m = from_m + turn % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
        q = _tile(q_ptr, q_stride, row, head, m, d, length, SIZE)
        dout = _tile(dout_ptr, HEADS * SIZE, row, head, m, d, length, SIZE)
        lse = tl.load(lse_ptr + head * tokens + row + m, mask=m < length, other=0.0)
        delta = tl.load(delta_ptr + head * tokens + row + m, mask=m < length, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * 1.4426950408889634)
        seen = tl.trans(_seen(m, n, length, window))
        shares = tl.where(seen, tl.exp2(scores - lse[None, :]), 0.0)
        dv = tl.dot(shares.to(dout.dtype), dout, dv, input_precision=PRECISION)
        dshares = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
        dscores = shares * (dshares - delta[None, :])
        dk = tl.dot(dscores.to(q.dtype), q, dk, input_precision=PRECISION)
    _put(dk_ptr, HEADS // GROUP * SIZE, row, group, n, d, length, dk * scale, SIZE)
    _put(dv_ptr, HEADS // GROUP * SIZE, row, group, n, d, length, dv, SIZE)
