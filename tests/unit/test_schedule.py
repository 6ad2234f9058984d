"""The learning rate by step."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2l.train.schedule import linear_with_warmup


@given(st.integers(1, 2000), st.floats(0, 1))
def test_up_then_down_and_never_zero(steps: int, warmup: float) -> None:
    rates = [linear_with_warmup(step, steps, 1.0, warmup) for step in range(steps)]
    top = round(warmup * steps)
    assert all(0 < rate <= 1 for rate in rates)
    assert all(b > a for a, b in pairwise(rates[:top]))
    assert all(b < a for a, b in pairwise(rates[top:]))
    assert max(rates) == pytest.approx(1)


def test_by_hand() -> None:
    rates = [linear_with_warmup(step, 10, 2.0, 0.2) for step in range(10)]
    assert rates == pytest.approx([1, 2, 2, 1.75, 1.5, 1.25, 1, 0.75, 0.5, 0.25])
