"""A state that holds what is no number becomes no checkpoint: a run could never go on from it."""

import pytest
import torch

from t2l.errors import ConfigError
from t2l.train.loop import _sound


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_named(value: float) -> None:
    state = {"first": torch.ones(3), "updates": torch.tensor(7), "second": torch.tensor([1.0, value])}
    with pytest.raises(ConfigError, match=r"second is not finite after step 5: lower train\.lr"):
        _sound(state, 5)
    del state["second"]
    assert _sound(state, 5) is state
