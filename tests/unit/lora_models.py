"""Tiny random causal LMs with grouped-query attention, random LoRAs, and PEFT's model to compare with."""

import copy
from collections.abc import Sequence

import hypothesis.strategies as st
import torch
from peft import LoraConfig, PeftMixedModel, PeftModel, get_peft_model, set_peft_model_state_dict
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from t2l.lora import LoraSpec, LoraWeights

VOCAB = 61
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,  # q_proj is 32 -> 48, so that no two axes agree by chance
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
}
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

families = st.sampled_from(sorted(FAMILIES))
target_lists = st.lists(st.sampled_from(TARGETS), min_size=1, max_size=4, unique=True)
ranks = st.integers(1, 5)
alphas = st.sampled_from([1.0, 7.5, 16.0])


def tiny_config(family: str) -> PreTrainedConfig:
    config_class, _ = FAMILIES[family]
    return config_class(**SHAPE, attn_implementation="eager")  # Gemma 2 caps its logits: eager alone is exact


def tiny_model(family: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """The same random weights, up to rounding, at every call."""
    torch.manual_seed(0)
    _, model_class = FAMILIES[family]
    return model_class(tiny_config(family)).to(dtype).eval()


def random_weights(spec: LoraSpec, n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> LoraWeights:
    """n adapters with A and B both far from zero."""
    generator = torch.Generator().manual_seed(seed)
    zeros = LoraWeights.zeros(spec, n, torch.float64)
    return zeros.map(lambda x: 0.2 * torch.randn(x.shape, generator=generator, dtype=x.dtype)).to(dtype=dtype)


def tokens(rows: int, length: int = 6, seed: int = 0) -> Tensor:
    return torch.randint(1, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def peft_model(base: PreTrainedModel, weights: LoraWeights) -> PeftModel:
    """PEFT around a copy of the base model, with the adapters named "0", "1", ..."""
    spec = weights.spec
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,  # pyright: ignore[reportArgumentType]  PEFT takes a float, too
        use_rslora=spec.use_rslora,
        target_modules=list(spec.module_names),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(copy.deepcopy(base), config, adapter_name="0", autocast_adapter_dtype=False)
    assert isinstance(model, PeftModel)
    assert not isinstance(model, PeftMixedModel)
    for index in range(len(weights)):
        if index:
            model.add_adapter(str(index), config, autocast_adapter_dtype=False)
        result = set_peft_model_state_dict(model, weights.state_dict(index), adapter_name=str(index))
        assert not result.unexpected_keys
    return model.eval()


def logits(model: torch.nn.Module, *args: LoraWeights | None, input_ids: Tensor, **kwargs: Sequence[str]) -> Tensor:
    with torch.no_grad():
        return model(*args, input_ids=input_ids, **kwargs).logits
