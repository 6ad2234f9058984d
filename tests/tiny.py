"""Tiny random models and a few tasks for tests that need real ones but not good ones."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from t2l.config import RunConfig, parse_config
from t2l.embedded.tokenizer import ASSISTANT, BOS, CHAT_TEMPLATE, END, PAD, USER


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes only, with the embedded model's chat template."""
    vocabulary = [PAD, BOS, USER, ASSISTANT, END, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE(vocab={piece: i for i, piece in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_llama(seed: int = 0, vocab_size: int = 320) -> LlamaForCausalLM:
    """Random weights, 2 layers of width 32, grouped-query attention."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=4,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def save_tiny_base(folder: Path) -> Path:
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_settings(base: Path, output_dir: Path, **train: Any) -> dict[str, Any]:
    """A run of seconds on a few word tasks; the base LLM's own last state is the text encoder."""
    return {
        "name": "tiny",
        "output_dir": str(output_dir),
        "base": {"path": str(base)},
        "hypernet": {"variant": "M", "latent_size": 16, "head_input_size": 24},
        "encoder": {"kinds": ["llm"]},
        "data": {
            "suite": "sub_universe",
            "domain": "words",
            "picks": ["first", "last", "reverse", "ends", "longest", "shortest"],
            "renders": ["plain", "uppercase", "quotes", "last_letter", "numbered", "dashes"],
            "num_descriptions": 4,
            "num_validation": 1,
            "num_test": 2,
            "max_prompt_tokens": 48,
            "max_response_tokens": 32,
        },
        "train": {
            "steps": 6,
            "tasks_per_step": 4,
            "lr": 1e-2,
            "log_every": 1,
            "validation_inputs": 2,
            "report_inputs": 1,
            **train,
        },
    }


def tiny_config(base: Path, output_dir: Path, **train: Any) -> RunConfig:
    return parse_config(tiny_settings(base, output_dir, **train))
