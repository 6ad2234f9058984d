"""Adapters in host memory, bounded in bytes, least recently used out: what stands behind the device's slots."""

from collections import OrderedDict

from torch import Tensor


class AdapterCache:
    """Flat adapters by key. One larger than the whole cache is simply not kept."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity, self._held = capacity_bytes, OrderedDict[str, Tensor]()
        self.bytes = self.hits = self.misses = self.evictions = 0

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: str) -> Tensor | None:
        """The adapter, which becomes the most recently used, or None."""
        adapter = self._held.get(key)
        if adapter is None:
            self.misses += 1
            return None
        self.hits += 1
        self._held.move_to_end(key)
        return adapter

    def put(self, key: str, adapter: Tensor) -> None:
        self.pop(key)
        self._held[key] = adapter
        self.bytes += adapter.nbytes
        while self.bytes > self._capacity:
            self.pop(next(iter(self._held)))
            self.evictions += 1

    def pop(self, key: str) -> None:
        """Forget an adapter; unknown keys are ignored."""
        if (adapter := self._held.pop(key, None)) is not None:
            self.bytes -= adapter.nbytes
