"""silu(W norm(x) + bias), for so many rows that an MLP of the trunk is faster layer by layer than in one kernel.

One kernel for both layers computes the states between them once for each block of outputs, and its two products wait
for each other. Here the states are written and read once, as fp16 or bf16. fp32 is multiplied as halves
(t2l/kernels/halves.py): the weights' rows with a factor each; x and the states without, as their size is known: all
that goes through the trunk comes from a norm.

Legend: M rows, I size of x, O of the output.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from t2l.kernels import dot_block
from t2l.kernels.halves import as_halves, halves
from t2l.kernels.pieces import layer_norm, silu


class Blocks(NamedTuple):
    """What a program computes: rows x outputs, by so much of I at a time."""

    rows: int
    outputs: int
    size: int
    warps: int
    stages: int


BLOCKS = Blocks(128, 128, 64, warps=8, stages=3)
NORMED_BLOCKS = Blocks(64, 128, 128, warps=4, stages=3)
"""The fastest on an H200, these for x of 128: of larger rows, which a program holds whole, it takes fewer."""


@triton.jit(do_not_specialize=["rows"])
def _silu_linear(
    x_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    weight_ptr,
    bias_ptr,
    factor_ptr,
    residual_ptr,
    out_ptr,
    rows,
    eps,
    SIZE: tl.constexpr,
    OUTPUTS: tl.constexpr,
    NORM: tl.constexpr,
    FACTOR: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """One program: a block of rows and outputs; those of the same rows run at a time."""
    across = tl.cdiv(OUTPUTS, BLOCK_O)  # in one dimension: the others of a grid end at 65,535
    o = tl.program_id(0) % across * BLOCK_O + tl.arange(0, BLOCK_O)
    m = tl.program_id(0) // across * BLOCK_M + tl.arange(0, BLOCK_M)
    out = tl.zeros([BLOCK_M, BLOCK_O], dtype=tl.float32)
    for start in range(0, SIZE, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        inside = (m < rows)[:, None] & (i < SIZE)[None, :]
        x = tl.load(x_ptr + m[:, None].to(tl.int64) * SIZE + i[None, :], mask=inside, other=0.0)
        if NORM:
            x = layer_norm(x, norm_weight_ptr, norm_bias_ptr, i, eps, SIZE)
        if x.dtype == tl.float32:
            x = as_halves(x)
        read = (o < OUTPUTS)[:, None] & (i < SIZE)[None, :]
        weight = tl.load(weight_ptr + o[:, None] * SIZE + i[None, :], mask=read, other=0.0)
        out = tl.dot(x, tl.trans(weight), out)
    if FACTOR:
        out *= tl.load(factor_ptr + o, mask=o < OUTPUTS, other=0.0)[None, :]
    out += tl.load(bias_ptr + o, mask=o < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    out = silu(out)
    inside = (m < rows)[:, None] & (o < OUTPUTS)[None, :]
    places = m[:, None].to(tl.int64) * OUTPUTS + o[None, :]
    if RESIDUAL:
        out += tl.load(residual_ptr + places, mask=inside, other=0.0).to(tl.float32)
    out = as_halves(out) if out_ptr.dtype.element_ty == tl.float16 else out.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + places, out, mask=inside)


def silu_linear(
    x_M_I: Tensor,
    linear: nn.Linear,
    dtype: torch.dtype,
    norm: nn.LayerNorm | None = None,
    residual_M_O: Tensor | None = None,
) -> Tensor:
    """[M, O] of that dtype, plus the residual if there is one; x is contiguous, fp32 or what is multiplied."""
    outputs, size = linear.weight.shape
    weight, factor = halves(linear.weight) if linear.weight.dtype == torch.float32 else (linear.weight, None)
    out_M_O = x_M_I.new_empty(len(x_M_I), outputs, dtype=dtype)
    blocks = BLOCKS if norm is None else _whole_rows(size)
    columns = min(blocks.outputs, dot_block(outputs))
    _silu_linear[(triton.cdiv(outputs, columns) * triton.cdiv(len(x_M_I), blocks.rows),)](
        x_M_I,
        linear.bias if norm is None else norm.weight,
        linear.bias if norm is None else norm.bias,
        weight,
        linear.bias,
        linear.bias if factor is None else factor,
        x_M_I if residual_M_O is None else residual_M_O,
        out_M_O,
        len(x_M_I),
        0.0 if norm is None else norm.eps,
        SIZE=size,
        OUTPUTS=outputs,
        NORM=norm is not None,
        FACTOR=factor is not None,
        RESIDUAL=residual_M_O is not None,
        BLOCK_M=blocks.rows,
        BLOCK_I=blocks.size,
        BLOCK_O=columns,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out_M_O


def _whole_rows(size: int) -> Blocks:
    larger = max(1, dot_block(size) // NORMED_BLOCKS.size)
    return NORMED_BLOCKS._replace(rows=max(16, NORMED_BLOCKS.rows // larger), size=dot_block(size))
