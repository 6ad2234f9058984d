"""The bank holds what it is asked for, bounded, and gives up the least recently used adapter."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from serve.engine.slots import AdapterSlots


def bank(slots: int) -> AdapterSlots:
    return AdapterSlots(slots, 3, torch.float32, torch.device("cpu"))


def adapter(key: str) -> torch.Tensor:
    return torch.full((3,), float(ord(key)))


@given(st.integers(1, 4), st.lists(st.sampled_from("abcdef")))
def test_it_is_an_lru_cache(slots: int, keys: list[str]) -> None:
    ours, resident, hits, evictions = bank(slots), list[str](), 0, 0
    for key in keys:
        assert torch.equal(ours.fetch(key, adapter(key)), adapter(key))
        if key in resident:
            hits += 1
            resident.remove(key)
        elif len(resident) == slots:
            resident.pop(0)
            evictions += 1
        resident.append(key)
        assert (len(ours), ours.hits, ours.evictions) == (len(resident), hits, evictions)
    assert ours.misses == len(keys) - hits


def test_a_hit_copies_nothing() -> None:
    ours = bank(2)
    first = ours.fetch("a", adapter("a"))
    assert ours.fetch("a", adapter("b")).data_ptr() == first.data_ptr()
    assert torch.equal(first, adapter("a"))


def test_adapters_are_cast_to_the_bank() -> None:
    half = AdapterSlots(1, 3, torch.bfloat16, torch.device("cpu"))
    assert torch.equal(half.fetch("a", torch.tensor([1.0, 2.0, 3.0])), torch.tensor([1, 2, 3], dtype=torch.bfloat16))
