"""LoRA on rows that stand one after the other without padding, each token by its own adapter: y + s B (A dropout(x)).

Two operators, `packed_down` to a rank's few numbers and `packed_up` from them; and both in one without gradients,
`packed_lora`. Three kernels do all of it, forward and backward: `_down` (h from x by A, dh from dy by B), `_up` (y from
h by B, dx from dh by A) and `_outer`, sums over an adapter's tokens (of A and of B). Each reads and writes what is as
large as the layer's input or output once; dropout is drawn anew wherever x is read. What is not finite in one adapter
stays with its own tokens.

Legend: T tokens, N adapters, R rank, I in_features, O out_features, S either of the two, P parts of S. An adapter's
tokens stand together, the first adapter's first.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from t2l.kernels import dot_block, precision


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


PROGRAMS = 512
TURNS = 4
"""Of a few tokens' products with A, without gradients: parts of S get programs of their own until there are so many, or
until each has only so many turns. The fastest on an H200 for 32 to 2,048 tokens."""


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
    factor,
    below,
    RANK: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    """h [P, T, R] = a part of x [T, S] by that of each token's weight [R, S], times a factor. One program: some tokens
    of one part."""
    t, adapter_t, first, last = _tokens(adapter_ptr, tokens, BLOCK_T)
    r = tl.arange(0, BLOCK_R)
    h = tl.zeros([BLOCK_T, BLOCK_R], dtype=tl.float32)
    from_s = tl.program_id(1) * part
    to_s = tl.minimum(from_s + part, size)
    for adapter in range(first, last + 1):  # mostly one
        own = (adapter_t == adapter)[:, None]
        weights = weight_ptr + adapter * adapter_stride.to(tl.int64) + r[None, :] * rank_stride
        found = tl.zeros([BLOCK_T, BLOCK_R], dtype=tl.float32)
        for begin in range(from_s, to_s, BLOCK_S):
            s = begin + tl.arange(0, BLOCK_S)
            places = t[:, None].to(tl.int64) * size + s[None, :]
            x = tl.load(x_ptr + places, mask=own & (s < to_s)[None, :], other=0.0)
            if DROPOUT:
                x = _dropped(x, seed_ptr, t, s, below)
            inside = (s < to_s)[:, None] & (r < RANK)[None, :]
            weight = tl.load(weights + s[:, None] * size_stride, mask=inside, other=0.0)
            found = tl.dot(x, weight, found, input_precision=PRECISION)
        h = tl.where(own, found, h)
    inside = (t < tokens)[:, None] & (r < RANK)[None, :]
    h_ptr += tl.program_id(1) * tokens * RANK
    tl.store(h_ptr + t[:, None] * RANK + r[None, :], (h * factor).to(h_ptr.dtype.element_ty), mask=inside)


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


class _Dropout:
    """What the kernels take for dropout with probability p: a seed, and the factor that makes up for what is gone."""

    def __init__(self, seed: Tensor, p: float) -> None:
        self.seed, self.below = seed, round(p * (1 << 32))
        self.factor = 1 / (1 - p)


def _go_down(
    x_T_S: Tensor, weight_N_R_S: Tensor, adapter_T: Tensor, factor: float, dropout: _Dropout, part: int = 0
) -> Tensor:
    """h [T, R]; by parts of S of that size, fp32 [P, T, R], of which h is the sum."""
    (tokens, size), rank = x_T_S.shape, weight_N_R_S.shape[1]
    parts, blocks = triton.cdiv(size, part or size), _cut(DOWN, rank)
    h_P_T_R = x_T_S.new_empty(parts, tokens, rank, dtype=torch.float32 if part else x_T_S.dtype)
    _down[(triton.cdiv(tokens, blocks.tokens), parts)](
        x_T_S,
        weight_N_R_S,
        adapter_T,
        dropout.seed,
        h_P_T_R,
        tokens,
        size,
        part or size,
        *weight_N_R_S.stride(),
        factor * dropout.factor,
        dropout.below,
        RANK=rank,
        **_constants(blocks, x_T_S, rank, dropout),
    )
    return h_P_T_R if part else h_P_T_R.view(tokens, rank)


def _go_up(
    h: Tensor,
    weight_N_R_S: Tensor,
    adapter_T: Tensor,
    factor: float,
    dropout: _Dropout,
    y_T_S: Tensor | None = None,
) -> Tensor:
    """[T, S] from h [T, R], or from [P, T, R] as `_go_down` gives them."""
    (tokens, rank), size = h.shape[-2:], weight_N_R_S.shape[2]
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


def _sum(h_T_R: Tensor, x_T_S: Tensor, start_N1: Tensor, factor: float, dropout: _Dropout) -> Tensor:
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


def _constants(blocks: Blocks, like: Tensor, rank: int, dropout: _Dropout) -> dict[str, Any]:
    return {
        "DROPOUT": dropout.below > 0,
        "PRECISION": precision(like.dtype),
        "BLOCK_T": blocks.tokens,
        "BLOCK_R": dot_block(rank),
        "BLOCK_S": blocks.size,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }


@torch.library.custom_op("t2l::packed_down", mutates_args=())
def _op_down(
    x_T_I: Tensor, A_NRI: Tensor, adapter_T: Tensor, start_N1: Tensor, seed: Tensor, factor: float, p: float
) -> Tensor:
    return _go_down(x_T_I.contiguous(), A_NRI, adapter_T, factor, _Dropout(seed, p))


@torch.library.custom_op("t2l::packed_down_backward", mutates_args=())
def _down_gradients(
    dh_T_R: Tensor,
    x_T_I: Tensor,
    A_NRI: Tensor,
    adapter_T: Tensor,
    start_N1: Tensor,
    seed: Tensor,
    factor: float,
    p: float,
) -> tuple[Tensor, Tensor]:
    """Of x and A."""
    dropout, dh_T_R = _Dropout(seed, p), _with_rows(dh_T_R)
    dx_T_I = _go_up(dh_T_R, A_NRI, adapter_T, factor, dropout)
    return dx_T_I, _sum(dh_T_R, x_T_I.contiguous(), start_N1, factor, dropout)


@torch.library.custom_op("t2l::packed_up", mutates_args=())
def _op_up(y_T_O: Tensor, h_T_R: Tensor, B_NRO: Tensor, adapter_T: Tensor, start_N1: Tensor) -> Tensor:
    return _go_up(_with_rows(h_T_R), B_NRO, adapter_T, 1.0, _Dropout(start_N1, 0), y_T_O.contiguous())


@torch.library.custom_op("t2l::packed_up_backward", mutates_args=())
def _up_gradients(
    dy_T_O: Tensor, h_T_R: Tensor, B_NRO: Tensor, adapter_T: Tensor, start_N1: Tensor
) -> tuple[Tensor, Tensor]:
    """Of h and B; that of y is dy."""
    none, dy_T_O = _Dropout(start_N1, 0), dy_T_O.contiguous()
    dh_T_R = _go_down(dy_T_O, B_NRO, adapter_T, 1.0, none)
    return dh_T_R, _sum(_with_rows(h_T_R), dy_T_O, start_N1, 1.0, none)


@torch.library.custom_op("t2l::packed_lora", mutates_args=())
def _op_both(y_T_O: Tensor, x_T_I: Tensor, A_NRI: Tensor, B_NRO: Tensor, adapter_T: Tensor, factor: float) -> Tensor:
    none, (tokens, size) = _Dropout(adapter_T, 0), x_T_I.shape
    parts = triton.cdiv(PROGRAMS, triton.cdiv(tokens, DOWN.tokens))
    part = DOWN.size * max(TURNS, triton.cdiv(triton.cdiv(size, DOWN.size), parts))
    h_P_T_R = _go_down(x_T_I.contiguous(), A_NRI, adapter_T, 1.0, none, part)
    return _go_up(h_P_T_R, B_NRO, adapter_T, factor, none, y_T_O.contiguous())


def _with_rows(h_T_R: Tensor) -> Tensor:
    """Perhaps a part of wider rows, but each of its own in one piece."""
    return h_T_R if h_T_R.stride(1) == 1 else h_T_R.contiguous()


def _keep_down(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.factor, ctx.p = inputs
    ctx.save_for_backward(*tensors)


def _backward_down(ctx: Any, dh_T_R: Tensor) -> tuple[Tensor | None, ...]:
    return *_down_gradients(dh_T_R, *ctx.saved_tensors, ctx.factor, ctx.p), None, None, None, None, None


def _keep_up(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[1:])


def _backward_up(ctx: Any, dy_T_O: Tensor) -> tuple[Tensor | None, ...]:
    return dy_T_O, *_up_gradients(dy_T_O, *ctx.saved_tensors), None, None


# `len` would be a constant to torch.compile.
_op_down.register_fake(lambda x_T_I, A_NRI, *_: x_T_I.new_empty(x_T_I.shape[0], A_NRI.shape[1]))
_op_up.register_fake(lambda y_T_O, *_: y_T_O.new_empty(y_T_O.shape))
_op_both.register_fake(lambda y_T_O, *_: y_T_O.new_empty(y_T_O.shape))
_down_gradients.register_fake(
    lambda dh_T_R, x_T_I, A_NRI, *_: (x_T_I.new_empty(x_T_I.shape), A_NRI.new_empty(A_NRI.shape))
)
_up_gradients.register_fake(
    lambda dy_T_O, h_T_R, B_NRO, *_: (h_T_R.new_empty(h_T_R.shape), B_NRO.new_empty(B_NRO.shape))
)
_op_down.register_autograd(_backward_down, setup_context=_keep_down)
_op_up.register_autograd(_backward_up, setup_context=_keep_up)


def packed_down(
    x_T_I: Tensor, A_NRI: Tensor, adapter_T: Tensor, start_N1: Tensor, scaling: float, p: float = 0.0
) -> Tensor:
    """[T, R]: s A dropout(x), by adapter adapter_T (int32) of each token; an operator, for torch.compile.

    start_N1: where each adapter's tokens start (int32), and the end. p: of dropout, drawn by torch's generator.
    """
    low, high = -(1 << 31), 1 << 31
    seed = torch.randint(low, high, (1,), dtype=torch.int32, device=x_T_I.device) if p else start_N1[:1]
    return _op_down(x_T_I, A_NRI, adapter_T, start_N1, seed, scaling, p)


def packed_up(y_T_O: Tensor, h_T_R: Tensor, B_NOR: Tensor, adapter_T: Tensor, start_N1: Tensor) -> Tensor:
    """[T, O]: y + B h, by the adapter of each token, as `packed_down`."""
    return _op_up(y_T_O, h_T_R, B_NOR.mT, adapter_T, start_N1)


def packed_lora(
    y_T_O: Tensor, x_T_I: Tensor, A_NRI: Tensor, B_NOR: Tensor, adapter_T: Tensor, scaling: float
) -> Tensor:
    """[T, O]: y + s B (A x), by the adapter of each token, without gradients; an operator, for torch.compile."""
    return _op_both(y_T_O, x_T_I, A_NRI, B_NOR.mT, adapter_T, scaling)
