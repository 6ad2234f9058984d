"""Our Triton kernels against plain torch: on a GPU, or by Triton's interpreter where there is none."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton", reason="needs Triton, which torch's builds for GPUs bring along")

import test_engine_rows as rows
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.engine.prompts import PackedPrompts
from t2l import kernels
from t2l.kernels import row_lora as row_lora_module
from t2l.kernels.decode_attention import decode_attention
from t2l.kernels.prompt_attention import prompt_attention
from t2l.kernels.row_lora import row_lora
from t2l.lora.flat import FlatLayout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
few = settings(max_examples=10, deadline=None)


@few
@given(
    st.integers(1, 4),
    st.sampled_from([1, 3, 8, 16]),
    st.sampled_from([24, 512, 700]),
    st.lists(st.sampled_from([16, 40, 1100]), min_size=1, max_size=3),
    st.booleans(),
)
def test_row_lora_is_two_matrix_products_a_layer(
    rows: int, rank: int, in_features: int, outs: list[int], apart: bool
) -> None:
    """apart: each matrix is a tensor of its own, as in evaluations; else all are views of one bank, as in an engine."""
    torch.manual_seed(0)
    sizes = [rank * size for out in outs for size in (in_features, out)]
    bank = torch.randn(rows, sum(sizes) + 8, device=DEVICE)  # something else lies in between
    parts = bank[:, :-8].split(sizes, dim=1)
    As = [part.unflatten(1, (rank, in_features)) for part in parts[::2]]
    Bs = [part.unflatten(1, (rank, out)).mT for part, out in zip(parts[1::2], outs, strict=True)]
    if apart:
        As, Bs = [A.contiguous() for A in As], [B.mT.contiguous().mT for B in Bs]
    x = torch.randn(rows, in_features, device=DEVICE)
    expected = torch.cat([0.5 * (B @ (A @ x[..., None]))[..., 0] for A, B in zip(As, Bs, strict=True)], dim=1)
    torch.testing.assert_close(row_lora(x, As, Bs, 0.5), expected, rtol=1e-4, atol=1e-3)


@few
@given(
    st.sampled_from([(4, 4), (8, 2), (6, 1)]),
    st.sampled_from([16, 24, 64]),
    st.lists(st.integers(0, 149), min_size=1, max_size=4),
    st.sampled_from([None, 1, 50]),
)
def test_decoding_attends_to_what_a_row_has_said(
    heads: tuple[int, int], size: int, positions: list[int], window: int | None
) -> None:
    torch.manual_seed(0)
    (query_heads, kv_heads), rows = heads, len(positions)
    cache = torch.randn(2, rows, kv_heads, 150, size, device=DEVICE)
    keys, values = cache
    q = torch.randn(rows, query_heads, size, device=DEVICE)
    k, v = torch.randn(2, rows, kv_heads, size, device=DEVICE)
    expected = []
    for row, position in enumerate(positions):
        keys[row, :, position + 1 :] = torch.nan  # what is not there yet must not be read
        seen = slice(0 if window is None else max(0, position + 1 - window), position + 1)
        own_keys, own_values = keys[row].clone(), values[row].clone()
        own_keys[:, position], own_values[:, position] = k[row], v[row]
        seen_keys, seen_values = (
            kept[:, seen].repeat_interleave(query_heads // kv_heads, 0) for kept in (own_keys, own_values)
        )
        expected.append(F.scaled_dot_product_attention(q[row][:, None], seen_keys, seen_values, scale=0.3)[:, 0])
    found = decode_attention(q, k, v, cache, torch.tensor(positions, device=DEVICE), 0.3, window)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)
    for row, position in enumerate(positions):  # for the tokens to come
        assert torch.equal(keys[row, :, position], k[row]) and torch.equal(values[row, :, position], v[row])


lengths_of_prompts = st.lists(st.sampled_from([0, 1, 5, 31, 64, 70]), min_size=1, max_size=4).filter(any)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what is not finite, in the interpreter
@few
@given(
    st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    st.sampled_from([16, 24]),
    lengths_of_prompts,
    st.sampled_from([None, 1, 50]),
    st.integers(0, 9),
    st.booleans(),
)
def test_prompts_attend_to_themselves_and_enter_the_cache(
    heads: tuple[int, int], size: int, lengths: list[int], window: int | None, spare: int, broken: bool
) -> None:
    torch.manual_seed(0)
    (query_heads, kv_heads), first_row, count = heads, 1, sum(lengths)
    tokens = count + spare
    cache = torch.full((2, len(lengths) + 2, kv_heads, 72, size), 7.0, device=DEVICE)
    q = torch.randn(query_heads, tokens, size, device=DEVICE).transpose(0, 1)  # a head, then a head
    k, v = torch.randn(2, tokens, kv_heads, size, device=DEVICE)
    if broken:
        q[: lengths[0]], k[: lengths[0]], v[: lengths[0]] = torch.nan, torch.inf, torch.nan
    expected, kept = [], cache.clone()
    for row, own in enumerate(zip(*(x[:count].split(lengths) for x in (q, k, v)), strict=True)):
        place = torch.arange(len(own[0]), device=DEVICE)
        behind = place[:, None] - place
        mask = (behind >= 0) & (behind < (window or 1 << 20))
        query, key, value = (x.transpose(0, 1) for x in own)
        kept[0, first_row + row, :, : len(place)], kept[1, first_row + row, :, : len(place)] = key, value
        out = F.scaled_dot_product_attention(query, key, value, mask, scale=0.3, enable_gqa=True)
        expected.append(out.transpose(0, 1))
    prompts = PackedPrompts.empty(tokens, torch.device(DEVICE))
    prompts.put([[0] * length for length in lengths], first_row)
    found = prompt_attention(q, k, v, cache, prompts.row_T, prompts.position_T, 0.3, window)
    sound = slice(lengths[0] if broken else 0, count)
    torch.testing.assert_close(found[sound], torch.cat(expected)[sound], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cache, kept, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("apart", [False, True], ids=["views of one bank", "tensors of their own"])
def test_layers_that_read_together_take_one_kernel_for_single_tokens(
    monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    """Among other layers; the last reads another tensor, as after an error in between."""
    torch.manual_seed(0)
    lora, flat = rows.base("llama", "sdpa", torch.float32, DEVICE)
    weights = FlatLayout(lora.spec).unflatten(flat[: rows.ADAPTERS].to(DEVICE, torch.float32))
    with monkeypatch.context() as patched, torch.no_grad():
        patched.setattr(kernels, "usable", lambda *_: True)
        pairs = lora.pairs(weights.map(torch.clone) if apart else weights)
    q, k, v = (lora.model.get_submodule(f"model.layers.1.self_attn.{name}_proj") for name in "qkv")
    x, y = torch.randn(2, rows.ADAPTERS, 1, lora.spec.modules[0].in_features, device=DEVICE)
    calls = [(q, x), (k, x), (v, x), (q, x), (v, y)]
    with lora.installed(pairs):
        plain = [layer(of) for layer, of in calls]  # gradients are on: batched matmuls
    launched, inner = [], row_lora_module.row_lora
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    monkeypatch.setattr(row_lora_module, "row_lora", lambda *args: launched.append(args) or inner(*args))
    with torch.no_grad(), lora.installed(pairs):
        found = [layer(of) for layer, of in calls]
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
    assert len(launched) == 3


@pytest.mark.parametrize("family", ["mistral", "qwen3"])  # a window in all layers, and in some
def test_rows_say_the_same_with_fused_attention(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    lengths, new = (1, 9, 15), 3  # few: the interpreter takes its time
    requests = [rows.Case(length, length % rows.ADAPTERS, length % 4, new) for length in lengths]
    requests.append(rows.Case(4, None, 2, new))
    expected = [rows.alone(family, case.length, case.adapter)[:new] for case in requests]
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    assert rows.run(family, requests, 3, "sdpa", torch.float32, DEVICE) == expected


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU, where there are CUDA graphs")
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_compiled_rows_say_the_same(family: str) -> None:
    lengths, new = (1, 9, 15, 4, 12), 5
    requests = [rows.Case(length, length % rows.ADAPTERS, length % 3, new) for length in lengths]
    requests.append(rows.Case(6, None, 1, new))
    expected = [rows.alone(family, case.length, case.adapter)[:new] for case in requests]
    assert rows.run(family, requests, 3, "sdpa", torch.float32, DEVICE, compiled=True) == expected


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what is not finite, in the interpreter
def test_a_broken_adapter_spoils_nobody_with_fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompt stands in the same blocks of tokens as theirs."""
    sound = [rows.Case(5, 0, 0, 3), rows.Case(9, None, 0, 3)]
    expected = [rows.alone("llama", case.length, case.adapter)[: case.new] for case in sound]
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    broken = rows.Case(9, rows.ADAPTERS, 0, 2)
    said = rows.run("llama", [sound[0], broken, sound[1]], 3, "sdpa", torch.float32, DEVICE)
    assert [said[0], said[2]] == expected


def test_torch_compile_makes_one_graph_of_a_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot follow, small kernels stay small."""
    requests = [rows.Case(9, 0, 0, 2), rows.Case(5, 1, 0, 2)]
    expected = [rows.alone("llama", case.length, case.adapter)[: case.new] for case in requests]
    monkeypatch.setattr(kernels, "usable", lambda *_: True)
    lora, _ = rows.base("llama", "sdpa", torch.float32, DEVICE)
    for layer in lora.decoder_layers:
        whole = torch.compile(layer.forward, dynamic=True, fullgraph=True, backend="eager")
        monkeypatch.setattr(layer, "forward", whole)
    assert rows.run("llama", requests, 2, "sdpa", torch.float32, DEVICE) == expected
