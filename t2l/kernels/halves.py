"""fp32 rows as fp16 rows, each with a factor of its own, for matrix products at twice the rate of TF32.

Both have mantissas of 10 bits. What fp16 lacks is range: a row is multiplied by the power of two that brings its
largest element close to fp16's own, so elements down to 2^-29 of it keep all bits, and smaller ones lose next to
nothing.

Legend: M rows, S their size.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK_M, _BLOCK_S = 4, 512


class Halves(NamedTuple):
    """rows [M, S] (fp16) times factor [M] (fp32) are the rows that they were made of."""

    rows: Tensor
    factor: Tensor


@triton.jit
def as_halves(x):
    """As fp16 without a factor, for values whose size is known: after a norm, say. The largest stay finite.

    Elements below 2^-14 lose bits, by at most 2^-25 each.
    """
    return tl.clamp(x, -65504.0, 65504.0).to(tl.float16)


@triton.jit
def _halve(
    x_ptr,
    rows_ptr,
    factor_ptr,
    rows,
    stride,
    SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """One program: a block of whole rows."""
    m, s = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_S)
    x_rows = x_ptr + m.to(tl.int64) * stride
    largest = tl.zeros([BLOCK_M], dtype=tl.float32)
    for start in range(0, SIZE, BLOCK_S):
        inside = (m < rows)[:, None] & (start + s < SIZE)[None, :]
        x = tl.load(x_rows[:, None] + start + s[None, :], mask=inside, other=0.0)
        largest = tl.maximum(largest, tl.max(tl.abs(x), 1))
    # Its exponent, as fp32 has it; the row's largest will lie between 2^14 and 2^15.
    exponent = largest.to(tl.int32, bitcast=True) >> 23
    exponent = tl.maximum(exponent, 15)  # of smaller ones, the factor could not be written
    scale = ((268 - exponent) << 23).to(tl.float32, bitcast=True)
    factor = ((exponent - 14) << 23).to(tl.float32, bitcast=True)
    for start in range(0, SIZE, BLOCK_S):
        inside = (m < rows)[:, None] & (start + s < SIZE)[None, :]
        x = tl.load(x_rows[:, None] + start + s[None, :], mask=inside, other=0.0) * scale[:, None]
        tl.store(rows_ptr + m[:, None].to(tl.int64) * SIZE + start + s[None, :], x.to(tl.float16), mask=inside)
    tl.store(factor_ptr + m, factor, mask=m < rows)


def halves(x_M_S: Tensor) -> Halves:
    """Of fp32 rows, each of which is contiguous."""
    (rows, size), block = x_M_S.shape, min(_BLOCK_S, triton.next_power_of_2(x_M_S.shape[1]))
    made = Halves(x_M_S.new_empty(rows, size, dtype=torch.float16), x_M_S.new_empty(rows))
    _halve[(triton.cdiv(rows, _BLOCK_M),)](
        x_M_S, *made, rows, x_M_S.stride(0), SIZE=size, BLOCK_M=_BLOCK_M, BLOCK_S=block
    )
    return made
