"""What the Gateway's replicas tell each other: each one's AdapterStore comes to hold what all of them know."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress

from ray import serve
from ray.serve.handle import DeploymentHandle

from serve.api.backends import broadcast
from serve.api.errors import ApiError
from serve.store import AdapterEntry, AdapterStore

logger = logging.getLogger("ray.serve")
Known = tuple[str, AdapterEntry]
"""Tenant and entry."""

LATER_S = 0.1
"""When news are told that nobody waits for: not while the request that brought them waits for its first token."""


class Peers:
    """The Gateway's own deployment, this replica included, as seen from one replica."""

    def __init__(self, store: AdapterStore) -> None:
        self._store = store
        self._unsent: list[Known] = []
        self._sending: asyncio.Task[None] | None = None
        self._urgent = asyncio.Event()
        self._catching_up: asyncio.Task[None] | None = None
        self._handle: DeploymentHandle | None = None

    def share(self, tenant: str, entries: Sequence[AdapterEntry], urgent: bool) -> asyncio.Task[None]:
        """Tell the others, soon or at once; the task ends when they know. What piles up meanwhile travels together."""
        self._unsent += [(tenant, entry) for entry in entries]
        if urgent:
            self._urgent.set()
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send())
        return self._sending

    async def withdraw(self, tenant: str, id: str) -> None:
        """Once this returns, no news of the adapter is on its way from here."""
        self._unsent = [(owner, entry) for owner, entry in self._unsent if (owner, entry.id) != (tenant, id)]
        if self._sending is not None and not self._sending.done():
            self._urgent.set()
            await asyncio.shield(self._sending)

    async def forget(self, tenant: str, id: str) -> None:
        """Raises ApiError unless all replicas have forgotten."""
        await broadcast(self._own_deployment(), "withdraw", tenant, id)  # else news could overtake what follows
        await broadcast(self._own_deployment(), "forget", tenant, id)

    async def recall(self, tenant: str, id: str) -> AdapterEntry | None:
        """What any replica knows of an id."""
        answers = await broadcast(self._own_deployment(), "recall", tenant, id)
        return next((entry for entry in answers if entry is not None), None)

    async def catch_up(self) -> None:
        """Once in a replica's life: learn what those before it know."""
        if self._catching_up is None:
            self._catching_up = asyncio.create_task(self._learn())
        await asyncio.shield(self._catching_up)

    async def metrics(self) -> list[str]:
        """Prometheus texts, one a replica."""
        return await broadcast(self._own_deployment(), "metrics")

    async def _learn(self) -> None:
        try:
            for known in await broadcast(self._own_deployment(), "everything"):
                for tenant, entry in known:
                    self._store.put(tenant, entry)
        except ApiError as error:  # it answers all the same; `recall` finds what is asked for by id
            logger.warning("could not learn of adapters from other replicas: %s", error.detail)

    async def _send(self) -> None:
        while self._unsent:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._urgent.wait(), LATER_S)
            self._urgent.clear()
            news, self._unsent = self._unsent, []
            if not news:  # withdrawn
                return
            try:
                await broadcast(self._own_deployment(), "remember", news)
            except ApiError as error:  # likewise
                logger.warning("could not tell other replicas of new adapters: %s", error.detail)

    def _own_deployment(self) -> DeploymentHandle:
        if self._handle is None:
            here = serve.get_replica_context()
            self._handle = serve.get_deployment_handle(here.deployment, here.app_name)
        return self._handle
