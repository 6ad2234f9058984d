"""Models that bring code of their own (gte-large-en-v1.5, for one), which was written for transformers 4."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights


def mend(model: PreTrainedModel) -> None:
    """Make a loaded model of foreign code whole under transformers 5; others are left as they are.

    A model is built without memory there, and filled with what its files hold. What foreign constructors compute
    besides (gte: the tables of its rotary positions) is then whatever the memory held, without a word; another
    constructor computes it again. And a method is gone that such code calls.
    """
    kind: Any = type(model)
    if not kind.__module__.startswith("transformers_modules."):
        return
    with no_init_weights():
        fresh: PreTrainedModel = kind(model.config)
    for name, buffer in fresh.named_non_persistent_buffers():
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, buffer.to(model.device))
    if not hasattr(kind, "get_extended_attention_mask"):
        kind.get_extended_attention_mask = _extended_attention_mask


def _extended_attention_mask(
    model: PreTrainedModel, mask: Tensor, input_shape: Any = None, device: Any = None, dtype: torch.dtype | None = None
) -> Tensor:
    """1 for real tokens, [N, T] or [N, T, T] -> what is added to scores, 0 for them, [N, 1, 1 or T, T]."""
    dtype = dtype or model.dtype
    wide = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
    return (1 - wide.to(dtype)) * torch.finfo(dtype).min
