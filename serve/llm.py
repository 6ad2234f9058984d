"""The LLM actor: continuous batching on the frozen base model, each request under its own adapter.

Adapters come from the hypernetwork actor, in memory, when this replica lacks them. Axes: P parameters of one adapter.
"""

import asyncio
import contextvars
import time
from collections.abc import AsyncGenerator

import torch
from prometheus_client import CollectorRegistry
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle
from torch import Tensor

from serve.cache import AdapterCache
from serve.engine import EngineRequest
from serve.engine.batching import BatchingEngine
from serve.handles import LARGEST, by_value
from serve.llm_metrics import LLMCollector
from serve.protocol import AdapterRef, Delta, GenerateRequest
from serve.replica_metrics import ReplicaMetrics
from serve.settings import COMMON, Settings
from t2l import TextToLora
from t2l.hub import use_local_dir

PAUSE_PER_STREAM = 0.005
LONGEST_PAUSE = 1.0
"""Seconds between two messages of one stream. A message costs about 4 ms of CPU in all the processes that it passes, so
the more streams there are, the more tokens a message holds: a lone stream gets every token at once, two hundred get
several once a second. First tokens never wait."""


@serve.deployment(max_ongoing_requests=10_000, **COMMON)
class LLM:
    """Streams answers; keeps adapters in host memory behind the engine's slots.

    What others call is `async`, also where it awaits nothing: Serve would run it in a thread beside the event loop, on
    a cache without locks.
    """

    def __init__(self, settings: Settings, hypernet: DeploymentHandle) -> None:
        use_local_dir(settings.local_dir)
        t2l = TextToLora.from_pretrained(settings.folder)
        adapter_bytes = t2l.base.spec.num_parameters * torch.float32.itemsize
        self._hypernet = by_value(hypernet) if adapter_bytes <= LARGEST else hypernet
        self._timeout = settings.timeouts.generate_s
        self._cache = AdapterCache(settings.engine.host_cache_mb << 20)
        self._being_made: dict[str, asyncio.Task[Tensor]] = {}
        self._streams: dict[str, _Stream] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine = BatchingEngine(t2l.base, t2l.tokenizer, settings.engine, self._deliver)
        self._registry = CollectorRegistry()
        self._registry.register(LLMCollector(self._engine, self._cache))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """The answer, piece by piece; the last piece has a finish reason or an error.

        Raises BusyError if the queue is full, TimeoutError if the adapter could not be made in time. Closing the
        generator cancels the request.
        """
        self._engine.check_room()  # before an adapter is made for a request that will be refused
        adapter = None if request.adapter is None else await self._adapter(request.adapter)
        self._loop = asyncio.get_running_loop()
        stream = self._streams[request.id] = _Stream()
        try:
            key = None if request.adapter is None else request.adapter.key
            self._engine.submit(EngineRequest(request.id, request.prompt_ids, request.sampling, key, adapter))
            while not stream.ended:
                yield await stream.take()
        finally:
            del self._streams[request.id]
            if not stream.ended:
                self._engine.cancel(request.id)

    async def load(self, adapters: list[AdapterRef]) -> float:
        """Have these adapters in host memory; seconds that it took."""
        start = time.perf_counter()
        await asyncio.gather(*(self._adapter(adapter) for adapter in adapters))
        return time.perf_counter() - start

    async def unload(self, key: str) -> None:
        """Forget an adapter. Requests that run under it end as they would have."""
        self._cache.pop(key)

    async def metrics(self) -> ReplicaMetrics:
        return ReplicaMetrics.of(self._registry)

    def check_health(self) -> None:
        """Serve replaces this replica once its engine has died."""
        self._engine.check()

    async def _adapter(self, ref: AdapterRef) -> Tensor:
        """From host memory, or from the hypernetwork; callers of one lacking adapter share one call."""
        if (known := self._cache.get(ref.key)) is not None:
            return known
        if ref.key not in self._being_made:
            # In no request's context: its end would end what others wait for.
            self._being_made[ref.key] = asyncio.create_task(self._make(ref), context=contextvars.Context())
            self._being_made[ref.key].add_done_callback(lambda _: self._being_made.pop(ref.key))
        # Shielded: that one caller leaves is no reason to fail the others.
        return await asyncio.shield(self._being_made[ref.key])

    async def _make(self, ref: AdapterRef) -> Tensor:
        async with asyncio.timeout(self._timeout):
            try:
                flat_P = await self._hypernet.generate.remote(ref.embedding_E)
            except RayActorError:  # the replica died under it; another one gives the same bytes
                flat_P = await self._hypernet.generate.remote(ref.embedding_E)
        adapter = torch.from_numpy(flat_P.copy())  # what Ray returns may lie in its object store, and would stay there
        self._cache.put(ref.key, adapter)
        return adapter

    def _deliver(self, deltas: list[tuple[str, Delta]]) -> None:
        """Called in the engine's thread, once a step."""
        assert self._loop is not None  # set before anything is submitted
        self._loop.call_soon_threadsafe(self._hand_out, deltas)

    def _hand_out(self, deltas: list[tuple[str, Delta]]) -> None:
        pause = min(LONGEST_PAUSE, len(self._streams) * PAUSE_PER_STREAM)
        for request_id, delta in deltas:
            if (stream := self._streams.get(request_id)) is not None:
                stream.put(delta, pause)


class _Stream:
    """The deltas of one request on their way out; those that nobody has taken yet become one."""

    def __init__(self) -> None:
        self._pending: list[Delta] = []
        self._ready = asyncio.Event()
        self._sent_at = 0.0
        self.ended = False
        """The last delta has been taken."""

    def put(self, delta: Delta, pause: float) -> None:
        self._pending.append(delta)
        if delta.is_last or time.monotonic() - self._sent_at >= pause:
            self._ready.set()

    async def take(self) -> Delta:
        await self._ready.wait()
        self._ready.clear()
        self._sent_at = time.monotonic()
        parts, self._pending = self._pending, []
        last = parts[-1]
        self.ended = last.is_last
        text, tokens = "".join(part.text for part in parts), sum(part.tokens for part in parts)
        return Delta(text, tokens, last.finish_reason, last.error)
