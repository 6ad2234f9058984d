"""The kernels of packed rows against plain torch: on a GPU, or by Triton's interpreter where there is none."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="needs Triton, which torch's builds for GPUs bring along")

from dropped import assert_dropped_at_random
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from t2l.kernels.packed_attention import packed_attention
from t2l.kernels.packed_lora import packed_down, packed_up
from t2l.kernels.prompt_lora import prompt_down, prompt_up

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
few = settings(max_examples=6, deadline=None)
lengths_of_rows = st.lists(st.sampled_from([1, 2, 31, 64, 70]), min_size=1, max_size=3)


def starts(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths], device=DEVICE).cumsum(0).int()


def assert_same(found: Tensor, expected: Tensor, inputs: tuple[Tensor, ...]) -> None:
    """And their gradients."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    d_found = torch.randn_like(found)
    ours, right = (torch.autograd.grad(out, inputs, d_found) for out in (found, expected))
    for gradient, expected_gradient in zip(ours, right, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-3)


def attend_row_by_row(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], window: int | None) -> Tensor:
    found = []
    for row in zip(*(x.split(lengths) for x in (q, k, v)), strict=True):
        place = torch.arange(len(row[0]), device=DEVICE)
        behind = place[:, None] - place
        mask = (behind >= 0) & (behind < (window or 1 << 20))
        query, key, value = (x.transpose(0, 1) for x in row)
        out = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
        found.append(out.transpose(0, 1))
    return torch.cat(found)


@few
@given(
    lengths_of_rows,
    st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    st.sampled_from([16, 24, 64]),
    st.sampled_from([None, 1, 50]),
)
def test_rows_attend_to_themselves(lengths: list[int], heads: tuple[int, int], size: int, window: int | None) -> None:
    torch.manual_seed(0)
    tokens, (query_heads, kv_heads) = sum(lengths), heads
    q = torch.randn(query_heads, tokens, size, device=DEVICE).transpose(0, 1).requires_grad_()  # a head, then a head
    k, v = (torch.randn(tokens, kv_heads, size, device=DEVICE, requires_grad=True) for _ in range(2))
    found = packed_attention(q, k, v, starts(lengths), max(lengths) + 3, 0.3, window)
    assert_same(found, attend_row_by_row(q, k, v, lengths, window), (q, k, v))


def test_large_heads() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(70, 1, 256, device=DEVICE, requires_grad=True) for _ in range(3))
    found = packed_attention(q, k, v, starts([40, 30]), 40, 0.3)
    assert_same(found, attend_row_by_row(q, k, v, [40, 30], None), (q, k, v))


def packed_lora(
    y: Tensor, x: Tensor, A: Tensor, B: Tensor, adapter_T: Tensor, start: Tensor, scaling: float, p: float
) -> Tensor:
    """As layers that read together have it: h is a part of something wider."""
    wide = packed_down(x, torch.cat([torch.ones_like(A), A], 1), adapter_T, start, scaling, p)
    return packed_up(y, wide[:, A.shape[1] :], B, adapter_T, start)


def kept_by_dropout(tokens: int, size: int, p: float, seed: int) -> Tensor:
    """What ones become [tokens, size]: seen through adapters that pass on 16 columns each."""
    one_adapter = torch.zeros(tokens, dtype=torch.int32, device=DEVICE), starts([tokens])
    zeros, ones = torch.zeros(tokens, 16, device=DEVICE), torch.ones(tokens, size, device=DEVICE)
    back, found = torch.eye(16, device=DEVICE)[None], []
    for A in torch.eye(size, device=DEVICE).split(16):
        torch.manual_seed(seed)
        found.append(packed_lora(zeros, ones, A[None], back[..., : len(A)], *one_adapter, 1.0, p)[:, : len(A)])
    return torch.cat(found, dim=1)


@few
@given(
    lengths_of_rows,
    st.sampled_from([1, 8, 17, 130]),
    st.sampled_from([(24, 200), (80, 40)]),
    st.sampled_from([0.0, 0.25]),
)
def test_each_token_has_the_adapter_of_its_row(lengths: list[int], rank: int, sizes: tuple[int, int], p: float) -> None:
    torch.manual_seed(0)
    tokens, (size_in, size_out) = sum(lengths), sizes
    adapter_T = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).int().to(DEVICE)
    y, x = (torch.randn(tokens, size, device=DEVICE, requires_grad=True) for size in (size_out, size_in))
    A, B_T = (torch.randn(len(lengths), rank, size, device=DEVICE, requires_grad=True) for size in (size_in, size_out))
    torch.manual_seed(1)
    found = packed_lora(y, x, A, B_T.mT, adapter_T, starts(lengths), 0.5 / rank, p)
    h = torch.einsum("tri,ti->tr", A[adapter_T], x * kept_by_dropout(tokens, size_in, p, seed=1))
    assert_same(found, y + 0.5 / rank * torch.einsum("tro,tr->to", B_T[adapter_T], h), (y, x, A, B_T))


def test_dropout_drops_its_share_and_makes_up_for_it() -> None:
    p = 0.25
    first, second = (kept_by_dropout(500, 32, p, seed) for seed in (0, 1))
    assert_dropped_at_random(first, second, p)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what is not finite, in the interpreter
@few
@given(
    lengths_of_rows,
    st.sampled_from([1, 8, 130]),
    st.sampled_from([80, 1100]),
    st.lists(st.sampled_from([40, 200]), min_size=1, max_size=3),
    st.booleans(),
)
def test_prompts_by_layers_that_read_together(
    lengths: list[int], rank: int, size: int, outs: list[int], broken: bool
) -> None:
    """Adapters lie between other things; what is not finite in one of them stays with its tokens."""
    torch.manual_seed(0)
    tokens = sum(lengths)
    adapter_T = torch.arange(1, len(lengths) + 1).repeat_interleave(torch.tensor(lengths)).int().to(DEVICE)
    x = torch.randn(tokens, size, device=DEVICE)
    sizes = [rank * width for out in outs for width in (size, out)]
    bank = torch.randn(len(lengths) + 2, sum(sizes) + 8, device=DEVICE)
    parts = bank[:, :-8].split(sizes, dim=1)
    As = [part.unflatten(1, (rank, size)) for part in parts[::2]]
    Bs = [part.unflatten(1, (rank, out)).mT for part, out in zip(parts[1::2], outs, strict=True)]
    ys = [torch.randn(tokens, out, device=DEVICE) for out in outs]
    expected = [
        y + 0.5 / rank * torch.einsum("tor,tr->to", B[adapter_T], torch.einsum("tri,ti->tr", A[adapter_T], x))
        for y, A, B in zip(ys, As, Bs, strict=True)
    ]
    sound = adapter_T > (1 if broken else 0)
    if broken:
        bank[0], bank[1] = torch.nan, torch.inf
    hs = prompt_down(x, As, adapter_T).chunk(len(outs), -1)
    for y, h, B, right in zip(ys, hs, Bs, expected, strict=True):
        found = prompt_up(y, h, B, adapter_T, 0.5 / rank)
        torch.testing.assert_close(found[sound], right[sound], rtol=1e-4, atol=1e-3)
        assert not broken or not found[~sound].isfinite().any()
