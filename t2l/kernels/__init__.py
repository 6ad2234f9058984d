"""Triton kernels for NVIDIA GPUs, each beside a plain torch path that other devices take."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from t2l.errors import ConfigError

AMPERE, HOPPER = (8, 0), (9, 0)
"""Compute capabilities."""
HOPPER_SHARED = 227 << 10
"""Bytes of shared memory that a program may have there."""

MOST_LAYERS = 3
"""That a kernel takes at once, at most: q, k and v."""

FP32_PRECISION = "tf32"
"""How kernels of the hypernetwork multiply fp32: "tf32" (mantissas of 10 bits, so 1e-3 of the terms) or "ieee" (in
full, but several times slower). Sums are fp32 in any case."""


def precision(dtype: torch.dtype) -> str:
    """How a kernel's matrix products take their inputs: fp32 in full; to others it makes no difference."""
    return "ieee" if dtype == torch.float32 else "tf32"


@torch.compiler.assume_constant_result  # not for torch.compile to look into
def usable(device: torch.device, capability: tuple[int, int] = AMPERE) -> bool:
    """Whether tensors there may be given to a kernel; torch's builds for NVIDIA GPUs bring Triton along.

    AMPERE: kernels that fit into any such chip's shared memory, in bf16. HOPPER: those that need what came with it, its
    shared memory too, which later chips for desktops lack.
    """
    if device.type != "cuda" or torch.version.cuda is None:
        return False
    chip = torch.cuda.get_device_properties(device)
    fits = capability < HOPPER or chip.shared_memory_per_block_optin >= HOPPER_SHARED
    return (chip.major, chip.minor) >= capability and fits


def dot_block(size: int) -> int:
    """Elements that a block must have to hold so many: a power of two, and what a matrix product takes at least."""
    return max(16, 1 << (size - 1).bit_length())


def distances(tensors: Sequence[Tensor]) -> list[int]:
    """Elements from the first tensor's to those of each other, and zeros up to MOST_LAYERS - 1 numbers. For kernels,
    which take one address and these."""
    first = tensors[0].data_ptr()
    found = [(tensor.data_ptr() - first) // tensor.itemsize for tensor in tensors[1:]]
    return found + [0] * (MOST_LAYERS - len(tensors))


def infers(x: Tensor, weight: Tensor) -> bool:
    """Whether the hypernetwork's kernels may be called: without gradients, on a Hopper, for one dtype, as it is except
    under autocast, or for halves of fp32."""
    halved = x.dtype == torch.float16 and weight.dtype == torch.float32
    known = halved or (x.dtype == weight.dtype and x.dtype in (torch.float32, torch.bfloat16))
    return known and not torch.is_grad_enabled() and usable(x.device, HOPPER)


def check_attention(arguments: Mapping[str, Any]) -> None:
    """Raise ConfigError for what a model asks of its attention and our kernels, or torch's, would leave out."""
    if unknown := [name for name in ("s_aux", "softcap") if arguments.get(name) is not None]:
        raise ConfigError(f"the base model's attention has {' and '.join(unknown)}, which is not supported on a GPU")
