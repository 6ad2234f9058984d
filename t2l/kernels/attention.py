"""What attention to packed rows is made of, for training (packed_attention.py) and for an engine (prompt_attention.py).

Legend: T tokens, H query heads, G key-value heads, D head size, M queries and N keys of a block.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from t2l.kernels import HOPPER, dot_block, precision, usable

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
NO_WINDOW = 1 << 30


class Blocks(NamedTuple):
    """What a program keeps (its own queries, or its own keys), and what it goes through."""

    own: int
    other: int
    warps: int
    stages: int

    def cut(self, size: int) -> "Blocks":
        """As much smaller as heads are larger than those of 128."""
        larger = max(1, triton.next_power_of_2(size) // 128)
        return self._replace(own=self.own // larger, other=self.other // larger)


FORWARD = Blocks(64, 32, warps=4, stages=3)
"""The fastest on an H200, for heads of 128 in bf16."""


@triton.jit
def tile(ptr, stride, row, head, rows, d, length, SIZE: tl.constexpr):
    """Rows of one head, zeros beyond its row's end: [len(rows), len(d)]."""
    places = (row + rows)[:, None].to(tl.int64) * stride + head * SIZE + d[None, :]
    return tl.load(ptr + places, mask=(rows < length)[:, None] & (d < SIZE)[None, :], other=0.0)


@triton.jit
def put(ptr, stride, row, head, rows, d, length, values, SIZE: tl.constexpr):
    places = (row + rows)[:, None].to(tl.int64) * stride + head * SIZE + d[None, :]
    tl.store(ptr + places, values.to(ptr.dtype.element_ty), mask=(rows < length)[:, None] & (d < SIZE)[None, :])


@triton.jit
def attend(q, k, v, seen, scale, highest, total, found, PRECISION: tl.constexpr):
    """Softmax goes on with some more keys: the highest score (in powers of 2), the sum, and what has been found.

    What a query that has seen nothing adds up is forgotten with its first score.
    """
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * LOG2_E)
    scores = tl.where(seen, scores, -1e30)
    higher = tl.maximum(highest, tl.max(scores, axis=1))
    shares = tl.exp2(scores - higher[:, None])
    shrink = tl.exp2(highest - higher)
    found = tl.dot(shares.to(v.dtype), v, found * shrink[:, None], input_precision=PRECISION)
    return higher, total * shrink + tl.sum(shares, axis=1), found


def in_rows(x_T_H_D: Tensor) -> Tensor:
    """With the heads of a token side by side, as the kernels read them."""
    return x_T_H_D if x_T_H_D.stride()[1:] == (x_T_H_D.shape[2], 1) else x_T_H_D.contiguous()


def common(q_T_H_D: Tensor, k_T_G_D: Tensor, v_T_G_D: Tensor, scale: float, window: int) -> tuple[float, ...]:
    """What every kernel is called with, in this order: strides of a token, tokens, scale and window."""
    return q_T_H_D.stride(0), k_T_G_D.stride(0), v_T_G_D.stride(0), len(q_T_H_D), scale, window


def constants(q_T_H_D: Tensor, k_T_G_D: Tensor, blocks: Blocks) -> dict[str, Any]:
    _, heads, size = q_T_H_D.shape
    return {
        "GROUP": heads // k_T_G_D.shape[1],
        "HEADS": heads,
        "SIZE": size,
        "BLOCK_D": dot_block(size),
        "PRECISION": precision(q_T_H_D.dtype),
        "num_warps": blocks.warps,
        "num_stages": blocks.stages if usable(q_T_H_D.device, HOPPER) else 1,  # others have less shared memory
    }
