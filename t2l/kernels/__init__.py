"""Triton kernels for NVIDIA GPUs, each beside a plain torch path that CPUs take."""

import torch


def usable(device: torch.device) -> bool:
    """Whether tensors there may be given to a kernel; torch's builds for NVIDIA GPUs bring Triton along."""
    return device.type == "cuda" and torch.version.cuda is not None
