"""LoRA for one token a row, every row under an adapter of its own: s B (A x) in one pass over A and B, for all layers
that read the same x.

As batched matmuls the two products are tiny, and take several times as long as reading A and B. What is added to a
layer's own output is written by itself: torch.compile makes one kernel of the sum and of what comes next.

Legend: N rows, M layers (up to 3), R rank, I in_features, O out_features of one layer, S those of all.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_wait

from t2l.kernels import HOPPER, MOST_LAYERS, distances, usable

_BLOCK = 4096
"""Much of A and B in flight at a time, a program's time is that of its first load; for ranks up to 8, of larger ones as
much less as fits into registers."""
_SMALL = 1024
"""Outputs of which a program takes few enough registers to start early. Both are the fastest on an H200 for rank 8."""
_LEAST = 256


@triton.jit
def _of_layer(block, blocks_0, blocks_1, first, second, third):
    """Of up to three layers that take so many blocks, one after the other: what is of the layer of this one."""
    return tl.where(block < blocks_0, first, tl.where(block < blocks_0 + blocks_1, second, third))


@triton.jit
def _row_lora(
    x_ptr,
    A_ptr,
    B_ptr,
    out_ptr,
    in_features,
    A_1,
    A_2,
    B_1,
    B_2,
    A_row_0,
    A_row_1,
    A_row_2,
    B_row_0,
    B_row_1,
    B_row_2,
    out_0,
    out_1,
    out_2,
    scaling,
    RANK: tl.constexpr,
    EARLY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """One program: a block of outputs of one layer and row. Each computes A x anew; A then comes from the cache.

    A_1, A_2, B_1, B_2: how far from the first layer's the others' lie; A_row_0, …: from row to row.
    EARLY: it may start before the kernel before it has ended, and then asks for A and B while x is computed.
    """
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    blocks_0, blocks_1 = tl.cdiv(out_0, BLOCK_O), tl.cdiv(out_1, BLOCK_O)
    A_ptr += _of_layer(block, blocks_0, blocks_1, 0, A_1, A_2)
    A_ptr += row * _of_layer(block, blocks_0, blocks_1, A_row_0, A_row_1, A_row_2)
    B_ptr += _of_layer(block, blocks_0, blocks_1, 0, B_1, B_2)
    B_ptr += row * _of_layer(block, blocks_0, blocks_1, B_row_0, B_row_1, B_row_2)
    out_ptr += _of_layer(block, blocks_0, blocks_1, 0, out_0, out_0 + out_1) + row * (out_0 + out_1 + out_2)
    out_features = _of_layer(block, blocks_0, blocks_1, out_0, out_1, out_2)
    block -= _of_layer(block, blocks_0, blocks_1, 0, blocks_0, blocks_0 + blocks_1)
    r = tl.arange(0, BLOCK_R)[:, None]
    i = tl.arange(0, BLOCK_I)
    o = block * BLOCK_O + tl.arange(0, BLOCK_O)
    A_ptr += r * in_features
    read = (r < RANK) & (i < in_features)[None, :]
    A = tl.load(A_ptr + i[None, :], mask=read, other=0.0)
    made = (r < RANK) & (o < out_features)[None, :]
    B = tl.load(B_ptr + r * out_features + o[None, :], mask=made, other=0.0)
    if EARLY:
        gdc_wait()
    x_ptr += row * in_features
    x = tl.load(x_ptr + i, mask=i < in_features, other=0.0).to(tl.float32)
    products = A.to(tl.float32) * x[None, :]
    for start in range(BLOCK_I, in_features, BLOCK_I):
        i = start + tl.arange(0, BLOCK_I)
        x = tl.load(x_ptr + i, mask=i < in_features, other=0.0).to(tl.float32)
        read = (r < RANK) & (i < in_features)[None, :]
        A = tl.load(A_ptr + i[None, :], mask=read, other=0.0)
        products += A.to(tl.float32) * x[None, :]
    h = tl.sum(products, axis=1)
    change = tl.sum(B.to(tl.float32) * h[:, None], axis=0) * scaling
    tl.store(out_ptr + o, change.to(out_ptr.dtype.element_ty), mask=o < out_features)


def fits(A_NRI_of_each: Sequence[Tensor], B_NOR_of_each: Sequence[Tensor]) -> bool:
    """Whether adapters lie as the kernel reads them: as `FlatLayout` lays them, B with a rank as a row."""
    return (
        len(A_NRI_of_each) <= MOST_LAYERS
        and all(A.stride()[1:] == (A.shape[2], 1) for A in A_NRI_of_each)
        and all(B.stride()[1:] == (1, B.shape[1]) for B in B_NOR_of_each)
    )


@torch.library.custom_op("t2l::row_lora", mutates_args=())
def row_lora(x_N_I: Tensor, A_NRI_of_each: list[Tensor], B_NOR_of_each: list[Tensor], scaling: float) -> Tensor:
    """scaling B (A x) of each layer, [N, S], summed up in fp32, for adapters that `fits`; an operator, for
    torch.compile."""
    n, rank, in_features = A_NRI_of_each[0].shape
    outs = [B_NOR.shape[1] for B_NOR in B_NOR_of_each]
    assert x_N_I.is_contiguous() and fits(A_NRI_of_each, B_NOR_of_each)
    out_N_S = x_N_I.new_empty(n, sum(outs))
    block_r = triton.next_power_of_2(rank)
    block = max(_LEAST, _BLOCK * 8 // max(8, block_r))
    block_o = min(block, triton.next_power_of_2(max(outs)))
    small = block_o <= _SMALL and block_r <= 8
    early = small and usable(x_N_I.device, HOPPER)
    _row_lora[(n, sum(triton.cdiv(out, block_o) for out in outs))](
        x_N_I,
        A_NRI_of_each[0],
        B_NOR_of_each[0],
        out_N_S,
        in_features,
        *distances(A_NRI_of_each),
        *distances(B_NOR_of_each),
        *_filled([A_NRI.stride(0) for A_NRI in A_NRI_of_each]),
        *_filled([B_NOR.stride(0) for B_NOR in B_NOR_of_each]),
        *_filled(outs),
        scaling,
        RANK=rank,
        EARLY=early,
        BLOCK_R=block_r,
        BLOCK_I=min(block, triton.next_power_of_2(in_features)),
        BLOCK_O=block_o,
        num_warps=8,
        **({"launch_pdl": True} if early else {}),
    )
    return out_N_S


def _filled(numbers: list[int]) -> list[int]:
    return numbers + [0] * (MOST_LAYERS - len(numbers))


row_lora.register_fake(
    lambda x_N_I, _, B_NOR_of_each, scaling: x_N_I.new_empty(x_N_I.shape[0], sum(B.shape[1] for B in B_NOR_of_each))
)
