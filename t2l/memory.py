"""Memory of processes that compute on a CPU."""

import ctypes
import sys
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_TRIM_BYTES, _MMAP_BYTES = (1 << 31) - 1, 1 << 26


@cache
def keep_freed_memory(device: object) -> bool:
    """A process that computes on a CPU keeps what it frees from here on, up to 2 GiB; False where that cannot be had.

    glibc may give a tensor's pages back when it is freed, and take new ones for the next: a decoding step of 64 rows at
    200 positions then spends two thirds of its time in page faults (benchmarks/serve_decode.py on two cores). Tensors
    from 64 MiB on live long, and are faster where the system puts them. For GPUs torch keeps memory by itself.
    """
    if str(device) != "cpu" or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _MMAP_BYTES) and mallopt(_TRIM_THRESHOLD, _TRIM_BYTES))
