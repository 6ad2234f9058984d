"""Counted operations against torch's profiler of operations on real, small models."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, MistralConfig

from t2l.config import BaseConfig, HypernetConfig, ReaderConfig
from t2l.evaluation.flops import (
    Lengths,
    Transformer,
    answer_cost,
    hypernet_flops,
    lora_flops,
    probes_flops,
    reader_flops,
    sentence_encoder_flops,
)
from t2l.hypernet import HyperNetwork
from t2l.hypernet.reader import TokenReader
from t2l.lora.apply import PerRowLora
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.text.llm import LlmEncoder
from t2l.train.base import load_base

SMALL: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 3, "vocab_size": 97}
CONFIG = LlamaConfig(**SMALL, num_attention_heads=4, num_key_value_heads=2, head_dim=16)


def counted(run: Callable[[], Any]) -> int:
    """What torch's dispatcher sees of matrix products; it has no entry for the in-place one of per-row LoRA."""
    known = {torch.ops.aten.baddbmm_: lambda _, left, right, **rest: 2 * math.prod(left) * right[-1]}
    with FlopCounterMode(display=False, custom_mapping=known) as counter, torch.no_grad():
        run()
    return counter.get_total_flops()


def eager(model: Any) -> Any:
    """Without fused attention, whose CPU kernel the counter does not know."""
    model.set_attn_implementation("eager")
    return model.eval()


@pytest.mark.parametrize(("prompt", "answer"), [(20, 1), (20, 6), (3, 9)])
def test_an_answer_of_a_decoder_with_grouped_queries(prompt: int, answer: int) -> None:
    model = eager(LlamaForCausalLM(CONFIG))
    ids = torch.randint(3, 90, (1, prompt))
    settings = {"max_new_tokens": answer, "min_new_tokens": answer, "do_sample": False}
    assert counted(lambda: model.generate(input_ids=ids, **settings)) == Transformer.of(CONFIG).answer(prompt, answer)


def test_what_lora_adds() -> None:
    spec = LoraSpec.from_config(CONFIG, ["q_proj", "v_proj", "down_proj"], rank=4)
    model, ids = LlamaForCausalLM(CONFIG), torch.randint(3, 90, (1, 20))
    alone = counted(lambda: model(input_ids=ids))
    adapted = counted(lambda: PerRowLora(model, spec)(LoraWeights.init(spec, 1), input_ids=ids))
    assert adapted - alone == lora_flops(spec, 20)


def test_the_shipped_base_reads_probes_and_answers() -> None:
    model, tokenizer = load_base(BaseConfig(), "cpu")
    base = eager(model)
    shape, probes = Transformer.of(base.config), ["owl, shirt", "62, 7, 35"]
    encoder = LlmEncoder(base, tokenizer, "tokens", probes)
    [(description,)] = encoder.token_counts(["sort the words"])
    lengths = [len(probe) for probe in encoder._probes]
    assert counted(lambda: encoder.encode(["sort the words"])) == probes_flops(shape, description, lengths)
    assert counted(lambda: base(torch.randint(9, 90, (1, 33)), logits_to_keep=1)) == shape.answer(33, 1)


@pytest.mark.parametrize(
    ("variant", "positions"), [("S", "learned"), ("S", "rotary"), ("M", "learned"), ("L", "learned")]
)
@pytest.mark.parametrize("rank", [1, 8])
def test_a_hypernetwork_makes_one_adapter(variant: Any, positions: Any, rank: int) -> None:
    spec = LoraSpec.from_config(CONFIG, ["q_proj", "k_proj", "down_proj"], rank=rank)
    config = HypernetConfig(variant=variant, latent_size=32, head_input_size=24, rank_positions=positions)
    model = HyperNetwork(spec, config, 20).eval()
    assert counted(lambda: model(torch.randn(1, 20))) == hypernet_flops(config, spec, 20)


def test_a_reader_condenses_states() -> None:
    config = ReaderConfig(width=32, num_layers=2, num_heads=4, num_queries=3)
    reader = TokenReader(40, config).requires_grad_(False)  # training: fused layers of inference are not counted
    states, mask = torch.randn(1, 13, 40), torch.ones(1, 13, dtype=torch.bool)
    with sdpa_kernel(SDPBackend.MATH):
        count = counted(lambda: reader(states, mask))
    assert count == reader_flops(config, 40, 13)


@pytest.mark.parametrize("pooler", [True, False])
def test_a_sentence_encoder_reads_a_description(pooler: bool) -> None:
    config = BertConfig(**SMALL, num_attention_heads=4)
    model = eager(BertModel(config, add_pooling_layer=pooler))
    shape = Transformer.of(config)
    count = counted(lambda: model(torch.randint(3, 90, (1, 11))))
    assert count == sentence_encoder_flops(shape, 11, pooler)


def test_the_parts_of_a_first_answer() -> None:
    shape, spec = Transformer.of(CONFIG), LoraSpec.from_config(CONFIG, ["q_proj"], rank=4)
    lengths = Lengths(description=7, input=10, answer=5)
    assert (lengths.definition, lengths.few_shot) == (17, 55)
    cost = answer_cost(shape, spec, describe=100, generate=10, lengths=lengths)
    assert cost.t2l == 110 + shape.answer(10, 5) + lora_flops(spec, 14)
    assert (cost.definition, cost.few_shot) == (shape.answer(17, 5), shape.answer(55, 5))


def test_mistral_costs_twice_its_weights_a_token() -> None:
    """7.11 billion weights take part in products; attention to 100 tokens adds a little."""
    assert Transformer.of(MistralConfig()).read(100) / 100 == pytest.approx(2 * 6.98e9, rel=0.01)
