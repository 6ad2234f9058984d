"""The embedding actor: descriptions in; task embeddings, and how near they are to what T2L was trained on, out."""

import asyncio

import torch
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from ray import serve

from serve.protocol import Embedding
from serve.settings import Settings
from t2l import TextToLora
from t2l.text.nearness import NearnessIndex
from t2l.text.uniform import in_uniform_batches

ROWS_ON_GPU = 8
"""On a CPU a batch is no faster than its texts one by one."""


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=512)
class TextEncoder:
    """Any replica gives the same bits for the same text, in whatever company it arrives."""

    def __init__(self, settings: Settings) -> None:
        self._t2l = TextToLora.from_pretrained(settings.checkpoint)
        self._nearness = NearnessIndex.of_checkpoint(settings.checkpoint)
        self._rows = 1 if self._t2l.base.model.device.type == "cpu" else ROWS_ON_GPU
        self._registry = CollectorRegistry()
        self._seconds = Histogram("t2l_encode_seconds", "Time to embed one batch of texts", registry=self._registry)
        self._encode([TextToLora.__doc__ or ""])  # the first call of everything is slow

    async def embed(self, texts: list[str]) -> list[Embedding]:
        """One embedding a text. Raises DescriptionError for an empty or over-long one."""
        return list(await asyncio.gather(*(self._embed(text) for text in texts)))

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def _embed(self, texts: list[str]) -> list[Embedding]:
        with self._seconds.time():
            return await asyncio.to_thread(self._encode, texts)

    def _encode(self, texts: list[str]) -> list[Embedding]:
        counts = self._t2l.encoder.token_counts(texts)
        run = lambda batch: self._t2l.embed([texts[i] for i in batch])  # noqa: E731
        embedding_N_E = in_uniform_batches(run, counts, self._rows).cpu()
        nearness_N = self._nearness.nearness(embedding_N_E)
        return [
            Embedding(vector_E.numpy(), float(nearness), self._nearness.is_far(float(nearness)))
            for vector_E, nearness in zip(embedding_N_E, nearness_N, strict=True)
        ]

    def metrics(self) -> str:
        """This replica's figures in Prometheus' text format."""
        return generate_latest(self._registry).decode()
