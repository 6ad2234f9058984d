"""Arrow (Ostapenko et al. 2024, https://arxiv.org/abs/2405.11157): every token is routed to a few LoRAs of a library.

PEFT's own implementation. It runs all LoRAs on all tokens and stacks them anew in every call, so it is slow, and its
memory grows with the library: hence the limit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from peft.tuners.lora.arrow import create_arrow_model
from peft.tuners.lora.config import ArrowConfig
from transformers import PreTrainedModel

MAX_ADAPTERS = 32
TOP_K = 4
"""LoRAs a token, the paper's number: those whose direction is nearest to its state, weighted by a softmax."""


def arrow_model(base: PreTrainedModel, folders: Sequence[Path]) -> PreTrainedModel:
    """A base model with the adapters of these PEFT folders and PEFT's router over them; `base` is changed in place."""
    assert 0 < len(folders) <= MAX_ADAPTERS
    config = ArrowConfig(top_k=min(TOP_K, len(folders)), rng_seed=0)
    model = create_arrow_model(base, [str(folder) for folder in folders], config)
    return cast(PreTrainedModel, model.eval())  # which passes on all that it has not itself
