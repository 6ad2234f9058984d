"""The embedding actor: descriptions in; task embeddings, and how near they are to what T2L was trained on, out.

Axes: N texts, E task embedding, D features of the frozen encoder.
"""

import asyncio

import torch
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from ray import serve
from torch import Tensor

from serve.protocol import Embedding
from serve.settings import COMMON, Settings
from t2l import TextToLora
from t2l.hub import use_local_dir
from t2l.text.nearness import NearnessIndex, mean_states
from t2l.text.uniform import encoder_rows, in_uniform_batches


@serve.deployment(max_ongoing_requests=512, **COMMON)
class TextEncoder:
    """Any replica gives the same bits for the same text, in whatever company it arrives."""

    def __init__(self, settings: Settings) -> None:
        use_local_dir(settings.local_dir)
        self._t2l = TextToLora.from_pretrained(settings.folder)
        self._index = NearnessIndex.load(settings.folder, self._t2l.origin.sha256)
        self._rows = encoder_rows(self._t2l.base.model.device)
        self._embedding_dim = self._t2l.model.reader.embedding_dim
        self._registry = CollectorRegistry()
        self._seconds = Histogram("t2l_encode_seconds", "Time to embed one batch of texts", registry=self._registry)
        self._encode(["Sort the words."])  # the first call of everything is slow

    async def embed(self, texts: list[str]) -> list[Embedding]:
        """One embedding a text. Raises DescriptionError for an empty or over-long one."""
        return list(await asyncio.gather(*(self._embed(text) for text in texts)))

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def _embed(self, texts: list[str]) -> list[Embedding]:
        with self._seconds.time():
            return await asyncio.to_thread(self._encode, texts)

    @torch.inference_mode()
    def _encode(self, texts: list[str]) -> list[Embedding]:
        def run(batch: list[int]) -> Tensor:
            features = self._t2l.encoder.encode([texts[i] for i in batch])
            vectors = self._t2l.model.embed(features.states_N_T_D, features.mask_N_T)
            return torch.cat([vectors, mean_states(features)], dim=1)

        both = in_uniform_batches(run, self._t2l.encoder.token_counts(texts), self._rows).cpu()
        embedding_N_E, states_N_D = both.split([self._embedding_dim, both.shape[1] - self._embedding_dim], dim=1)
        if self._index is None:
            return [Embedding(vector_E.numpy(), None, far=False) for vector_E in embedding_N_E]
        nearness_N = self._index.nearness(states_N_D)
        far_N = self._index.is_far(nearness_N)
        rows = zip(embedding_N_E, nearness_N.tolist(), far_N.tolist(), strict=True)
        return [Embedding(vector_E.numpy(), nearness, far) for vector_E, nearness, far in rows]

    def metrics(self) -> str:
        """This replica's figures in Prometheus' text format."""
        return generate_latest(self._registry).decode()
