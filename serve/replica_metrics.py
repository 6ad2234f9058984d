"""What each replica of each deployment tells of itself, for the Gateway to put together (serve/api/metrics.py)."""

from typing import NamedTuple, Self

from prometheus_client import CollectorRegistry, generate_latest
from ray import serve


class ReplicaMetrics(NamedTuple):
    """replica: its id, no other one's ever; text: its figures in Prometheus' text format."""

    replica: str
    text: str

    @classmethod
    def of(cls, registry: CollectorRegistry) -> Self:
        """Of the replica that this is called in."""
        return cls(serve.get_replica_context().replica_tag, generate_latest(registry).decode())
