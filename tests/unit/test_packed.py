"""Packed rows give padded ones' logits and gradients: on a GPU, or by Triton's interpreter where there is none."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="needs Triton, which torch's builds for GPUs bring along")

from hypothesis import given
from hypothesis import strategies as st
from lora_models import FAMILIES, SHAPE, VOCAB, random_weights, tiny_model
from torch import Tensor

from t2l.data.collate import Row, SftBatch, collate
from t2l.errors import ConfigError, SpecMismatchError
from t2l.kernels import check_attention
from t2l.lora import LoraSpec, LoraWeights
from t2l.lora.apply import PerRowLora
from t2l.train import packed, step
from t2l.train.packed import PackedRows, can_pack
from t2l.train.step import label_logits

ON_GPU = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.bfloat16) if ON_GPU else ("cpu", torch.float32)
TOLERANCE = 0.1 if ON_GPU else 1e-4
LENGTHS = (9, 3, 17, 1)
TARGETS = ["v_proj", "q_proj", "down_proj", "gate_proj"]


def make(family: str, **settings: Any) -> PerRowLora:
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(0)
    config = config_class(**{**SHAPE, "head_dim": 16, **settings}, attn_implementation=packed.register())
    return PerRowLora(model_class(config).to(DEVICE, DTYPE).eval(), LoraSpec.from_config(config, TARGETS, rank=3))


def rows_of(lengths: Sequence[int]) -> SftBatch:
    generator = torch.Generator().manual_seed(0)
    whole = [torch.randint(1, VOCAB, (length + 2,), generator=generator).tolist() for length in lengths]
    return collate([Row(ids[:-2], ids[-2:], 0) for ids in whole], len(whole), pad_id=0).to(DEVICE)


def logits_and_gradients(lora: PerRowLora, weights: LoraWeights | None, batch: SftBatch) -> list[Tensor]:
    leaves = weights and weights.map(lambda tensor: tensor.to(DEVICE, DTYPE, copy=True).requires_grad_())
    logits = label_logits(lora, leaves, batch)
    return [logits, *torch.autograd.grad(logits.square().sum(), list(leaves.tensors()))] if leaves else [logits]


@pytest.mark.parametrize(
    ("family", "settings", "adapters", "checkpointing"),
    [
        ("llama", {}, 0, False),
        ("llama", {}, 2, True),
        ("qwen3", {}, 4, False),
        ("mistral", {"sliding_window": 5}, 2, False),
    ],
    ids=str,
)
def test_packed_is_padded(
    monkeypatch: pytest.MonkeyPatch, family: str, settings: dict[str, Any], adapters: int, checkpointing: bool
) -> None:
    lora, batch = make(family, **settings), rows_of(LENGTHS)
    if checkpointing:
        lora.enable_activation_checkpointing()
        lora.train()
    # Small ones: large ones make attention so sharp that in bf16 no two orders of summing agree.
    weights = random_weights(lora.spec, adapters).map(lambda tensor: tensor * 0.3) if adapters else None
    monkeypatch.setattr(step, "can_pack", lambda *_: False)
    padded = logits_and_gradients(lora, weights, batch)
    monkeypatch.setattr(step, "can_pack", lambda *_: True)
    for ours, expected in zip(logits_and_gradients(lora, weights, batch), padded, strict=True):
        assert (ours - expected).abs().max() <= TOLERANCE * expected.abs().max()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_places_of_tokens(lengths: list[int]) -> None:
    width = max(lengths) + 2
    rows = PackedRows.of(torch.tensor(lengths), width, sum(lengths))
    expected = [(row, place) for row, length in enumerate(lengths) for place in range(length)]
    assert list(zip(rows.row_T.tolist(), rows.position_T.tolist(), strict=True)) == expected
    assert rows.place_T.tolist() == [row * width + place for row, place in expected]
    assert rows.find(rows.place_T).tolist() == list(range(sum(lengths)))
    assert rows.start_B1.diff().tolist() == lengths


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
def test_what_cannot_be_packed_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    lora, batch = make("llama"), rows_of(LENGTHS)
    assert not can_pack(lora)
    monkeypatch.setattr(packed, "SMALLEST", lora.model.config.hidden_size)
    assert can_pack(lora)
    lora.model.float()
    assert not can_pack(lora)
    assert label_logits(lora, None, batch).dtype == torch.float32


def test_packed_rows_of_a_sliding_window_have_no_mask() -> None:
    """It would be of [T, T], for the tokens of all rows together."""
    model = tiny_model("mistral")
    model.config._attn_implementation = packed.register()
    masks: list[Tensor | None] = []
    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(
            lambda module, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
        )
    model.config.sliding_window = 4
    for context in (nullcontext(), packed.without_masks(), nullcontext()):
        with context:
            model(input_ids=torch.ones(1, 9, dtype=torch.long))
    assert [mask is None for mask in masks[:: len(model.model.layers)]] == [False, True, False]


def test_adapters_that_do_not_divide_packed_rows_are_refused() -> None:
    rows = PackedRows.of(torch.tensor([2] * 5), 2, 10)
    with pytest.raises(SpecMismatchError, match="2 adapters cannot share 5 rows"):
        rows.segments(2)


def test_attention_that_kernels_would_leave_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="has s_aux, which is not supported on a GPU"):
        check_attention({"s_aux": torch.zeros(1), "softcap": None})
