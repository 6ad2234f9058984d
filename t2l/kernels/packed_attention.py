"""Causal attention of rows that stand one after the other without padding, and its gradients.

Rows are short, a block or a few: so no sums of several programs meet in memory, query heads of one key-value head add
up in registers, and there is one program for each block of each row, which ends at once where its row is shorter.

Legend: T tokens of all rows, B rows, H query heads, G key-value heads, D head size, M queries and N keys of a block.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2l.kernels.attention import FORWARD, LOG2_E, NO_WINDOW, Blocks, attend, common, constants, in_rows, put, tile

QUERIES = Blocks(64, 64, warps=4, stages=2)
KEYS = Blocks(64, 32, warps=4, stages=3)
"""Of both backward kernels, as FORWARD."""


@triton.jit
def _row(start_ptr):
    """Where this program's row starts, and its length."""
    start = tl.load(start_ptr + tl.program_id(2))
    return start, tl.load(start_ptr + tl.program_id(2) + 1) - start


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
    row, length = _row(start_ptr)
    first, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    if first >= length:
        return
    m, d = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    q = tile(q_ptr, q_stride, row, head, m, d, length, SIZE)
    highest = tl.full([BLOCK_M], -1e30, dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    found = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    from_n = tl.maximum(first + 1 - window, 0) // BLOCK_N * BLOCK_N
    for start in range(from_n, tl.minimum(first + BLOCK_M, length), BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = tile(k_ptr, k_stride, row, head // GROUP, n, d, length, SIZE)
        v = tile(v_ptr, v_stride, row, head // GROUP, n, d, length, SIZE)
        seen = _seen(m, n, length, window)
        highest, total, found = attend(q, k, v, seen, scale, highest, total, found, PRECISION)
    put(out_ptr, HEADS * SIZE, row, head, m, d, length, found / total[:, None], SIZE)
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
    row, length = _row(start_ptr)
    first, head = tl.program_id(0) * BLOCK_M, tl.program_id(1)
    if first >= length:
        return
    m, d = first + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    q = tile(q_ptr, q_stride, row, head, m, d, length, SIZE)
    dout = tile(dout_ptr, HEADS * SIZE, row, head, m, d, length, SIZE)
    out = tile(out_ptr, HEADS * SIZE, row, head, m, d, length, SIZE)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), axis=1)
    tl.store(delta_ptr + head * tokens + row + m, delta, mask=m < length)
    lse = tl.load(lse_ptr + head * tokens + row + m, mask=m < length, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], dtype=tl.float32)
    from_n = tl.maximum(first + 1 - window, 0) // BLOCK_N * BLOCK_N
    for start in range(from_n, tl.minimum(first + BLOCK_M, length), BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        k = tile(k_ptr, k_stride, row, head // GROUP, n, d, length, SIZE)
        v = tile(v_ptr, v_stride, row, head // GROUP, n, d, length, SIZE)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2_E)
        shares = tl.where(_seen(m, n, length, window), tl.exp2(scores - lse[:, None]), 0.0)
        dshares = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
        dscores = shares * (dshares - delta[:, None])
        dq = tl.dot(dscores.to(k.dtype), k, dq, input_precision=PRECISION)
    put(dq_ptr, HEADS * SIZE, row, head, m, d, length, dq * scale, SIZE)


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
    row, length = _row(start_ptr)
    first, group = tl.program_id(0) * BLOCK_N, tl.program_id(1)
    if first >= length:
        return
    n, d = first + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    k = tile(k_ptr, k_stride, row, group, n, d, length, SIZE)
    v = tile(v_ptr, v_stride, row, group, n, d, length, SIZE)
    dk = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], dtype=tl.float32)
    from_m = first // BLOCK_M * BLOCK_M
    blocks = tl.cdiv(tl.minimum(length, first + BLOCK_N - 1 + window) - from_m, BLOCK_M)
    for turn in range(0, GROUP * blocks):
        head = group * GROUP + turn // blocks
        m = from_m + turn % blocks * BLOCK_M + tl.arange(0, BLOCK_M)
        q = tile(q_ptr, q_stride, row, head, m, d, length, SIZE)
        dout = tile(dout_ptr, HEADS * SIZE, row, head, m, d, length, SIZE)
        lse = tl.load(lse_ptr + head * tokens + row + m, mask=m < length, other=0.0)
        delta = tl.load(delta_ptr + head * tokens + row + m, mask=m < length, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2_E)
        seen = tl.trans(_seen(m, n, length, window))
        shares = tl.where(seen, tl.exp2(scores - lse[None, :]), 0.0)
        dv = tl.dot(shares.to(dout.dtype), dout, dv, input_precision=PRECISION)
        dshares = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
        dscores = shares * (dshares - delta[None, :])
        dk = tl.dot(dscores.to(q.dtype), q, dk, input_precision=PRECISION)
    put(dk_ptr, HEADS // GROUP * SIZE, row, group, n, d, length, dk * scale, SIZE)
    put(dv_ptr, HEADS // GROUP * SIZE, row, group, n, d, length, dv, SIZE)


@torch.library.custom_op("t2l::packed_attention", mutates_args=())
def _attend(
    q_T_H_D: Tensor, k_T_G_D: Tensor, v_T_G_D: Tensor, start_B1: Tensor, longest: int, scale: float, window: int
) -> tuple[Tensor, Tensor]:
    """What each query finds [T, H, D], and log2 of its sum of exp [H, T]."""
    tokens, heads, size = q_T_H_D.shape
    out_T_H_D = q_T_H_D.new_empty(tokens, heads, size)
    lse_H_T = q_T_H_D.new_empty(heads, tokens, dtype=torch.float32)
    q_T_H_D, k_T_G_D, v_T_G_D = map(in_rows, (q_T_H_D, k_T_G_D, v_T_G_D))
    blocks = FORWARD.cut(size)
    _forward[(triton.cdiv(longest, blocks.own), heads, len(start_B1) - 1)](
        q_T_H_D,
        k_T_G_D,
        v_T_G_D,
        start_B1,
        out_T_H_D,
        lse_H_T,
        *common(q_T_H_D, k_T_G_D, v_T_G_D, scale, window),
        BLOCK_M=blocks.own,
        BLOCK_N=blocks.other,
        **constants(q_T_H_D, k_T_G_D, blocks),
    )
    return out_T_H_D, lse_H_T


@torch.library.custom_op("t2l::packed_attention_backward", mutates_args=())
def _gradients(
    dout_T_H_D: Tensor,
    q_T_H_D: Tensor,
    k_T_G_D: Tensor,
    v_T_G_D: Tensor,
    start_B1: Tensor,
    out_T_H_D: Tensor,
    lse_H_T: Tensor,
    longest: int,
    scale: float,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of q, k and v."""
    (tokens, heads, size), rows = q_T_H_D.shape, len(start_B1) - 1
    q_T_H_D, k_T_G_D, v_T_G_D = map(in_rows, (q_T_H_D, k_T_G_D, v_T_G_D))
    dout_T_H_D = dout_T_H_D.contiguous()
    dq_T_H_D = q_T_H_D.new_empty(tokens, heads, size)
    dk_T_G_D, dv_T_G_D = (x.new_empty(x.shape) for x in (k_T_G_D, v_T_G_D))
    delta_H_T = torch.empty_like(lse_H_T)
    inputs = q_T_H_D, k_T_G_D, v_T_G_D, start_B1
    shared = common(q_T_H_D, k_T_G_D, v_T_G_D, scale, window)
    blocks = QUERIES.cut(size)
    _backward_queries[(triton.cdiv(longest, blocks.own), heads, rows)](
        *inputs,
        out_T_H_D,
        lse_H_T,
        dout_T_H_D,
        delta_H_T,
        dq_T_H_D,
        *shared,
        BLOCK_M=blocks.own,
        BLOCK_N=blocks.other,
        **constants(q_T_H_D, k_T_G_D, blocks),
    )
    blocks = KEYS.cut(size)
    _backward_keys[(triton.cdiv(longest, blocks.own), k_T_G_D.shape[1], rows)](
        *inputs,
        lse_H_T,
        dout_T_H_D,
        delta_H_T,
        dk_T_G_D,
        dv_T_G_D,
        *shared,
        BLOCK_M=blocks.other,
        BLOCK_N=blocks.own,
        **constants(q_T_H_D, k_T_G_D, blocks),
    )
    return dq_T_H_D, dk_T_G_D, dv_T_G_D


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q_T_H_D, k_T_G_D, v_T_G_D, start_B1, *ctx.settings = inputs
    ctx.save_for_backward(q_T_H_D, k_T_G_D, v_T_G_D, start_B1, *output)


def _backward(ctx: Any, dout_T_H_D: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_gradients(dout_T_H_D, *ctx.saved_tensors, *ctx.settings), None, None, None, None


@_attend.register_fake
def _(q_T_H_D: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    tokens, heads, size = q_T_H_D.shape
    lse_H_T = q_T_H_D.new_empty(heads, tokens, dtype=torch.float32)
    return q_T_H_D.new_empty(tokens, heads, size), lse_H_T


@_gradients.register_fake
def _(dout_T_H_D: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:3])


_attend.register_autograd(_backward, setup_context=_keep)


def packed_attention(
    q_T_H_D: Tensor,
    k_T_G_D: Tensor,
    v_T_G_D: Tensor,
    start_B1: Tensor,
    longest: int,
    scale: float,
    window: int | None = None,
) -> Tensor:
    """[T, H, D]: attention of each token to those of its own row up to itself; operators, for torch.compile.

    start_B1: where each row starts (int32), and the end; longest: at least the tokens of every row. window: how many
    tokens, its own included, one sees.
    """
    return _attend(q_T_H_D, k_T_G_D, v_T_G_D, start_B1, longest, scale, window or NO_WINDOW)[0]
