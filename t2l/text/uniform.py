"""Batches whose shape never depends on the company: the same text always gives the same bits.

A matrix product of another height, or a batch padded to another width, rounds differently in the last place. That is
nothing for quality, but an adapter made again on another replica shall have the same bytes. So every batch has a fixed
number of rows, all of one length, filled up with repeats.
"""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor


def in_uniform_batches(run: Callable[[list[int]], Tensor], shapes: Sequence[Hashable], rows: int) -> Tensor:
    """Results [N, ...] of N items, in their order; `run` gets the indices of exactly `rows` items of one shape."""
    groups: dict[Hashable, list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(index)
    order: list[int] = []
    parts: list[Tensor] = []
    for group in groups.values():
        for start in range(0, len(group), rows):
            batch = group[start : start + rows]
            parts.append(run(batch + batch[-1:] * (rows - len(batch)))[: len(batch)])
            order += batch
    result = torch.cat(parts)
    return result[torch.tensor(order).argsort().to(result.device)]
