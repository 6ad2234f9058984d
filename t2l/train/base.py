"""Loading the frozen base model, and the adapters that fit it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from t2l.config import BaseConfig, LoraConfig
from t2l.embedded import BASE_DIR
from t2l.errors import CheckpointError
from t2l.hub import find
from t2l.lora.spec import LoraSpec
from t2l.memory import keep_freed_memory
from t2l.train import packed


def fingerprint(model: PreTrainedModel) -> str:
    """Tells base models apart that have one shape: a hash of some of the input embedding, the same in fp32 and bf16."""
    embedding = next(model.get_input_embeddings().parameters()).detach()
    some = embedding.flatten()[:: max(1, embedding.numel() // 4096)]
    return hashlib.sha256(some.to("cpu", torch.bfloat16).float().numpy().tobytes()).hexdigest()[:16]


def base_path(config: BaseConfig) -> str:
    """Folder or hub name of the base model, as it is known everywhere; `t2l.hub.find` says where it lies here."""
    return str(BASE_DIR) if config.path == "embedded" else config.path


def build_spec(lora: LoraConfig, base_config: PretrainedConfig) -> LoraSpec:
    """Adapters of these settings for a base model. Raises ConfigError for targets that it lacks."""
    return LoraSpec.from_config(base_config, lora.target_modules, lora.rank, lora.alpha, lora.use_rslora, lora.dropout)


def load_base(config: BaseConfig, device: torch.device | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model, frozen, in eval mode, and its tokenizer.

    Raises HubAccessError if the model is neither a folder nor reachable, CheckpointError if it cannot be read.
    """
    keep_freed_memory(device)
    path = find(base_path(config))
    with reading_base(path):
        tokenizer = AutoTokenizer.from_pretrained(path)
        hf_config = AutoConfig.from_pretrained(path)
        attention = set_up_attention(device, hf_config)
        model = AutoModelForCausalLM.from_pretrained(
            path, config=hf_config, dtype=getattr(torch, config.dtype), attn_implementation=attention
        )
    return model.to(device).eval().requires_grad_(False), tokenizer  # type: ignore[arg-type]


def set_up_attention(device: torch.device | str, hf_config: PretrainedConfig) -> str:
    """The attention that transformers shall use; on GPUs torch's (`packed.py`), without cuDNN's, which plans anew for
    every shape.

    All of our batches differ in shape, and a plan takes longer than a layer. At the short lengths that CPUs can afford,
    plain attention takes half the time of torch's fused one; and the fused one cannot cap its scores, as Gemma 2 does.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)
    capped = getattr(hf_config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "eager" if capped or torch.device(device).type == "cpu" else packed.register()


@contextmanager
def reading_base(path: str) -> Iterator[None]:
    """Makes one sentence of what transformers raises on a base model that it cannot read."""
    logging.disable_progress_bar()  # it would break up the live line
    try:
        yield
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"the base model in {path} cannot be read: {reason}") from error
