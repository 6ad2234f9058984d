"""The trunk's MLPs in one pass each: silu(down(silu(up(norm(x))))), perhaps plus x; what is between stays in registers.

As single operations the states between, four times as wide as x, are written and read six times. Many rows go layer by
layer (t2l/kernels/silu_linear.py).

Legend: M rows, I size of x, H hidden size, O size of the output.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from t2l.kernels import FP32_PRECISION, dot_block
from t2l.kernels.pieces import layer_norm, silu
from t2l.kernels.silu_linear import silu_linear


class Blocks(NamedTuple):
    """What a program computes: rows x outputs, by so much of H at a time."""

    rows: int
    outputs: int
    hidden: int
    warps: int
    stages: int


BLOCKS = (
    (512, Blocks(16, 32, 128, warps=4, stages=3)),
    (math.inf, Blocks(64, 64, 64, warps=4, stages=3)),
)
"""For at most so many rows, the fastest on an H200 for x of 128. Programs that share rows all compute their hidden
states."""

ROW_BYTES = 512
"""Of those; a program holds whole rows of x, so of larger ones it takes fewer, and less of H."""

LARGEST = 512
"""Size of x, of which a program would else take too few rows."""

MANY = 2048
"""Rows beyond which it pays to go layer by layer."""


@triton.jit(do_not_specialize=["rows"])
def _mlp_rows(
    x_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    up_weight_ptr,
    up_bias_ptr,
    down_weight_ptr,
    down_bias_ptr,
    out_ptr,
    rows,
    eps,
    SIZE: tl.constexpr,
    HIDDEN: tl.constexpr,
    OUTPUTS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """One program: a block of rows and outputs."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    i, o = tl.arange(0, BLOCK_I), tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    inside = (m < rows)[:, None] & (i < SIZE)[None, :]
    x = tl.load(x_ptr + m[:, None].to(tl.int64) * SIZE + i[None, :], mask=inside, other=0.0)
    if NORM:
        x = layer_norm(x, norm_weight_ptr, norm_bias_ptr, i, eps, SIZE)
    out = tl.zeros([BLOCK_M, BLOCK_O], dtype=tl.float32)
    for start in range(0, HIDDEN, BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        in_up = (h < HIDDEN)[:, None] & (i < SIZE)[None, :]
        up = tl.load(up_weight_ptr + h[:, None] * SIZE + i[None, :], mask=in_up, other=0.0)
        hidden = tl.dot(x, tl.trans(up), input_precision=PRECISION)
        hidden = silu(hidden + tl.load(up_bias_ptr + h, mask=h < HIDDEN, other=0.0).to(tl.float32)[None, :])
        in_down = (o < OUTPUTS)[:, None] & (h < HIDDEN)[None, :]
        down = tl.load(down_weight_ptr + o[:, None] * HIDDEN + h[None, :], mask=in_down, other=0.0)
        out = tl.dot(hidden.to(down.dtype), tl.trans(down), out, input_precision=PRECISION)
    out = silu(out + tl.load(down_bias_ptr + o, mask=o < OUTPUTS, other=0.0).to(tl.float32)[None, :])
    inside = (m < rows)[:, None] & (o < OUTPUTS)[None, :]
    places = m[:, None].to(tl.int64) * OUTPUTS + o[None, :]
    if RESIDUAL:
        out += tl.load(x_ptr + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + places, out.to(out_ptr.dtype.element_ty), mask=inside)


def mlp_rows(
    x: Tensor, norm: nn.LayerNorm | None, up: nn.Linear, down: nn.Linear, residual: bool, halved: bool = False
) -> Tensor:
    """[..., I] -> [..., O]; residual: plus x, where O is I; halved: of many rows of fp32, fp16."""
    (hidden, size), outputs = up.weight.shape, len(down.weight)
    assert down.weight.shape[1] == hidden and (outputs == size or not residual)
    x_M_I = x.reshape(-1, size).contiguous()
    if len(x_M_I) > MANY:
        between = torch.float16 if x.dtype == torch.float32 else x.dtype
        states_M_H = silu_linear(x_M_I, up, between, norm)
        out_M_O = silu_linear(
            states_M_H, down, between if halved else x.dtype, residual_M_O=x_M_I if residual else None
        )
        return out_M_O.view(*x.shape[:-1], outputs)
    out_M_O = x.new_empty(len(x_M_I), outputs)
    blocks = _cut(next(blocks for most, blocks in BLOCKS if len(x_M_I) <= most), x_M_I)
    columns = min(blocks.outputs, dot_block(outputs))
    _mlp_rows[(triton.cdiv(len(x_M_I), blocks.rows), triton.cdiv(outputs, columns))](
        x_M_I,
        up.bias if norm is None else norm.weight,
        up.bias if norm is None else norm.bias,
        up.weight,
        up.bias,
        down.weight,
        down.bias,
        out_M_O,
        len(x_M_I),
        0.0 if norm is None else norm.eps,
        SIZE=size,
        HIDDEN=hidden,
        OUTPUTS=outputs,
        NORM=norm is not None,
        RESIDUAL=residual,
        PRECISION=FP32_PRECISION,
        BLOCK_M=blocks.rows,
        BLOCK_I=dot_block(size),
        BLOCK_H=blocks.hidden,
        BLOCK_O=columns,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out_M_O.view(*x.shape[:-1], outputs)


def _cut(blocks: Blocks, x_M_I: Tensor) -> Blocks:
    """As much smaller as rows are larger than those that they are for."""
    times = max(1, triton.next_power_of_2(x_M_I.shape[1]) * x_M_I.element_size() // ROW_BYTES)
    return blocks._replace(rows=max(16, blocks.rows // times), hidden=max(16, blocks.hidden // times))
