"""The HTTP ingress: one FastAPI app (serve/api/) in front of the other deployments."""

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from serve.api.about import About
from serve.api.app import build_app
from serve.api.auth import KeyRing, check_bind
from serve.api.backends import Backends
from serve.api.catalog import Catalog
from serve.api.metrics import GatewayMetrics
from serve.api.peers import Known, Peers
from serve.api.prompts import Prompts
from serve.api.services import Services
from serve.replica_metrics import ReplicaMetrics
from serve.settings import COMMON, Settings
from serve.store import AdapterEntry, AdapterStore


@serve.deployment(max_ongoing_requests=10_000, **COMMON)
@serve.ingress()
class Gateway:
    """Tokenises, knows tenants and their adapters, answers HTTP. Replicas share what they know."""

    def __init__(
        self,
        settings: Settings,
        about: About,
        key_digests: tuple[str, ...],
        encoder: DeploymentHandle,
        hypernet: DeploymentHandle,
        llm: DeploymentHandle,
    ) -> None:
        """key_digests: sha256 of each API key, in hexadecimal. Raises ConfigError for a public address without keys."""
        self._keys = KeyRing(key_digests)
        check_bind(_http_host(), self._keys)
        self._store = AdapterStore(settings.limits.adapters_per_key)
        self._metrics = GatewayMetrics(lambda: len(self._store))
        peers = Peers(self._store)
        backends = Backends(encoder, hypernet, llm, settings.timeouts)
        catalog = Catalog(about, self._store, peers, backends)
        self._services = Services(about, settings.limits, Prompts(about), catalog, peers, backends, self._metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve when the replica starts; so the app can know the settings."""
        return build_app(self._services, self._keys)

    # What follows is called by the other replicas of this deployment (serve/api/peers.py). All of it is `async`: Serve
    # would run it in a thread beside the event loop, on a store without locks.

    async def remember(self, known: list[Known]) -> None:
        for tenant, entry in known:
            self._store.put(tenant, entry)

    async def withdraw(self, tenant: str, id: str) -> None:
        await self._services.peers.withdraw(tenant, id)

    async def forget(self, tenant: str, id: str) -> None:
        self._store.forget(tenant, id)

    async def recall(self, tenant: str, id: str) -> AdapterEntry | None:
        return self._store.get(tenant, id)

    async def everything(self) -> list[Known]:
        return list(self._store)

    async def metrics(self) -> ReplicaMetrics:
        return ReplicaMetrics.of(self._metrics.registry)


def _http_host() -> str:
    # Serve has no public way to learn where its proxies listen.
    client = _get_global_client()
    assert client is not None  # it raises instead
    host = client.http_config.host
    return "localhost" if host is None else host  # None: no HTTP at all
