"""An engine's work as CUDA graphs: launching a pass's thousand kernels one by one takes longer than running them."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from t2l.graphs import CudaGraph
from t2l.lora.compiled import CompiledLayers


class EngineGraphs:
    """Functions that read and write fixed buffers, each recorded when it is first called with some arguments.

    compiled: decoder layers whose small kernels become few by torch.compile, in the graphs alone.
    """

    def __init__(self, compiled: Sequence[nn.Module]) -> None:
        self._layers = CompiledLayers(compiled)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[object, CudaGraph[Any]] = {}

    def __call__(self, function: Callable[..., Any], *args: int) -> Any:
        """function(*args); its result is good until the next call, whatever that is for."""
        key = function, *args
        if key not in self._graphs:
            with self._layers.running():
                self._graphs[key] = CudaGraph(partial(function, *args), self._pool)
        return self._graphs[key]()


def step_sizes(rows: int) -> list[int]:
    """Rows that a step is recorded for: powers of 2, from 16 on what is halfway to the next as well, and `rows`.

    Not 1, which would be compiled apart.
    """
    powers = [2**k for k in range(1, rows.bit_length())]
    halfway = [power * 3 // 2 for power in powers if power >= 16]
    return [*sorted(size for size in powers + halfway if size < rows), rows]


def prompt_sizes(tokens: int) -> list[int]:
    """Tokens that a pass over prompts is recorded for, up to at least so many.

    Below 128, reading the weights takes the same time for all; from there on sizes lie 128 apart, as many as a matrix
    product takes at a time, or an eighth where that is more.
    """
    sizes = [16, 32, 64, 128]
    while sizes[-1] < tokens:
        sizes.append(sizes[-1] + max(128, 1 << (sizes[-1].bit_length() - 4)))
    return sizes


def enough(sizes: Sequence[int], needed: int) -> int:
    """The least of ascending sizes that is."""
    return sizes[bisect_left(sizes, needed)]
