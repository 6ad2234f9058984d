"""What the Gateway's replicas tell each other: each one's AdapterStore comes to hold what all of them know."""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from serve.api.backends import Answers, broadcast
from serve.replica_metrics import ReplicaMetrics
from serve.store import AdapterEntry, AdapterStore

logger = logging.getLogger("ray.serve")
Known = tuple[str, AdapterEntry]
"""Tenant and entry."""

LATER_S = 0.1
"""When news are told that nobody waits for: not while the request that brought them waits for its first token."""


class Peers:
    """The Gateway's own deployment, this replica included, as seen from one replica.

    News go out in rounds, one after another; what comes up during a round travels in the next.
    """

    def __init__(self, store: AdapterStore) -> None:
        self._store = store
        self._unsent: list[Known] = []
        self._urgent = asyncio.Event()
        self._next: asyncio.Task[None] | None = None
        """The round that still takes news."""
        self._running: asyncio.Task[None] | None = None
        """The one that has begun to tell them, or the last that did."""
        self._catching_up: asyncio.Task[bool] | None = None
        self._handle: DeploymentHandle | None = None

    def share(self, tenant: str, entries: Sequence[AdapterEntry], urgent: bool) -> asyncio.Task[None]:
        """Tell the others, soon or at once; the task ends when they know."""
        self._unsent += [(tenant, entry) for entry in entries]
        if urgent:
            self._urgent.set()
        if self._next is None:
            self._next = asyncio.create_task(self._round())
        return self._next

    async def withdraw(self, tenant: str, id: str) -> None:
        """Once this returns, no news of the adapter is on its way from here."""
        self._unsent = [(owner, entry) for owner, entry in self._unsent if (owner, entry.id) != (tenant, id)]
        if self._running is not None:
            await asyncio.wait([self._running])

    async def forget(self, tenant: str, id: str) -> None:
        """Raises ApiError unless all replicas have forgotten."""
        (await self._ask_all("withdraw", tenant, id)).all()  # else news could overtake what follows
        (await self._ask_all("forget", tenant, id)).all()

    async def recall(self, tenant: str, id: str) -> AdapterEntry | None:
        """What any replica knows of an id. Raises ApiError where one that may know it does not answer."""
        answers = await self._ask_all("recall", tenant, id)
        known = next((entry for entry in answers.given if entry is not None), None)
        if known is None:
            answers.all()
        return known

    async def catch_up(self) -> None:
        """Once in a replica's life: learn what those before it know. Where one did not answer, it is asked again."""
        if self._catching_up is None or (self._catching_up.done() and not self._catching_up.result()):
            self._catching_up = asyncio.create_task(self._learn())
        await asyncio.shield(self._catching_up)

    async def metrics(self) -> list[ReplicaMetrics]:
        """Of the replicas that answer."""
        return (await self._ask_all("metrics")).given

    async def _learn(self) -> bool:
        """Whether all have told."""
        deletions = self._store.deletions
        answers = await self._ask_all("everything")
        if self._store.deletions != deletions:  # who answered before it would bring back what is deleted
            return False
        for tenant, entry in itertools.chain(*answers.given):
            self._store.put(tenant, entry)
        for error in answers.lacking:  # this one answers all the same; `recall` finds what is asked for by id
            logger.warning("could not learn of adapters from another replica: %s", error.detail)
        return not answers.lacking

    async def _round(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._urgent.wait(), LATER_S)
        if self._running is not None:
            await asyncio.wait([self._running])
        self._running, self._next = self._next, None
        self._urgent.clear()
        news, self._unsent = self._unsent, []
        if news:
            for error in (await self._ask_all("remember", news)).lacking:  # likewise
                logger.warning("could not tell another replica of new adapters: %s", error.detail)

    async def _ask_all(self, method: str, *args: Any) -> Answers:
        if self._handle is None:
            here = serve.get_replica_context()
            self._handle = serve.get_deployment_handle(here.deployment, here.app_name)
        return await broadcast(self._handle, method, *args)
