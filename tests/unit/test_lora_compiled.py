"""Compiled decoder layers: the same numbers, by few graphs, and only where they are asked for."""

from functools import partial

import pytest
import torch
from lora_models import FAMILIES, SHAPE, random_weights, tokens
from torch._dynamo.utils import counters

from t2l.lora import LoraSpec, LoraWeights
from t2l.lora.apply import PerRowLora
from t2l.lora.compiled import CompiledLayers

MOST_GRAPHS = 2
"""A first layer, whose input needs no gradient, and the others."""


def loss_and_gradients(lora: PerRowLora, weights: LoraWeights, rows: int, length: int) -> list[torch.Tensor]:
    leaves = weights.map(lambda tensor: tensor.clone().requires_grad_())
    loss = lora(leaves, input_ids=tokens(rows, length), use_cache=False).logits.square().mean()
    return [loss, *torch.autograd.grad(loss, list(leaves.tensors()))]


def test_compiled_layers_give_the_same_by_few_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # inductor takes a minute
    torch._dynamo.reset()
    counters.clear()
    config_class, model_class = FAMILIES["qwen3"]
    config = config_class(**{**SHAPE, "num_hidden_layers": 6})
    spec = LoraSpec.from_config(config, ["q_proj", "down_proj"], rank=3)
    lora = PerRowLora(model_class(config).double().eval(), spec)
    layers = CompiledLayers(lora.decoder_layers)
    for rows, length in ((3, 7), (2, 16), (5, 8), (4, 4)):
        weights = random_weights(spec, rows)
        plain = loss_and_gradients(lora, weights, rows, length)
        with layers.running():
            compiled = loss_and_gradients(lora, weights, rows, length)
        torch.testing.assert_close(compiled, plain)
    assert 0 < counters["stats"]["unique_graphs"] <= MOST_GRAPHS and not counters["graph_break"]
    made = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        lora(None, input_ids=tokens(2, 5))  # with a cache
    assert counters["stats"]["unique_graphs"] == made
