"""For benchmarks: base models by name, with random weights and no files.

How fast they are does not depend on what they know.
"""

import argparse
from typing import Any

import torch
from harness import make_parser
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config

from t2l.embedded import BASE_DIR
from t2l.memory import keep_freed_memory
from t2l.train.base import set_up_attention

SHAPES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "qwen3-0.6b": (
        Qwen3Config,
        {"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128}
        | {"num_attention_heads": 16, "num_key_value_heads": 8, "tie_word_embeddings": True},
    ),
    "qwen3-4b": (
        Qwen3Config,
        {"vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "head_dim": 128}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True},
    ),
    "mistral-7b": (
        MistralConfig,
        {"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": None},
    ),
}
NAMES = ("embedded", *SHAPES)
TARGETS, RANK = ["q_proj", "v_proj"], 8
"""Of the adapters, the paper's."""
EMBEDDING = 1024
"""Of gte-large-en-v1.5, the paper's encoder."""


def shaped_parser(doc: str | None) -> argparse.ArgumentParser:
    """As `harness.make_parser`, with a choice of the base model too."""
    made = make_parser(doc, device=True)
    made.add_argument("--base", choices=NAMES, default="embedded", help="shapes of the base model")
    return made


def base_config(name: str) -> PreTrainedConfig:
    """embedded: the shipped model's; else as published for Qwen3 and Mistral-7B-Instruct-v0.2."""
    if name == "embedded":
        return AutoConfig.from_pretrained(BASE_DIR)
    kind, sizes = SHAPES[name]
    return kind(**sizes)


def random_base(name: str, device: str) -> PreTrainedModel:
    """Frozen, in eval mode; bf16 on a GPU, fp32 on a CPU. The same weights every time."""
    keep_freed_memory(device)  # as `load_base` does
    config = base_config(name)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=set_up_attention(device, config)
        )
    return model.eval().requires_grad_(False)
