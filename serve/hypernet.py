"""The hypernetwork actor: task embeddings in, adapters out, several in one forward pass.

Axes: N adapters, E task embedding, P parameters of one adapter (t2l/lora/flat.py).
"""

import asyncio
import io
import zipfile

import numpy as np
import torch
from prometheus_client import CollectorRegistry, Histogram
from ray import serve
from torch import Tensor

from serve.protocol import AdapterRef
from serve.replica_metrics import ReplicaMetrics
from serve.settings import COMMON, Settings
from t2l.checkpoint import load_checkpoint, weights_sha256
from t2l.graphs import CudaGraph
from t2l.lora.flat import FlatLayout
from t2l.memory import keep_freed_memory
from t2l.text.uniform import in_uniform_batches
from t2l.text_to_lora import GeneratedAdapter, Origin
from t2l.train.base import base_path

ROWS = 4
"""Adapters of one forward pass: few enough that one alone is fast, enough that many share the reading of the heads."""


@serve.deployment(max_ongoing_requests=512, **COMMON)
class HyperNetwork:
    """Any replica gives the same bytes for the same embedding, in whatever company it arrives."""

    def __init__(self, settings: Settings) -> None:
        folder = settings.folder
        checkpoint = load_checkpoint(folder)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        keep_freed_memory(self._device)
        if self._device == "cuda":
            torch.set_float32_matmul_precision("high")  # TF32, as the heads' kernel has it
        self._hypernet = checkpoint.model.hypernet.to(self._device)
        self._layout = FlatLayout(checkpoint.spec)
        self._origin = Origin(
            base_path(checkpoint.config.base), checkpoint.config.name, weights_sha256(settings.folder)
        )
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "t2l_adapter_generation_seconds", "Time to generate one batch of adapters", registry=self._registry
        )
        self._embedding_N_E = torch.zeros(ROWS, self._hypernet.embedding_dim, device=self._device)
        with torch.inference_mode():
            self._graph = CudaGraph(self._flatten) if self._device == "cuda" else None
        self._forward(np.zeros((1, self._hypernet.embedding_dim), np.float32))  # the first call of everything is slow

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.0)
    async def generate(self, embeddings: list[np.ndarray]) -> list[np.ndarray]:
        """One embedding [E] (Serve makes batches of the callers') -> one adapter [P], fp32."""
        with self._seconds.time():
            return list(await asyncio.to_thread(self._forward, np.stack(embeddings)))

    async def peft_zip(self, adapter: AdapterRef, description: str) -> bytes:
        """A zip of the adapter's PEFT folder, which `peft` and vLLM load."""
        flat_P = await self.generate(adapter.embedding_E)  # type: ignore[arg-type]
        weights = self._layout.unflatten(torch.from_numpy(flat_P[None]))
        files = GeneratedAdapter(weights, description, self._origin).files()
        return await asyncio.to_thread(_zip, adapter.id, files)

    @torch.inference_mode()
    def _forward(self, embedding_N_E: np.ndarray) -> np.ndarray:
        inputs_N_E = torch.from_numpy(embedding_N_E).to(self._device)

        def run(batch: list[int]) -> Tensor:
            self._embedding_N_E.copy_(inputs_N_E[batch])
            return self._flatten() if self._graph is None else self._graph().clone()

        return in_uniform_batches(run, [None] * len(inputs_N_E), ROWS).cpu().numpy()

    def _flatten(self) -> Tensor:
        """Adapters [ROWS, P] of the embeddings that lie ready."""
        return self._layout.flatten(self._hypernet(self._embedding_N_E)).float()

    async def metrics(self) -> ReplicaMetrics:
        return ReplicaMetrics.of(self._registry)


def _zip(folder: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # A fixed date: the same adapter is the same file.
            archive.writestr(zipfile.ZipInfo(f"{folder}/{name}"), content)
    return buffer.getvalue()
