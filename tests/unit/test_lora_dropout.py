"""The dropout of compiled layers: as likely as it should be, fresh each time, the same in both passes."""

from collections.abc import Callable

import pytest
import torch
from dropped import assert_dropped_at_random
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
    assert_dropped_at_random(first.detach(), second.detach(), p)
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
