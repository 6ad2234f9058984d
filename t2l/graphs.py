"""CUDA graphs: many small kernels, launched as one."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

MOST = 256
"""Sets of shapes that are recorded: each holds memory."""

_LOG = logging.getLogger(__name__)


class CudaGraph(Generic[T]):
    """A call without arguments, recorded once; it reads and writes the same tensors every time.

    function: runs twice beforehand, as kernels are chosen and compiled at first. What it returns is overwritten by the
    next replay, and by that of any graph of the same memory pool (`torch.cuda.graph_pool_handle`). Raises RuntimeError
    for a function that waits for the device.
    """

    def __init__(self, function: Callable[[], T], pool: Any = None) -> None:
        current, beside = torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            for _ in range(2):
                function()
        current.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may go on using the device.
            with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
                self._result = function()
        except RuntimeError:
            # torch would go on in the stream of the recording, and draw no random numbers until one has succeeded.
            torch.cuda.set_stream(current)
            with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
                torch.zeros(1, device=current.device)
            raise

    def __call__(self) -> T:
        self._graph.replay()
        return self._result


class GraphByShape:
    """A function of named tensors, recorded for each set of shapes when it first comes up; one thread at a time.

    On a CPU, for shapes beyond the first MOST, or where the function waits for the device, which cannot be recorded, it
    is called as it is.
    """

    def __init__(self, function: Callable[[Mapping[str, Tensor]], Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        self._graphs: dict[object, tuple[dict[str, Tensor], CudaGraph[Tensor]] | None] = {}
        self._most = MOST if device.type == "cuda" else 0
        self._pool = torch.cuda.graph_pool_handle() if self._most else None

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """inputs: on the CPU; the result is on the device."""
        shapes = tuple((name, tensor.shape) for name, tensor in inputs.items())
        if shapes not in self._graphs and len(self._graphs) < self._most:
            self._graphs[shapes] = self._record(inputs)
        if (recorded := self._graphs.get(shapes)) is None:
            return self._function({name: tensor.to(self._device) for name, tensor in inputs.items()})
        held, graph = recorded
        for name, tensor in inputs.items():
            held[name].copy_(tensor)
        return graph().clone()

    def _record(self, inputs: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], CudaGraph[Tensor]] | None:
        held = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        try:
            return held, CudaGraph(lambda: self._function(held), self._pool)
        except RuntimeError as error:
            self._pool = torch.cuda.graph_pool_handle()  # torch believes that the old one is still being recorded into
            _LOG.warning("cannot be recorded as a CUDA graph, so it will be slower: %s", str(error).partition("\n")[0])
            return None
