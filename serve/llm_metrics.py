"""The LLM actor's figures for Prometheus, read off engine and cache when somebody asks."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.cache import AdapterCache
from serve.engine import Engine


class LLMCollector(Collector):
    """Gauges and counters; nothing is counted twice, and nothing in the step loop."""

    def __init__(self, engine: Engine, cache: AdapterCache) -> None:
        self._engine, self._cache = engine, cache

    def collect(self) -> Iterator[Metric]:
        stats, cache = self._engine.stats(), self._cache
        yield GaugeMetricFamily("t2l_requests_running", "Requests that generate", stats.running)
        yield GaugeMetricFamily("t2l_queue_length", "Requests that wait for a row", stats.waiting)
        yield GaugeMetricFamily("t2l_adapters_resident", "Adapters in the device's slots", stats.resident)
        yield GaugeMetricFamily("t2l_adapter_cache_bytes", "Adapters in host memory", cache.bytes)
        yield CounterMetricFamily("t2l_prompt_tokens", "Prompt tokens read", stats.prompt_tokens)
        yield CounterMetricFamily("t2l_generated_tokens", "Tokens generated", stats.generated_tokens)
        slots = {"hits": stats.slot_hits, "misses": stats.slot_misses, "evictions": stats.slot_evictions}
        host = {"hits": cache.hits, "misses": cache.misses, "evictions": cache.evictions}
        for name in slots:
            family = CounterMetricFamily(f"t2l_adapter_{name}", f"Adapter {name} by cache", labels=["cache"])
            family.add_metric(["slot"], slots[name])
            family.add_metric(["host"], host[name])
            yield family
