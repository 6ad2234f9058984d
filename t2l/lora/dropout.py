"""Dropout for compiled layers, drawn by a hash: torch's generator costs more there than all else in its kernel."""

import torch
import torch.nn.functional as F
from torch import Tensor

_BITS = 24


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """As `F.dropout`: in training each element is 0 with probability p, and else divided by 1 - p."""
    if training and p and torch.compiler.is_compiling():
        return torch.where(_draws(x) < round(p * (1 << _BITS)), 0, x / (1 - p))
    return F.dropout(x, p, training)


def _draws(like: Tensor) -> Tensor:
    """A fresh number of 24 bits for every element: its place, hashed (MurmurHash3's finalizer, in wrapping int32).

    For compilers alone: they make a few instructions of it, and do so again in the backward pass instead of keeping
    the mask.
    """
    seed = torch.randint(-(1 << 31), 1 << 31, (), dtype=torch.int32, device=like.device)
    bits = torch.arange(like.numel(), dtype=torch.int32, device=like.device).view_as(like) + seed
    bits = (bits ^ _shifted(bits, 16)) * (0x85EBCA6B - (1 << 32))
    bits = (bits ^ _shifted(bits, 13)) * (0xC2B2AE35 - (1 << 32))
    return _shifted(bits ^ _shifted(bits, 16), 32 - _BITS)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """To the right, with zeros from the left."""
    return bits >> by & (1 << 32 - by) - 1
