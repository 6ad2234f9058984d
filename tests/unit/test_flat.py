"""Flat adapters are the same adapters: there and back, as views, and in a model."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import families, logits, random_weights, ranks, target_lists, tiny_config, tiny_model, tokens

from t2l.errors import SpecMismatchError
from t2l.lora import LoraSpec
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout

SPEC = LoraSpec.from_config(tiny_config("llama"), ["v_proj", "down_proj"], rank=3)


@settings(max_examples=20, deadline=None)
@given(families, target_lists, ranks, st.integers(1, 3))
def test_there_and_back(family: str, targets: list[str], rank: int, n: int) -> None:
    spec = LoraSpec.from_config(tiny_config(family), targets, rank)
    layout, weights = FlatLayout(spec), random_weights(spec, n)
    flat = layout.flatten(weights)
    assert flat.shape == (n, layout.size) == (n, spec.num_parameters)
    for ours, theirs in zip(layout.unflatten(flat).tensors(), weights.tensors(), strict=True):
        assert torch.equal(ours, theirs)


def test_adapters_follow_what_is_written_into_their_rows() -> None:
    """Also where the rows are some in the middle of a larger buffer: an engine's case."""
    layout, lora = FlatLayout(SPEC), PerRowLora(tiny_model("llama"), SPEC)
    buffer = torch.zeros(5, layout.size, dtype=torch.float64)
    pairs = lora.pairs(layout.unflatten(buffer[1:4]))
    with lora.installed(None):
        base = logits(lora.model, input_ids=tokens(3))
    with lora.installed(pairs):
        assert torch.equal(logits(lora.model, input_ids=tokens(3)), base)
    weights = random_weights(SPEC, 3)
    buffer[1:4] = layout.flatten(weights)
    with lora.installed(pairs):
        adapted = logits(lora.model, input_ids=tokens(3))
    torch.testing.assert_close(adapted, logits(lora, weights, input_ids=tokens(3)))
    assert not torch.allclose(adapted, base)


def test_what_does_not_fit_is_refused() -> None:
    layout = FlatLayout(SPEC)
    with pytest.raises(SpecMismatchError, match=f"7 weights does not fit a model whose adapters have {layout.size}"):
        layout.unflatten(torch.zeros(2, 7))
    other = LoraSpec.from_config(tiny_config("llama"), ["v_proj"], rank=3)
    with pytest.raises(SpecMismatchError, match="modules is"):
        layout.flatten(random_weights(other, 1))
