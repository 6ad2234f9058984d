"""LoRA's products for tokens that stand one after the other, each by its own adapter: what the operators of training
(packed_lora.py) and of an engine (prompt_lora.py) call.

Three kernels: `_down` (h from x by A, dh from dy by B), `_up` (y from h by B, dx from dh by A) and `_outer`, sums over
an adapter's tokens (of A and of B). Each reads and writes what is as large as the layer's input or output once; dropout
is drawn anew wherever x is read. What is not finite in one adapter stays with its own tokens.

Legend: T tokens, N adapters, R rank, M layers that read the same x (up to 3), S in_features or out_features, P parts of
S. An adapter's tokens stand together, the first adapter's first.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2l.kernels import MOST_LAYERS, distances, dot_block, precision


class Blocks(NamedTuple):
    """What a program, or a turn of its loop, takes of tokens and of S."""

    tokens: int
    size: int
    warps: int
    stages: int


DOWN = Blocks(16, 128, warps=2, stages=4)
UP = Blocks(32, 128, warps=4, stages=2)
OUTER = Blocks(32, 128, warps=4, stages=4)
"""The fastest on an H200, for sizes of 1,024 and 4,096 and ranks of 8 in bf16; large ranks take less of S at a time."""


@triton.jit
def _mixed(bits):
    """MurmurHash3's finalizer."""
    bits = (bits ^ (bits >> 16)) * 0x85EBCA6B
    bits = (bits ^ (bits >> 13)) * 0xC2B2AE35
    return bits ^ (bits >> 16)


@triton.jit
def _dropped(values, seed_ptr, t, s, below):
    """Zero with a probability of below / 2 ** 32; the same places in every kernel with that seed.

    A hash of each token and of each column costs next to nothing; what mixes the two is half of one.
    """
    seed = tl.load(seed_ptr).to(tl.uint32, bitcast=True)
    drawn = (_mixed(t.to(tl.uint32) + seed)[:, None] ^ _mixed(s.to(tl.uint32) ^ ~seed)[None, :]) * 0x9E3779B1
    drawn = (drawn ^ (drawn >> 15)) * 0x85EBCA6B
    return tl.where(drawn >= below.to(tl.uint32), values, 0.0).to(values.dtype)


@triton.jit
def _tokens(adapter_ptr, tokens, BLOCK_T: tl.constexpr):
    """This program's tokens, their adapters (-1 beyond the last token), and the first and last of those."""
    start = tl.program_id(0) * BLOCK_T
    t = start + tl.arange(0, BLOCK_T)
    last = tl.load(adapter_ptr + tl.minimum(start + BLOCK_T, tokens) - 1)
    return t, tl.load(adapter_ptr + t, mask=t < tokens, other=-1), tl.load(adapter_ptr + start), last


@triton.jit
def _down(
    x_ptr,
    weight_ptr,
    adapter_ptr,
    seed_ptr,
    h_ptr,
    tokens,
    size,
    part,
    adapter_stride,
    rank_stride,
    size_stride,
    second,
    third,
    factor,
    below,
    RANK: tl.constexpr,
    LAYERS: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """h [P, T, M * R] = a part of x [T, S] by that of each token's weights [R, S], times a factor. One program: some
    tokens of one part. second, third: how far from the first layer's the others' weights lie."""
    t, adapter_t, first, last = _tokens(adapter_ptr, tokens, BLOCK_T)
    r = tl.arange(0, BLOCK_R)
    places_r = r % RANK * rank_stride + tl.where(r < RANK, 0, tl.where(r < 2 * RANK, second, third))
    h = tl.zeros([BLOCK_T, BLOCK_R], dtype=tl.float32)
    from_s = tl.program_id(1) * part
    to_s = tl.minimum(from_s + part, size)
    for adapter in range(first, last + 1):  # mostly one
        own = (adapter_t == adapter)[:, None]
        weights = weight_ptr + adapter * adapter_stride.to(tl.int64) + places_r[None, :]
        found = tl.zeros([BLOCK_T, BLOCK_R], dtype=tl.float32)
        for begin in range(from_s, to_s, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            places = t[:, None].to(tl.int64) * size + s[None, :]
            x = tl.load(x_ptr + places, mask=own & (s < to_s)[None, :], other=0.0)
            if DROPOUT:
                x = _dropped(x, seed_ptr, t, s, below)
            inside = (s < to_s)[:, None] & (r < LAYERS * RANK)[None, :]
            weight = tl.load(weights + s[:, None] * size_stride, mask=inside, other=0.0)
            found = tl.dot(x, weight, found, input_precision=PRECISION)
        h = tl.where(own, found, h)
    inside = (t < tokens)[:, None] & (r < LAYERS * RANK)[None, :]
    h_ptr += tl.program_id(1) * tokens * LAYERS * RANK
    tl.store(h_ptr + t[:, None] * LAYERS * RANK + r[None, :], (h * factor).to(h_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _up(
    h_ptr,
    weight_ptr,
    adapter_ptr,
    seed_ptr,
    y_ptr,
    out_ptr,
    tokens,
    size,
    h_stride,
    adapter_stride,
    rank_stride,
    size_stride,
    factor,
    below,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    ADD: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """out [T, S] = h (the sum of PARTS [T, R]) by each token's weight [R, S], times a factor; plus y. One program: some
    tokens, some S."""
    t, adapter_t, first, last = _tokens(adapter_ptr, tokens, BLOCK_T)
    r = tl.arange(0, BLOCK_R)
    s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    h_ptr += t[:, None] * h_stride + r[None, :]
    known = (t < tokens)[:, None] & (r < RANK)[None, :]
    h = tl.load(h_ptr, mask=known, other=0.0)
    for part in tl.static_range(1, PARTS):
        h += tl.load(h_ptr + part * tokens * h_stride, mask=known, other=0.0)
    h = h.to(weight_ptr.dtype.element_ty)
    out = tl.zeros([BLOCK_T, BLOCK_S], dtype=tl.float32)
    for adapter in range(first, last + 1):
        weights = weight_ptr + adapter * adapter_stride.to(tl.int64) + s[None, :] * size_stride
        weight = tl.load(weights + r[:, None] * rank_stride, mask=(r < RANK)[:, None] & (s < size)[None, :], other=0.0)
        own = (adapter_t == adapter)[:, None]
        out = tl.where(own, tl.dot(h, weight, input_precision=PRECISION), out)
    out *= factor
    if DROPOUT:
        out = _dropped(out, seed_ptr, t, s, below)
    places = t[:, None].to(tl.int64) * size + s[None, :]
    inside = (t < tokens)[:, None] & (s < size)[None, :]
    if ADD:
        out += tl.load(y_ptr + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + places, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _outer(
    h_ptr,
    x_ptr,
    start_ptr,
    seed_ptr,
    sum_ptr,
    size,
    h_stride,
    factor,
    below,
    RANK: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """sum [N, R, S] over each adapter's tokens of h [T, R] times x [T, S], times a factor. One program: an adapter,
    some S."""
    adapter, r = tl.program_id(0), tl.arange(0, BLOCK_R)
    s = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    end = tl.load(start_ptr + adapter + 1)
    found = tl.zeros([BLOCK_R, BLOCK_S], dtype=tl.float32)
    for start in range(tl.load(start_ptr + adapter), end, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        inside = (r < RANK)[:, None] & (t < end)[None, :]
        h = tl.load(h_ptr + t[None, :] * h_stride + r[:, None], mask=inside, other=0.0)
        places = t[:, None].to(tl.int64) * size + s[None, :]
        x = tl.load(x_ptr + places, mask=(t < end)[:, None] & (s < size)[None, :], other=0.0)
        if DROPOUT:
            x = _dropped(x, seed_ptr, t, s, below)
        found = tl.dot(h, x, found, input_precision=PRECISION)
    places = (adapter.to(tl.int64) * RANK + r[:, None]) * size + s[None, :]
    inside = (r < RANK)[:, None] & (s < size)[None, :]
    tl.store(sum_ptr + places, (found * factor).to(sum_ptr.dtype.element_ty), mask=inside)


class Dropout:
    """What the kernels take for dropout with probability p: a seed, and the factor that makes up for what is gone."""

    def __init__(self, seed: Tensor, p: float) -> None:
        self.seed, self.below = seed, round(p * (1 << 32))
        self.factor = 1 / (1 - p)


def go_down(
    x_T_S: Tensor,
    weights_N_R_S: Sequence[Tensor],
    adapter_T: Tensor,
    factor: float,
    dropout: Dropout,
    part: int | None = None,
) -> Tensor:
    """h [T, M * R] of layers whose weights have the same strides; or, by parts of S of so many, fp32 [P, T, M * R], of
    which it is the sum."""
    (tokens, size), layers, rank = x_T_S.shape, len(weights_N_R_S), weights_N_R_S[0].shape[1]
    assert layers <= MOST_LAYERS and _alike(weights_N_R_S)
    parts, blocks = 1 if part is None else triton.cdiv(size, part), _cut(DOWN, rank * layers)
    shape = (tokens, rank * layers) if part is None else (parts, tokens, rank * layers)
    h = x_T_S.new_empty(shape, dtype=x_T_S.dtype if part is None else torch.float32)
    _down[(triton.cdiv(tokens, blocks.tokens), parts)](
        x_T_S,
        weights_N_R_S[0],
        adapter_T,
        dropout.seed,
        h,
        tokens,
        size,
        part or size,
        *weights_N_R_S[0].stride(),
        *distances(weights_N_R_S),
        factor * dropout.factor,
        dropout.below,
        RANK=rank,
        LAYERS=layers,
        **_constants(blocks, x_T_S, rank * layers, dropout),
    )
    return h


def _alike(weights_N_R_S: Sequence[Tensor]) -> bool:
    """Whether they have the same strides; of a single adapter's, the first says nothing."""
    skipped = 1 if weights_N_R_S[0].shape[0] == 1 else 0
    return len({weight_N_R_S.stride()[skipped:] for weight_N_R_S in weights_N_R_S}) == 1


def go_up(
    h: Tensor,
    weight_N_R_S: Tensor,
    adapter_T: Tensor,
    factor: float,
    dropout: Dropout,
    y_T_S: Tensor | None = None,
) -> Tensor:
    """[T, S] from h [T, R], or from [P, T, R] as `go_down` gives them; its rows may be parts of wider ones."""
    (tokens, rank), size = h.shape[-2:], weight_N_R_S.shape[2]
    assert h.stride(-1) == 1
    out_T_S, blocks = weight_N_R_S.new_empty(tokens, size), _cut(UP, rank)
    _up[(triton.cdiv(tokens, blocks.tokens), triton.cdiv(size, blocks.size))](
        h,
        weight_N_R_S,
        adapter_T,
        dropout.seed,
        h if y_T_S is None else y_T_S,
        out_T_S,
        tokens,
        size,
        h.stride(-2),
        *weight_N_R_S.stride(),
        factor * dropout.factor,
        dropout.below,
        RANK=rank,
        PARTS=len(h) if h.dim() == 3 else 1,
        ADD=y_T_S is not None,
        **_constants(blocks, weight_N_R_S, rank, dropout),
    )
    return out_T_S


def sum_up(h_T_R: Tensor, x_T_S: Tensor, start_N1: Tensor, factor: float, dropout: Dropout) -> Tensor:
    adapters, rank, size = len(start_N1) - 1, h_T_R.shape[1], x_T_S.shape[1]
    sum_N_R_S, blocks = x_T_S.new_empty(adapters, rank, size), _cut(OUTER, rank)
    _outer[(adapters, triton.cdiv(size, blocks.size))](
        h_T_R,
        x_T_S,
        start_N1,
        dropout.seed,
        sum_N_R_S,
        size,
        h_T_R.stride(0),
        factor * dropout.factor,
        dropout.below,
        RANK=rank,
        **_constants(blocks, x_T_S, rank, dropout),
    )
    return sum_N_R_S


def _cut(blocks: Blocks, rank: int) -> Blocks:
    """As much smaller as ranks are larger than 64."""
    return blocks._replace(size=max(16, blocks.size // max(1, triton.next_power_of_2(rank) // 64)))


def _constants(blocks: Blocks, like: Tensor, rank: int, dropout: Dropout) -> dict[str, Any]:
    return {
        "DROPOUT": dropout.below > 0,
        "PRECISION": precision(like.dtype),
        "BLOCK_T": blocks.tokens,
        "BLOCK_R": dot_block(rank),
        "BLOCK_S": blocks.size,
        "num_warps": blocks.warps,
        # Of fp32, three at most: desktop GPUs have 99 KiB of shared memory.
        "num_stages": min(blocks.stages, 3) if like.dtype == torch.float32 else blocks.stages,
    }
