"""What a Gateway replica knows of its tenants' adapters: enough to make each one again, and no weights.

Axes: E task embedding.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from serve.protocol import AdapterRef


@dataclass(frozen=True, eq=False)
class AdapterEntry:
    """A description that became an adapter."""

    id: str
    description: str
    embedding_E: np.ndarray
    nearness: float | None
    warning: str | None
    """Why the adapter may not do what its description says."""
    created: int
    """Seconds since 1970."""

    def ref(self, tenant: str) -> AdapterRef:
        return AdapterRef(tenant, self.id, self.embedding_E)


class AdapterStore:
    """Adapters by tenant and id. Each tenant has at most `per_tenant`; the least recently used one makes room."""

    def __init__(self, per_tenant: int) -> None:
        self._per_tenant = per_tenant
        self._tenants: dict[str, OrderedDict[str, AdapterEntry]] = {}
        self.deletions = 0
        """So far: what was asked for before one may not be true after it."""

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._tenants.values())

    def __iter__(self) -> Iterator[tuple[str, AdapterEntry]]:
        """All (tenant, entry), each tenant's least recently used one first: put in this order they give this store."""
        return ((tenant, entry) for tenant, entries in self._tenants.items() for entry in entries.values())

    def get(self, tenant: str, id: str) -> AdapterEntry | None:
        """The entry, which becomes the tenant's most recently used, or None."""
        entries = self._tenants.get(tenant, {})
        if id not in entries:
            return None
        self._tenants[tenant].move_to_end(id)
        return entries[id]

    def put(self, tenant: str, entry: AdapterEntry) -> None:
        """Keep an entry; a known id keeps its first entry, and so its date."""
        entries = self._tenants.setdefault(tenant, OrderedDict())
        entries.setdefault(entry.id, entry)
        entries.move_to_end(entry.id)
        if len(entries) > self._per_tenant:
            entries.popitem(last=False)

    def forget(self, tenant: str, id: str) -> bool:
        """Whether there was anything to forget."""
        self.deletions += 1
        return self._tenants.get(tenant, {}).pop(id, None) is not None

    def listing(self, tenant: str) -> list[AdapterEntry]:
        """A tenant's entries, newest first; the order does not depend on use."""
        return sorted(self._tenants.get(tenant, {}).values(), key=lambda entry: (-entry.created, entry.id))
