"""Which adapters a tenant has: described ones become entries, ids find them again."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from serve.api.about import About
from serve.api.backends import Backends
from serve.api.errors import ApiError
from serve.api.peers import Peers
from serve.protocol import ADAPTER_ID, Embedding, adapter_id
from serve.store import AdapterEntry, AdapterStore
from t2l.errors import DescriptionError
from t2l.text.nearness import far_warning
from t2l.text.normalize import clean_description

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Described:
    """Entries in the order of their descriptions."""

    entries: list[AdapterEntry]
    encode_seconds: float


class Catalog:
    """The store of this replica, what other replicas know, and the encoder for what nobody knows."""

    def __init__(self, about: About, store: AdapterStore, peers: Peers, backends: Backends) -> None:
        self._about, self._store, self._peers, self._backends = about, store, peers, backends

    async def describe(self, tenant: str, descriptions: Sequence[str], wait: bool) -> Described:
        """An entry for each description; only new ones are encoded.

        wait: until all replicas know them, so that the next request may go anywhere. Raises ApiError.
        """
        try:
            ids = [self._id(text) for text in descriptions]
            texts = dict(zip(ids, map(clean_description, descriptions), strict=True))
        except DescriptionError as error:
            raise ApiError(400, str(error)) from error
        entries = {id: entry for id in texts if (entry := self._store.get(tenant, id))}
        lacking = [id for id in texts if id not in entries]
        if not lacking:
            return Described([entries[id] for id in ids], encode_seconds=0.0)
        start = time.perf_counter()
        embeddings = await self._backends.embed([texts[id] for id in lacking])
        seconds = time.perf_counter() - start
        new = [_entry(id, texts[id], embedding) for id, embedding in zip(lacking, embeddings, strict=True)]
        for entry in new:
            self._store.put(tenant, entry)
        told = self._peers.share(tenant, new, urgent=wait)
        if wait:
            await asyncio.shield(told)
        entries |= {entry.id: entry for entry in new}
        return Described([entries[id] for id in ids], seconds)

    async def get(self, tenant: str, id: str) -> AdapterEntry:
        """Raises ApiError (404) for an id that no replica knows of this tenant."""
        deletions = self._store.deletions
        entry = self._store.get(tenant, id) or await self._peers.recall(tenant, id)
        if entry is None:
            raise ApiError(
                404,
                f"no adapter {id!r}: POST its description to /v1/adapters, which brings it back under the same id",
                param="model",
                code="model_not_found",
            )
        if self._store.deletions == deletions:  # else it may have been deleted meanwhile
            self._store.put(tenant, entry)
        return entry

    def check_id(self, model: str) -> None:
        """Raises ApiError (404) for a model's name that is no adapter's id."""
        if not ADAPTER_ID.fullmatch(model):
            base = self._about.model_name
            raise ApiError(
                404, f"no such model: use {base!r} or an adapter's id", param="model", code="model_not_found"
            )

    async def listing(self, tenant: str) -> list[AdapterEntry]:
        """A tenant's entries, newest first."""
        await self._peers.catch_up()
        return self._store.listing(tenant)

    async def delete(self, tenant: str, id: str) -> None:
        """Raises ApiError (404) if there is nothing to delete."""
        entry = await self.get(tenant, id)
        await self._peers.forget(tenant, id)
        try:
            await self._backends.unload(entry.ref(tenant).key)
        except ApiError as error:  # it is deleted; an unused adapter in a cache gives way in time
            logger.warning("could not unload a deleted adapter: %s", error.detail)

    async def load(self, tenant: str, entries: Sequence[AdapterEntry]) -> float:
        """Have the adapters made; seconds that it took."""
        return await self._backends.load([entry.ref(tenant) for entry in entries])

    def _id(self, description: str) -> str:
        return adapter_id(description, self._about.hypernet_sha256, self._about.base)


def _entry(id: str, description: str, embedding: Embedding) -> AdapterEntry:
    warning = far_warning(embedding.nearness) if embedding.far and embedding.nearness is not None else None
    return AdapterEntry(id, description, embedding.vector_E, embedding.nearness, warning, int(time.time()))
