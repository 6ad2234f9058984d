"""The model families of the recipes: their real sizes, tiny random models, tokenizers that behave like the real ones.

The real tokenizers lie on a hub. What matters of them is made anew here: special tokens, which of them end an answer,
whether a begin-of-text token is put before every text, and what the chat template does: roles it refuses, what it
strips, what it writes around messages. Their vocabulary is single characters.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GenerationConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

Backend = Callable[[list[str]], Tokenizer]

MISTRAL_TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('only user and assistant roles, in turn') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}{{- ' [INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}
{%- endfor %}"""
"""No system role. A space stands before answers that have been given, none before the answer to come."""

LLAMA_TEMPLATE = """{{- bos_token + '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{{- 'Cutting Knowledge Date: December 2023\\nToday Date: 26 Jul 2024\\n\\n' }}
{%- if messages[0]['role'] == 'system' %}
    {{- messages[0]['content'] | trim }}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- '<|eot_id|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
"""A system message stands there in any case."""

GEMMA_TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}{{- raise_exception('there is no system role') }}{%- endif %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\\n' }}{%- endif %}"""
"""An answer ends with another token than the tokenizer's end token."""

QWEN_TEMPLATE = """{%- set thought = '<think>\\n\\n</think>\\n\\n' %}
{%- set last = namespace(user=0) %}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}{%- set last.user = loop.index0 %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' and loop.index0 > last.user %}{{- thought }}{%- endif %}
    {{- message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{- thought }}{%- endif %}
{%- endif %}"""
"""Thinks unless told not to; thoughts of earlier turns are left out."""


def sentencepiece(prefix: bool) -> Backend:
    """Characters, a space as ▁, bytes for the rest; prefix: a ▁ before every text (Mistral), or none (Gemma)."""

    def backend(specials: list[str]) -> Tokenizer:
        pieces = ["▁", "\n", *map(chr, range(33, 127)), *(f"<0x{byte:02X}>" for byte in range(256))]
        tokenizer = Tokenizer(BPE(_vocabulary(specials + pieces), [], byte_fallback=True))
        spaces = normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
        parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
        return tokenizer

    return backend


def byte_level(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(BPE(_vocabulary(specials + sorted(pre_tokenizers.ByteLevel.alphabet())), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _vocabulary(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}


@dataclass(frozen=True)
class Family:
    """A model of a recipe.

    real: its published sizes. tiny: what differs in a model for tests. ends: all tokens that end an answer, the first
    one of which is what its template puts there.
    """

    config: type[PreTrainedConfig]
    real: dict[str, Any]
    template: str
    backend: Backend
    bos: str | None
    eos: str
    ends: list[str]
    others: list[str] = field(default_factory=list)
    tiny: dict[str, Any] = field(default_factory=dict)

    def real_config(self) -> PreTrainedConfig:
        return self.config(**self.real)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        specials = list(dict.fromkeys([token for token in (self.bos, self.eos) if token] + self.ends + self.others))
        backend = self.backend(specials)
        if self.bos is not None:
            first = [(self.bos, specials.index(self.bos))]
            backend.post_processor = processors.TemplateProcessing(
                single=f"{self.bos} $A", pair=f"{self.bos} $A $B", special_tokens=first
            )
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=self.bos, eos_token=self.eos, additional_special_tokens=specials
        )
        tokenizer.chat_template = self.template
        return tokenizer

    def save_tiny(self, folder: Path) -> Path:
        """A random model of two layers and its tokenizer, as a folder like those on the hub."""
        tokenizer = self.tokenizer()
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}  # 4 * 12 is not the width
        sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        ids = [tokenizer.convert_tokens_to_ids(token) for token in self.ends]
        own = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
        config = self.config(**{**self.real, **sizes, **heads, **own, "initializer_range": 0.2, **self.tiny})
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        model.generation_config = GenerationConfig(eos_token_id=ids)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder


_GQA = {"num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-6}
_LLAMA_8B = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_QWEN = {
    "config": Qwen3Config,
    "template": QWEN_TEMPLATE,
    "backend": byte_level,
    "bos": None,
    "eos": "<|im_end|>",
    "ends": ["<|im_end|>", "<|endoftext|>"],
    "others": ["<|im_start|>", "<think>", "</think>"],
}
_QWEN_SIZES = {**_GQA, "vocab_size": 151_936, "max_position_embeddings": 40_960, "tie_word_embeddings": True}

FAMILIES: dict[str, Family] = {
    "mistral_7b_h100": Family(
        config=MistralConfig,
        real={**_GQA, **_LLAMA_8B, "vocab_size": 32_000, "max_position_embeddings": 32_768, "sliding_window": None},
        template=MISTRAL_TEMPLATE,
        backend=sentencepiece(prefix=True),
        bos="<s>",
        eos="</s>",
        ends=["</s>"],
    ),
    "llama_8b_h100": Family(
        config=LlamaConfig,
        real={
            **_GQA,
            **_LLAMA_8B,
            "vocab_size": 128_256,
            "max_position_embeddings": 131_072,
            "rope_parameters": {**_ROPE, "original_max_position_embeddings": 8192, "rope_theta": 500_000.0},
        },
        template=LLAMA_TEMPLATE,
        backend=byte_level,
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
        ends=["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"],
        others=["<|start_header_id|>", "<|end_header_id|>"],
    ),
    "gemma_2b_h100": Family(
        config=Gemma2Config,
        real={
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "num_hidden_layers": 26,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "head_dim": 256,
            "vocab_size": 256_000,
            "max_position_embeddings": 8192,
            "sliding_window": 4096,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        template=GEMMA_TEMPLATE,
        backend=sentencepiece(prefix=False),
        bos="<bos>",
        eos="<eos>",
        ends=["<end_of_turn>", "<eos>"],
        others=["<start_of_turn>"],
        tiny={"sliding_window": 16, "query_pre_attn_scalar": 12},
    ),
    "qwen3_4b_h100": Family(
        real={
            **_QWEN_SIZES,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
        },
        **_QWEN,
    ),
    "qwen3_0.6b_rtx4090": Family(
        real={
            **_QWEN_SIZES,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        },
        **_QWEN,
    ),
}
"""By the name of the recipe in jobs/configs."""
