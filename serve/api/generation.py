"""The answers of one HTTP request: several streams of deltas as one, counted and timed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from serve.api.answers import Usage
from serve.api.backends import Backends
from serve.api.metrics import GatewayMetrics
from serve.protocol import Delta, FinishReason, GenerateRequest

Numbered = tuple[int, Delta]
"""Number of the choice, and something new of it."""


@dataclass(frozen=True)
class Finished:
    """One whole answer."""

    text: str
    finish_reason: FinishReason


class Generation:
    """Choices of one HTTP request, generated side by side."""

    def __init__(
        self, requests: Sequence[GenerateRequest], prompt_tokens: int, metrics: GatewayMetrics, start: float
    ) -> None:
        """prompt_tokens: each prompt counted once, however many choices it has. start: by `time.perf_counter`."""
        self._requests, self._metrics, self._start = requests, metrics, start
        self.usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=0, total_tokens=prompt_tokens)

    async def batches(self, backends: Backends) -> AsyncGenerator[list[Numbered], None]:
        """What is new, as it comes: each batch is all there is at the moment. Raises ApiError."""
        first = None
        async with aclosing(merged([backends.generate(request) for request in self._requests])) as batches:
            async for batch in batches:
                if first is None:
                    first = time.perf_counter()
                    self._metrics.time_to_first_token.observe(first - self._start)
                self.usage.completion_tokens += sum(delta.tokens for _, delta in batch)
                yield batch
        self._finish(time.perf_counter() - (first or self._start))

    async def whole(self, backends: Backends) -> list[Finished]:
        """All answers, complete, in the order of the requests. Raises ApiError."""
        texts: list[list[str]] = [[] for _ in self._requests]
        reasons: dict[int, FinishReason] = {}
        async with aclosing(self.batches(backends)) as batches:
            async for batch in batches:
                for index, delta in batch:
                    texts[index].append(delta.text)
                    if delta.finish_reason is not None:
                        reasons[index] = delta.finish_reason
        return [Finished("".join(text), reasons[index]) for index, text in enumerate(texts)]

    def _finish(self, seconds_after_first: float) -> None:
        usage = self.usage
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
        self._metrics.prompt_tokens.inc(usage.prompt_tokens)
        self._metrics.completion_tokens.inc(usage.completion_tokens)
        per_choice = usage.completion_tokens / len(self._requests)
        if per_choice > 1:
            self._metrics.time_per_token.observe(seconds_after_first / (per_choice - 1))


async def merged(streams: Sequence[AsyncGenerator[Delta, None]]) -> AsyncGenerator[list[Numbered], None]:
    """The deltas of all streams; those that arrive while the consumer is busy come as one batch.

    The first error ends it. However it ends, all streams are closed first.
    """
    arrivals: asyncio.Queue[Numbered | asyncio.Task[None]] = asyncio.Queue()

    async def pump(index: int, stream: AsyncGenerator[Delta, None]) -> None:
        async with aclosing(stream):
            async for delta in stream:
                arrivals.put_nowait((index, delta))

    tasks = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    for task in tasks:
        task.add_done_callback(arrivals.put_nowait)  # a finished task is the mark of its stream's end
    running = len(tasks)
    try:
        while running:
            news = [await arrivals.get()]
            while not arrivals.empty():
                news.append(arrivals.get_nowait())
            if deltas := [new for new in news if isinstance(new, tuple)]:
                yield deltas
            for task in (new for new in news if isinstance(new, asyncio.Task)):
                task.result()  # raises what ended it
                running -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
