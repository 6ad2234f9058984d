"""Batches whose shape never depends on the company: the same text always gives the same bits.

A matrix product of another height, or a batch padded to another width, rounds differently in the last place. That is
nothing for quality, but an adapter made again on another replica shall have the same bytes, and a resumed run the same
losses. So every batch has a fixed number of rows, all of one length, filled up with repeats.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch import Tensor


def encoder_rows(device: torch.device | str, on_gpu: int) -> int:
    """Texts of a batch of an encoder: on a CPU a batch is no faster than its texts one by one."""
    return 1 if torch.device(device).type == "cpu" else on_gpu


def uniform_batches(shapes: Sequence[Hashable], rows: int) -> Iterator[tuple[list[int], list[int]]]:
    """Indices of items of one shape, up to `rows` of them; and the same, filled up to exactly `rows`."""
    groups: dict[Hashable, list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(index)
    for group in groups.values():
        for start in range(0, len(group), rows):
            batch = group[start : start + rows]
            yield batch, batch + batch[-1:] * (rows - len(batch))


def in_uniform_batches(run: Callable[[list[int]], Tensor], shapes: Sequence[Hashable], rows: int) -> Tensor:
    """Results [N, ...] of N items, in their order; `run` gets the indices of exactly `rows` items of one shape."""
    order: list[int] = []
    parts: list[Tensor] = []
    for batch, filled in uniform_batches(shapes, rows):
        parts.append(run(filled)[: len(batch)])
        order += batch
    if len(parts) == 1:
        return parts[0]
    result = torch.cat(parts)
    return result[torch.tensor(order).argsort().to(result.device)]
