"""CUDA graphs: many small kernels, launched as one."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")


class CudaGraph(Generic[T]):
    """A call without arguments, recorded once; it reads and writes the same tensors every time.

    function: runs twice beforehand, as kernels are chosen and compiled at first. What it returns is overwritten by the
    next replay, and by that of any graph of the same memory pool (`torch.cuda.graph_pool_handle`).
    """

    def __init__(self, function: Callable[[], T], pool: Any = None) -> None:
        current, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            for _ in range(2):
                function()
        current.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may go on using the device.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._result = function()

    def __call__(self) -> T:
        self._graph.replay()
        return self._result
