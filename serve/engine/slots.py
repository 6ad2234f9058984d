"""Adapters that stay on the device, the least recently used one giving way.

Axes: S slots, P parameters of an adapter.
"""

from collections import OrderedDict

import torch
from torch import Tensor


class AdapterSlots:
    """A bank [S, P] of adapters by key; `hits`, `misses` and `evictions` count what became of calls."""

    def __init__(self, slots: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._bank_S_P = torch.zeros(slots, size, dtype=dtype, device=device)
        self._slot_of: OrderedDict[str, int] = OrderedDict()  # least recently used first
        self.hits = self.misses = self.evictions = 0

    def __len__(self) -> int:
        """Slots in use."""
        return len(self._slot_of)

    def fetch(self, key: str, adapter_P: Tensor) -> Tensor:
        """The resident copy [P] of an adapter, a view that is good until the next call."""
        slot = self._slot_of.get(key)
        if slot is None:
            slot = self._load(key, adapter_P)
        else:
            self.hits += 1
            self._slot_of.move_to_end(key)
        return self._bank_S_P[slot]

    def _load(self, key: str, adapter_P: Tensor) -> int:
        self.misses += 1
        slot = len(self._slot_of)
        if slot == len(self._bank_S_P):
            _, slot = self._slot_of.popitem(last=False)
            self.evictions += 1
        self._bank_S_P[slot].copy_(adapter_P)
        self._slot_of[key] = slot
        return slot
