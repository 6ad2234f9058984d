"""The Gateway's own figures, and those of all replicas as one Prometheus text."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.replica_metrics import ReplicaMetrics

_TO_FIRST = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
CLIENT_LEFT = 499
_PER_TOKEN = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class GatewayMetrics:
    """One Gateway replica's figures."""

    def __init__(self, known_adapters: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("t2l_http_requests", "HTTP requests", ["route", "status"], registry=registry)
        self.in_flight = Gauge("t2l_http_requests_in_flight", "HTTP requests not yet answered", registry=registry)
        self.time_to_first_token = Histogram(
            "t2l_time_to_first_token_seconds",
            "From tokenised prompt to first text, reading a new description included",
            buckets=_TO_FIRST,
            registry=registry,
        )
        self.time_per_token = Histogram(
            "t2l_time_per_token_seconds", "Mean of a request after its first", buckets=_PER_TOKEN, registry=registry
        )
        self.prompt_tokens = Counter("t2l_answered_prompt_tokens", "Tokens of answered prompts", registry=registry)
        self.completion_tokens = Counter("t2l_answered_completion_tokens", "Tokens of answers", registry=registry)
        adapters = Gauge("t2l_adapters_known", "Adapters that the Gateway can name", registry=registry)
        adapters.set_function(known_adapters)


class RequestMetrics:
    """ASGI middleware: counts every request by route and status; 500 for one that broke, 499 where the client left."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, noting)
            except asyncio.CancelledError:
                status = CLIENT_LEFT
                raise
            finally:
                # The route's pattern, never the path: clients must not be able to make up labels.
                route = getattr(scope.get("route"), "path", "none")
                self._metrics.requests.labels(route, str(status)).inc()


class _Merged(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def merged_metrics(told: Mapping[str, Iterable[ReplicaMetrics]]) -> str:
    """Figures of replicas by deployment -> one text, with a label `replica` such as LLM-3x9fz2kq."""
    families: dict[str, Metric] = {}
    for deployment, replicas in told.items():
        for replica, text in replicas:
            for family in text_string_to_metric_families(text):
                if family.name.endswith("_created"):  # when each counter began: noise
                    continue
                kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = {**sample.labels, "replica": f"{deployment}-{replica}"}
                    kept.add_sample(sample.name, labels, sample.value)
    registry = CollectorRegistry()
    registry.register(_Merged(families.values()))
    return generate_latest(registry).decode()
