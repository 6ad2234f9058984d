"""What dropout must leave behind."""

import torch
from torch import Tensor


def assert_dropped_at_random(first: Tensor, second: Tensor, p: float) -> None:
    """Of ones [rows, columns], twice: the right share is gone, the rest makes up for it, no place is favoured."""
    gone, again = first == 0, second == 0
    torch.testing.assert_close(first[~gone], torch.full_like(first[~gone], 1 / (1 - p)))
    deviation = (p * (1 - p) / first.numel()) ** 0.5
    assert abs(gone.float().mean() - p) < 4 * deviation
    assert abs((gone & again).float().mean() - p * p) < 4 * deviation, "the second does not follow from the first"
    for axis in (0, 1):  # no row and no column is favoured, and no neighbours go together
        assert (gone.float().mean(axis) - p).abs().max() < 5 * (p * (1 - p) / first.shape[axis]) ** 0.5
        both = gone.narrow(axis, 1, first.shape[axis] - 1) & gone.narrow(axis, 0, first.shape[axis] - 1)
        assert abs(both.float().mean() - p * p) < 4 * deviation
