"""Decoding steps as CUDA graphs: launching a step's thousand kernels one by one takes longer than running them.

Axes: N rows, V vocabulary.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from t2l.graphs import CudaGraph
from t2l.lora.compiled import CompiledLayers


class StepGraphs:
    """Steps of some numbers of rows, with adapters and without, each recorded when it is first needed, or beforehand.

    logits: (n, adapted) -> logits [n, V] of the next tokens of the first n of all `rows`, from fixed buffers.
    compiled: decoder layers whose small kernels become few by torch.compile, in the graphs alone.
    """

    def __init__(self, logits: Callable[[int, bool], Tensor], rows: int, compiled: Sequence[nn.Module]) -> None:
        self._logits, self._sizes = logits, sizes(rows)
        self._layers = CompiledLayers(compiled)
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[int, bool], CudaGraph[Tensor]] = {}

    def __call__(self, n: int, adapted: bool) -> Tensor:
        """Logits [n, V], good until the next call. Rows beyond n, up to the next recorded number, decode in vain."""
        key = self._sizes[bisect_left(self._sizes, n)], adapted
        if key not in self._graphs:
            with self._layers.running():
                self._graphs[key] = CudaGraph(partial(self._logits, *key), self._pool)
        return self._graphs[key]()[:n]

    def record_all(self) -> None:
        """So that no request waits for it."""
        for size in reversed(self._sizes):  # the largest first: the others then need no memory of their own
            for adapted in (False, True):
                self(size, adapted)


def sizes(rows: int) -> list[int]:
    """Powers of 2, from 16 on what is halfway to the next as well, and `rows`, the largest.

    Not 1, which would be compiled apart.
    """
    powers = [2**k for k in range(1, rows.bit_length())]
    halfway = [power * 3 // 2 for power in powers if power >= 16]
    return [*sorted(size for size in powers + halfway if size < rows), rows]
