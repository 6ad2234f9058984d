"""The dropout of compiled layers: as likely as it should be, fresh each time, the same in both passes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from t2l.lora.dropout import dropout

Compiled = Callable[[Tensor, float, bool], Tensor]


@pytest.fixture(scope="module")
def compiled() -> Compiled:
    return torch.compile(dropout, backend="aot_eager", dynamic=True)


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_a_share_is_dropped_and_the_rest_made_up_for(compiled: Compiled, p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(400, 300, requires_grad=True)
    first, second = compiled(x, p, True), compiled(x, p, True)
    gone, again = first == 0, second == 0
    torch.testing.assert_close(first[~gone], torch.full_like(first[~gone], 1 / (1 - p)))
    deviation = (p * (1 - p) / x.numel()) ** 0.5
    assert abs(gone.float().mean() - p) < 4 * deviation
    assert abs((gone & again).float().mean() - p * p) < 4 * deviation, "the second does not follow from the first"
    for axis in (0, 1):  # no row and no column is favoured, and no neighbours go together
        assert (gone.float().mean(axis) - p).abs().max() < 5 * (p * (1 - p) / x.shape[axis]) ** 0.5
        both = gone.narrow(axis, 1, x.shape[axis] - 1) & gone.narrow(axis, 0, x.shape[axis] - 1)
        assert abs(both.float().mean() - p * p) < 4 * deviation
    first.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, first.detach()), "the backward pass has the forward's mask"


def test_a_seed_draws_the_same(compiled: Compiled) -> None:
    x = torch.ones(64, 64)
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(compiled(x, 0.1, True))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_nothing_is_dropped_outside_training(compiled: Compiled) -> None:
    x = torch.randn(8, 8)
    assert torch.equal(compiled(x, 0.5, False), x) and torch.equal(compiled(x, 0.0, True), x)
