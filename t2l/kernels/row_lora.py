"""LoRA for one token a row, every row under an adapter of its own: y + s B (A x) in one pass over A and B.

As batched matmuls the two products are tiny, and take several times as long as reading A and B.

Legend: N rows, R rank, I in_features, O out_features.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_wait

from t2l.kernels import HOPPER, usable

_BLOCK = 4096
"""Much of A and B in flight at a time, a program's time is that of its first load; for ranks up to 8, of larger ones as
much less as fits into registers."""
_SMALL = 1024
"""Outputs of which a program takes few enough registers to start early. Both are the fastest on an H200 for rank 8."""
_LEAST = 256


@triton.jit
def _row_lora(
    x_ptr,
    A_ptr,
    B_ptr,
    y_ptr,
    out_ptr,
    A_row_stride,
    B_row_stride,
    in_features,
    out_features,
    scaling,
    RANK: tl.constexpr,
    EARLY: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_I: tl.constexpr,
    BLOCK_O: tl.constexpr,
):
    """One program: a block of outputs of one row. Each computes A x anew; A then comes from the cache.

    EARLY: it may start before the kernel before it has ended, and then asks for A and B while x and y are computed.
    """
    row = tl.program_id(0).to(tl.int64)
    r = tl.arange(0, BLOCK_R)[:, None]
    i = tl.arange(0, BLOCK_I)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    A_ptr += row * A_row_stride + r * in_features
    read = (r < RANK) & (i < in_features)[None, :]
    A = tl.load(A_ptr + i[None, :], mask=read, other=0.0)
    made = (r < RANK) & (o < out_features)[None, :]
    B = tl.load(B_ptr + row * B_row_stride + r * out_features + o[None, :], mask=made, other=0.0)
    if EARLY:
        gdc_wait()
    y = tl.load(y_ptr + row * out_features + o, mask=o < out_features, other=0.0)
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
    out = (y.to(tl.float32) + change).to(y.dtype)
    tl.store(out_ptr + row * out_features + o, out, mask=o < out_features)


def fits(A_NRI: Tensor, B_NOR: Tensor) -> bool:
    """Whether adapters lie as the kernel reads them: as `FlatLayout` lays them, B with a rank as a row."""
    return A_NRI.stride()[1:] == (A_NRI.shape[2], 1) and B_NOR.stride()[1:] == (1, B_NOR.shape[1])


@torch.library.custom_op("t2l::row_lora", mutates_args=())
def row_lora(y_N_O: Tensor, x_N_I: Tensor, A_NRI: Tensor, B_NOR: Tensor, scaling: float) -> Tensor:
    """y + scaling B (A x), [N, O], summed up in fp32, for adapters that `fits`; an operator, for torch.compile."""
    n, rank, in_features = A_NRI.shape
    out_features = B_NOR.shape[1]
    assert x_N_I.is_contiguous() and y_N_O.is_contiguous() and fits(A_NRI, B_NOR)
    out_N_O = torch.empty_like(y_N_O)
    block_r = triton.next_power_of_2(rank)
    block = max(_LEAST, _BLOCK * 8 // max(8, block_r))
    block_o = min(block, triton.next_power_of_2(out_features))
    small = block_o <= _SMALL and block_r <= 8
    early = small and usable(y_N_O.device, HOPPER)
    _row_lora[(n, triton.cdiv(out_features, block_o))](
        x_N_I,
        A_NRI,
        B_NOR,
        y_N_O,
        out_N_O,
        A_NRI.stride(0),
        B_NOR.stride(0),
        in_features,
        out_features,
        scaling,
        RANK=rank,
        EARLY=early,
        BLOCK_R=block_r,
        BLOCK_I=min(block, triton.next_power_of_2(in_features)),
        BLOCK_O=block_o,
        num_warps=8 if small else 16,
        **({"launch_pdl": True} if early else {}),
    )
    return out_N_O


row_lora.register_fake(lambda y_N_O, *_: torch.empty_like(y_N_O))
