"""Sampling against plain definitions, and each row's independence of its company."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from serve.engine.sampling import Sampler, draw, nucleus
from serve.protocol import Sampling

VOCAB, LENGTH = 50, 40
LAST_BELOW_ONE = 1 - 2**-24  # the largest number that torch.rand gives

probabilities = (
    st.lists(st.integers(0, 20), min_size=2, max_size=12)
    .filter(any)
    .map(lambda counts: torch.tensor([counts], dtype=torch.float32) / sum(counts))
)


def sampler(rows: int = 4) -> Sampler:
    return Sampler(rows, LENGTH, torch.device("cpu"))


def logits(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def walk(ours: Sampler, row: int, company: int, steps: int = LENGTH) -> list[int]:
    """What a row says when every row sees the same logits."""
    positions = torch.zeros(company, dtype=torch.long)
    return [int(ours.sample(logits(1, step).expand(company, -1), positions + step)[row]) for step in range(steps)]


@given(probabilities, st.floats(0, 1))
def test_nucleus_is_the_smallest_set_that_reaches_top_p(probs: Tensor, top_p: float) -> None:
    kept = nucleus(probs, torch.tensor([top_p]))[0]
    chosen = kept > 0
    assert torch.equal(kept[chosen], probs[0][chosen])
    assert chosen.any()
    assert kept.sum() >= min(top_p, 1) - 1e-5
    assert kept.sum() - kept[chosen].min() <= top_p + 1e-5  # without its least token it would not reach
    assert (probs[0][~chosen] <= kept[chosen].min()).all()


@given(probabilities)
def test_numbers_spread_evenly_are_drawn_in_proportion(probs: Tensor) -> None:
    numbers = 1000
    tokens = draw(probs.expand(numbers, -1), (torch.arange(numbers) + 0.5) / numbers)
    share = torch.bincount(tokens, minlength=probs.shape[1]) / numbers
    torch.testing.assert_close(share, probs[0], atol=1.5 / numbers, rtol=0)


@given(probabilities, st.sampled_from([0.0, LAST_BELOW_ONE]), st.floats(0.1, 1))
def test_impossible_tokens_are_never_drawn(probs: Tensor, number: float, scale: float) -> None:
    token = draw(probs * scale, torch.tensor([number]))
    assert probs[0, token] > 0


def test_temperature_zero_is_greedy_beside_rows_that_draw() -> None:
    ours = sampler()
    for row, temperature in enumerate([0.0, 1.0, 1e-9, 5.0]):
        ours.start(row, Sampling(LENGTH, temperature, seed=row), 0, LENGTH)
    greedy = [int(logits(1, step).argmax()) for step in range(LENGTH)]
    assert walk(ours, 0, 4) == walk(ours, 2, 4) == greedy
    assert walk(ours, 1, 4) != greedy
    assert walk(ours, 3, 4) != walk(ours, 1, 4)


@pytest.mark.parametrize("sampling", [Sampling(LENGTH, 1.0, seed=7), Sampling(LENGTH, 0.8, 0.7, seed=7)])
def test_a_seed_says_the_same_in_any_row_and_company(sampling: Sampling) -> None:
    alone, crowded = sampler(1), sampler()
    alone.start(0, sampling, 0, LENGTH)
    for row in range(3):
        crowded.start(row, Sampling(LENGTH, 1.3, 0.9 if row else 1.0, seed=row), 0, LENGTH)
    crowded.start(3, sampling, 0, LENGTH)
    expected = walk(alone, 0, 1)
    assert walk(crowded, 3, 4) == expected
    crowded.move(3, 1)
    assert walk(crowded, 1, 2) == expected
    assert walk(crowded, 0, 2) != expected


def test_without_a_seed_every_answer_differs() -> None:
    ours = sampler(2)
    for row in range(2):
        ours.start(row, Sampling(LENGTH, 2.0), 0, LENGTH)
    assert walk(ours, 0, 2) != walk(ours, 1, 2)


def test_numbers_belong_to_the_positions_of_the_answer() -> None:
    ours, later = sampler(1), sampler(1)
    ours.start(0, Sampling(5, 1.0, seed=3), 0, 5)
    later.start(0, Sampling(5, 1.0, seed=3), 30, 5)
    row = logits(1)
    first = [int(ours.sample(row, torch.tensor([step]))) for step in range(5)]
    assert [int(later.sample(row, torch.tensor([30 + step]))) for step in range(5)] == first


def test_broken_logits_stay_in_their_row() -> None:
    ours = sampler(3)
    for row in range(3):
        ours.start(row, Sampling(LENGTH, 1.0, 0.9 if row else 1.0, seed=row), 0, LENGTH)
    whole = logits(3)
    broken = whole.clone()
    broken[1] = torch.nan
    position = torch.zeros(3, dtype=torch.long)
    expected, found = ours.sample(whole, position), ours.sample(broken, position)
    assert found[[0, 2]].equal(expected[[0, 2]])
    assert 0 <= found[1] < VOCAB
