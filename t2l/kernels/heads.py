"""A linear layer of a head and its output units in one pass: rows = (W x + bias) * scale + shift, one side of a module.

The rows are by far the largest tensor. A matrix product and an elementwise pass move them three times; here they are
written, once, and neither a cut of W nor a part of the trunk's output is copied.

Legend: N tasks, L layers, R rank, S size of the side (in_features or out_features), H head input, K ranks that have
outputs of their own (R, or 1 if they have inputs of their own). The product has N L or N L R rows and K S columns.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2l.kernels import FP32_PRECISION
from t2l.kernels.halves import halves


class Blocks(NamedTuple):
    """What a program computes: rows x columns, of H so much at a time."""

    rows: int
    columns: int
    h: int
    warps: int
    stages: int
    band: int = 16
    """Blocks of rows that go together through the columns, for the cache."""


BLOCKS: dict[torch.dtype, tuple[tuple[float, Blocks], ...]] = {
    torch.bfloat16: (
        (32, Blocks(32, 64, 128, warps=4, stages=3)),
        (128, Blocks(128, 64, 64, warps=4, stages=4)),
        (512, Blocks(64, 64, 64, warps=4, stages=4)),
        (math.inf, Blocks(128, 128, 64, warps=8, stages=4)),
    ),
    torch.float32: (
        (32, Blocks(32, 64, 64, warps=4, stages=3)),
        (128, Blocks(128, 64, 32, warps=4, stages=4)),
        (512, Blocks(64, 64, 64, warps=4, stages=3)),
    ),
    torch.float16: ((math.inf, Blocks(128, 128, 64, warps=8, stages=3)),),
}
"""By what is multiplied, for at most so many rows, the fastest on an H200. With few, the time is that of reading W:
every core must read."""

SHARE = 64
"""Multiples of so many tasks go by so many at a time, for which scale and shift are read once; that leaves registers
for larger blocks."""

SHARED_BLOCKS = {
    torch.bfloat16: Blocks(128, 128, 64, warps=8, stages=3),
    torch.float16: Blocks(128, 128, 64, warps=8, stages=3, band=8),
}

HALVED = 512
"""Rows of fp32 beyond which it pays to make halves of x and W first; so there are no blocks for more of fp32 itself."""


@triton.jit(do_not_specialize=["tasks"])
def _head_rows(
    x_ptr,
    weight_ptr,
    bias_ptr,
    scale_ptr,
    shift_ptr,
    x_factor_ptr,
    weight_factor_ptr,
    out_ptr,
    x_stride,
    weight_stride,
    bias_stride,
    tasks,
    GROUPS: tl.constexpr,
    RANKS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SIZE: tl.constexpr,
    HIDDEN: tl.constexpr,
    X_FACTOR: tl.constexpr,
    WEIGHT_FACTOR: tl.constexpr,
    PRECISION: tl.constexpr,
    SHARED: tl.constexpr,
    BAND: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """One program: a block of rows and columns.

    Rows are dealt out SHARED tasks at a time, group by group: a group, a layer or a rank of one, has scale and shift of
    its own, which these tasks share. x lies RANKS rows at a time. Rows are counted from the block's first task on: it
    takes fewer registers, so that two programs fit on a core, of which one computes while the other writes.
    """
    rows = tasks * GROUPS
    # A band of blocks, then its neighbours to the right: what runs at a time reads the same x and W.
    per_band = BAND * tl.cdiv(COLUMNS, BLOCK_J)
    top = tl.program_id(0) // per_band * BAND
    height = tl.minimum(tl.cdiv(rows, BLOCK_M) - top, BAND)
    turn = tl.program_id(0) % per_band
    first = (top + turn % height) * BLOCK_M
    m = first + tl.arange(0, BLOCK_M)
    j = turn // height * BLOCK_J + tl.arange(0, BLOCK_J)

    # Beyond the edge, the last row and column again: so no load of the loop needs a mask.
    inner = tl.minimum(m, rows - 1)
    first_task = first // (GROUPS * SHARED) * SHARED
    task = inner // (GROUPS * SHARED) * SHARED + inner % SHARED - first_task
    row, first_row = (task * GROUPS + inner // SHARED % GROUPS).to(tl.int64), first_task.to(tl.int64) * GROUPS
    x_rows = x_ptr + first_row // RANKS * x_stride + (row // RANKS * x_stride + row % RANKS * HIDDEN)
    inner = tl.minimum(j, COLUMNS - 1)
    rank, column = (inner // SIZE).to(tl.int64), inner % SIZE
    weights = weight_ptr + rank * weight_stride + column * HIDDEN
    found = tl.zeros([BLOCK_M, BLOCK_J], dtype=tl.float32)
    for start in range(0, HIDDEN, BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        if HIDDEN % BLOCK_H == 0:
            x = tl.load(x_rows[:, None] + h[None, :])
            weight = tl.load(weights[:, None] + h[None, :])
        else:
            x = tl.load(x_rows[:, None] + h[None, :], mask=(h < HIDDEN)[None, :], other=0.0)
            weight = tl.load(weights[:, None] + h[None, :], mask=(h < HIDDEN)[None, :], other=0.0)
        found = tl.dot(x, tl.trans(weight), found, input_precision=PRECISION)

    if X_FACTOR:
        found *= tl.load(x_factor_ptr + first_row // RANKS + row // RANKS)[:, None]
    bias = tl.load(bias_ptr + rank * bias_stride + column).to(tl.float32)
    group = (first // SHARED + tl.arange(0, BLOCK_M // SHARED)) % GROUPS
    places = group[:, None] * COLUMNS + j[None, :]
    scale = tl.load(scale_ptr + places, mask=(j < COLUMNS)[None, :], other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + places, mask=(j < COLUMNS)[None, :], other=0.0).to(tl.float32)
    shift += bias[None, :] * scale
    if WEIGHT_FACTOR:
        scale *= tl.load(weight_factor_ptr + rank * SIZE + column)[None, :]
    found = tl.reshape(found, [BLOCK_M // SHARED, SHARED, BLOCK_J]) * scale[:, None, :] + shift[:, None, :]
    out = tl.reshape(found, [BLOCK_M, BLOCK_J]).to(out_ptr.dtype.element_ty)
    places = row[:, None] * COLUMNS + j[None, :]
    tl.store(out_ptr + first_row * COLUMNS + places, out, mask=(m < rows)[:, None] & (j < COLUMNS)[None, :])


def head_rows(x: Tensor, weight_K_S_H: Tensor, bias_K_S: Tensor, scale_L_R_S: Tensor, shift_L_R_S: Tensor) -> Tensor:
    """Rows [N, L, R, S] of one side from its part of the trunk's output: [N, L, H] if K is R, else [N, L, R, H].

    x: of the weights' dtype, or halves of fp32 (t2l/kernels/mlp.py).
    """
    layers, ranks, size = scale_L_R_S.shape
    tasks, own = len(x), len(weight_K_S_H)
    in_rows = ranks if x.ndim == 4 else 1
    assert in_rows * own == ranks and all(t.is_contiguous() for t in (scale_L_R_S, shift_L_R_S, weight_K_S_H[0]))
    x_rows = x.flatten(0, 1)  # a view: between the rows lie those of other modules and sides
    assert x_rows[0].is_contiguous()
    rows, groups, columns = tasks * layers * in_rows, layers * in_rows, own * size
    out_N_L_R_S = torch.empty(tasks, layers, ranks, size, dtype=weight_K_S_H.dtype, device=x.device)
    x_factor = weight_factor = None
    if x.dtype == torch.float32 and rows > HALVED:
        x_rows, x_factor = halves(x_rows.flatten(1))
    if x_rows.dtype != weight_K_S_H.dtype:
        weight, weight_factor = halves(weight_K_S_H.reshape(-1, x.shape[-1]))
        weight_K_S_H = weight.view_as(weight_K_S_H)
    shared = tasks % SHARE == 0 and x_rows.dtype in SHARED_BLOCKS
    by_rows = next(blocks for most, blocks in BLOCKS[x_rows.dtype] if rows <= most)
    blocks = SHARED_BLOCKS[x_rows.dtype] if shared else by_rows
    _head_rows[(triton.cdiv(rows, blocks.rows) * triton.cdiv(columns, blocks.columns),)](
        x_rows,
        weight_K_S_H,
        bias_K_S,
        scale_L_R_S,
        shift_L_R_S,
        x_factor,
        weight_factor,
        out_N_L_R_S,
        x_rows.stride(0),
        weight_K_S_H.stride(0),
        bias_K_S.stride(0),
        tasks,
        GROUPS=groups,
        RANKS=in_rows,
        COLUMNS=columns,
        SIZE=size,
        HIDDEN=x.shape[-1],
        X_FACTOR=x_factor is not None,
        WEIGHT_FACTOR=weight_factor is not None,
        PRECISION=FP32_PRECISION,
        SHARED=SHARE if shared else 1,
        BAND=blocks.band,
        BLOCK_M=blocks.rows,
        BLOCK_J=blocks.columns,
        BLOCK_H=blocks.h,
        num_warps=blocks.warps,
        num_stages=blocks.stages,
    )
    return out_N_L_R_S
