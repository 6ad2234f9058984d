"""The embedding actor: descriptions in; task embeddings, and how near they are to what T2L was trained on, out.

Axes: N texts, E task embedding.
"""

import asyncio
import threading
from collections.abc import Sequence

import torch
from prometheus_client import CollectorRegistry, Histogram
from ray import serve
from torch import Tensor

from serve.protocol import Embedding
from serve.replica_metrics import ReplicaMetrics
from serve.settings import COMMON, Settings
from t2l import TextToLora
from t2l.graphs import GraphByShape
from t2l.hub import use_local_dir
from t2l.text.encoder import TokenEncoder, Tokens
from t2l.text.nearness import NearnessIndex, mean_states
from t2l.text.normalize import clean_descriptions
from t2l.text.uniform import encoder_rows, in_uniform_batches

GPU_ROWS = 8
"""Texts of a batch."""
GPU_MULTIPLE = 8
"""Tokens of a text are filled up to: on a GPU every length is recorded once."""
AT_ONCE = 1000
"""Characters whose tokens are counted in less time than a thread takes to wake up."""
WARM_UP = range(2, 64, 4)
"""Words of texts to begin with."""


@serve.deployment(max_ongoing_requests=512, **COMMON)
class TextEncoder:
    """Any replica gives the same bits for the same text, in whatever company it arrives."""

    def __init__(self, settings: Settings) -> None:
        use_local_dir(settings.local_dir)
        self._t2l = TextToLora.from_pretrained(settings.folder)
        encoder = self._t2l.encoder
        assert isinstance(encoder, TokenEncoder)  # the application refuses checkpoints that read no descriptions
        index = NearnessIndex.load(settings.folder, self._t2l.origin.sha256)
        self._index = None if index is None else index.to(encoder.device)
        self._encoder, self._rows = encoder, encoder_rows(encoder.device, GPU_ROWS)
        self._multiple = 1 if encoder.device.type == "cpu" else GPU_MULTIPLE
        self._read = GraphByShape(self._embedding_and_nearness, encoder.device)
        self._tokenizing = threading.Lock()  # tokenizers hold what padding and truncation the last call asked for
        self._registry = CollectorRegistry()
        self._seconds = Histogram("t2l_encode_seconds", "Time to embed one batch of texts", registry=self._registry)
        # The first call of everything is slow, and on a GPU that of every shape.
        for words in WARM_UP[:1] if self._multiple == 1 else WARM_UP:
            text = " ".join(["word"] * words)
            self._encode([text], encoder.token_counts([text]))

    async def embed(self, texts: list[str]) -> list[Embedding]:
        """One embedding a text. Raises DescriptionError for an empty or over-long one."""
        texts = clean_descriptions(texts)
        # Refused here: what one caller's text raised in a batch would be raised for all whose texts are in it.
        counts = self._check_at_once(texts) or await asyncio.to_thread(self._check, texts)
        return list(await asyncio.gather(*(self._embed(counted) for counted in zip(texts, counts, strict=True))))

    def _check_at_once(self, texts: Sequence[str]) -> list[tuple[int, ...]] | None:
        """None for long texts, and where a thread is tokenizing: the event loop must not wait."""
        if sum(map(len, texts)) > AT_ONCE or not self._tokenizing.acquire(blocking=False):
            return None
        try:
            return self._encoder.check_whole(texts)
        finally:
            self._tokenizing.release()

    def _check(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        with self._tokenizing:
            return self._encoder.check_whole(texts)

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def _embed(self, counted: list[tuple[str, tuple[int, ...]]]) -> list[Embedding]:
        texts, counts = zip(*counted, strict=True)
        with self._seconds.time():
            return await asyncio.to_thread(self._encode, texts, counts)

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str], counts: Sequence[tuple[int, ...]]) -> list[Embedding]:
        """texts: clean; counts: their tokens."""

        def run(batch: list[int]) -> Tensor:
            places = {i: place for place, i in enumerate(dict.fromkeys(batch))}  # once, what fills the batch up
            with self._tokenizing:
                tokens = self._encoder.tokenize([texts[i] for i in places], self._multiple)
            row_N = torch.tensor([places[i] for i in batch])
            return self._read({name: tensor[row_N] for name, tensor in tokens.items()})

        shapes = [tuple(-(-count // self._multiple) for count in own) for own in counts]
        found_N_E1 = in_uniform_batches(run, shapes, self._rows).cpu()
        embedding_N_E, nearness_N = found_N_E1[:, :-1], found_N_E1[:, -1]
        if self._index is None:
            return [Embedding(vector_E.numpy(), None, far=False) for vector_E in embedding_N_E]
        rows = zip(embedding_N_E, nearness_N.tolist(), self._index.is_far(nearness_N).tolist(), strict=True)
        return [Embedding(vector_E.numpy(), nearness, far) for vector_E, nearness, far in rows]

    def _embedding_and_nearness(self, tokens: Tokens) -> Tensor:
        """[N, E + 1], from tokens on the device; nearness is 0 where there is nothing to compare with."""
        features = self._encoder.read(tokens)
        vectors_N_E = self._t2l.model.embed(features.states_N_T_D, features.mask_N_T)
        if self._index is None:
            nearness_N = vectors_N_E.new_zeros(len(vectors_N_E))
        else:
            nearness_N = self._index.nearness(mean_states(features))
        return torch.cat([vectors_N_E, nearness_N[:, None]], dim=1)

    async def metrics(self) -> ReplicaMetrics:
        return ReplicaMetrics.of(self._registry)
