"""Rows without padding: their tokens stand one after the other in a single row, and attention keeps them apart.

Axes: B rows, W width that they would be padded to, T tokens of all of them, H query heads, G key-value heads, D head
size, K labels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from t2l import kernels
from t2l.errors import SpecMismatchError
from t2l.lora.apply import PerRowLora
from t2l.lora.together import Segments

NAME = "t2l_packed"
_LAYERS = {"full_attention", "sliding_attention"}
SMALLEST = 1024
"""Hidden size of a model whose rows are packed. Smaller ones (the embedded base) have been measured padded alone."""


@dataclass(frozen=True)
class PackedRows:
    """Where the tokens of rows stand; made without waiting for the device.

    width: W. place_T: in the flattened [B * W]; row_T, position_T: its row, and where in it; start_B1: of each row, and
    the end.
    """

    width: int
    place_T: Tensor
    row_T: Tensor
    position_T: Tensor
    start_B1: Tensor

    @classmethod
    def of(cls, lengths_B: Tensor, width: int, count: int) -> "PackedRows":
        """`count` is the sum of the lengths, which lie on the device."""
        start_B1 = F.pad(lengths_B.cumsum(0), (1, 0))
        rows_B = torch.arange(len(lengths_B), device=lengths_B.device)
        row_T = rows_B.repeat_interleave(lengths_B, output_size=count)
        position_T = torch.arange(count, device=lengths_B.device) - start_B1[row_T]
        return cls(width, row_T * width + position_T, row_T, position_T, start_B1)

    def find(self, place_K: Tensor) -> Tensor:
        """Places in the flattened [B * W] -> places in T."""
        return self.start_B1[place_K // self.width] + place_K % self.width

    def segments(self, adapters: int) -> Segments:
        """Of adapters that serve as many consecutive rows each. Raises SpecMismatchError if rows do not divide so."""
        rows = len(self.start_B1) - 1
        if rows % adapters:
            raise SpecMismatchError(
                f"{adapters} adapters cannot share {rows} rows: rows must be a multiple of adapters"
            )
        each = rows // adapters
        return Segments((self.row_T // each).int(), self.start_B1[::each].int())

    def inputs(self, embeddings_B_W_H: Tensor) -> dict[str, Any]:
        """What the model's forward takes, for a state [1, T, H] of each token."""
        return {
            "inputs_embeds": embeddings_B_W_H.flatten(0, 1).index_select(0, self.place_T)[None],
            "position_ids": self.position_T[None],
            "cu_seq_lens_q": self.start_B1.int(),  # transformers' names; `attention` gets them
            "max_length_q": self.width,
        }


def can_pack(base: PerRowLora) -> bool:
    """Where our kernels for packed rows may be called, on NVIDIA GPUs, in bf16 or fp16, with no capped scores; and
    where the model is large enough for it to pay."""
    model, config = base.model, base.model.config.get_text_config()
    return (
        kernels.usable(model.device)
        and model.dtype in (torch.bfloat16, torch.float16)
        and config._attn_implementation == NAME
        and config.hidden_size >= SMALLEST
        and _LAYERS.issuperset(getattr(config, "layer_types", None) or ())
    )


def register() -> str:
    """Make `attention` known to transformers, by the name that is returned; masks are those of torch's attention."""
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


@contextmanager
def without_masks() -> Iterator[None]:
    """For packed rows, which need none; of a sliding window transformers would make one of [T, T]."""
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    try:
        yield
    finally:
        AttentionMaskInterface.register(NAME, sdpa_mask)


def attention(
    module: nn.Module,
    query_B_H_T_D: Tensor,
    key_B_G_T_D: Tensor,
    value_B_G_T_D: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[B, T, H, D], called by every attention layer; B is 1 where the model's forward was called with packed rows."""
    kernels.check_attention(kwargs)
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query_B_H_T_D, key_B_G_T_D, value_B_G_T_D, attention_mask, scaling=scaling, **kwargs
        )
    from t2l.kernels.packed_attention import packed_attention  # Triton is not there where kernels are not usable

    out_T_H_D = packed_attention(
        query_B_H_T_D[0].transpose(0, 1),
        key_B_G_T_D[0].transpose(0, 1),
        value_B_G_T_D[0].transpose(0, 1),
        cu_seq_lens_q,
        max_length_q,
        query_B_H_T_D.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window,
    )
    return out_T_H_D[None], None
