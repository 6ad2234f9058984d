"""Prompts of any number of rows as one: their tokens stand one after the other, without padding.

Axes: T tokens of a pass, those that fill it up included.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor


class PackedPrompts(NamedTuple):
    """What each token is, its row, and its position there; int32. What fills up has position -1, and the last row."""

    token_T: Tensor
    row_T: Tensor
    position_T: Tensor

    @classmethod
    def empty(cls, size: int, device: torch.device) -> Self:
        """Fixed buffers for passes of up to so many tokens."""
        return cls(*torch.tensor([0, 0, -1], dtype=torch.int32, device=device)[:, None].repeat(1, size))

    def first(self, size: int) -> Self:
        """Views of as many tokens."""
        return type(self)(*(tensor_T[:size] for tensor_T in self))

    def put(self, prompts: Sequence[Sequence[int]], first_row: int) -> None:
        """Fill these buffers with prompts of consecutive rows; the device is not waited for."""
        lengths = [len(prompt) for prompt in prompts]
        host_3_T = np.zeros((3, len(self.token_T)), np.int32)
        host_3_T[1], host_3_T[2] = first_row + len(prompts) - 1, -1
        count = sum(lengths)
        host_3_T[0, :count] = np.concatenate([np.asarray(prompt, np.int32) for prompt in prompts])
        host_3_T[1, :count] = np.arange(first_row, first_row + len(prompts)).repeat(lengths)
        host_3_T[2, :count] = np.concatenate([np.arange(length) for length in lengths])
        source_3_T = torch.from_numpy(host_3_T)
        if self.token_T.is_cuda:
            source_3_T = source_3_T.pin_memory()
        for target_T, source_T in zip(self, source_3_T, strict=True):
            target_T.copy_(source_T, non_blocking=True)
