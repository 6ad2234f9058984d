"""The descriptions of a run, encoded ahead of it by a pool of Ray Data actors over the whole cluster, into the cache.

That is for GPUs, which take seconds for what two CPU cores take half an hour for: without any, the run starts at once,
and its workers encode what their steps draw (t2l/data/descriptions.py). They also do so for whatever this has left out,
so nothing but speed depends on it. The cache must be on storage that all nodes share.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from ray.exceptions import RayError

from t2l.cluster.place import Place
from t2l.cluster.records import Tell
from t2l.config import RunConfig
from t2l.data.cache import Caches, content_key
from t2l.data.descriptions import DescriptionNumbers, KeptStates
from t2l.data.suite import build_suite
from t2l.text.conditioning import READ
from t2l.text.encoder import TextEncoder, build_encoder
from t2l.text.sentence import SentenceEncoder
from t2l.train.base import load_base

_LARGEST_BATCH, _BATCHES_PER_ACTOR = 4096, 4


def encode_ahead(config: RunConfig, run_dir: Path, num_actors: int, use_gpu: bool, tell: Tell) -> None:
    """Encode what the cache lacks. A second call for the same texts and encoder starts nothing.

    num_actors: at most so many, as far as the cluster has room; with a GPU each, or else a CPU.
    """
    is_sharded = config.cluster.shard_base and "llm" in config.encoder.kinds  # no actor could hold such a base
    if config.condition not in READ or is_sharded:
        return
    caches = Place(run_dir).caches(config, tell)
    texts = DescriptionNumbers.of(config.condition, build_suite(config.data).train, config.data.num_descriptions).texts
    done = caches.folder / "descriptions" / f"{_key(config, texts)}.done"
    if done.exists():
        return
    try:
        _run_pool(config, texts, caches.folder, num_actors, use_gpu, tell)
    except RayError as error:
        reason = str(error).strip().splitlines()[-1]
        tell({"note": f"descriptions could not be encoded ahead, so each is when a step draws it: {reason}"})
    else:
        _mark(done, tell)


def _mark(done: Path, tell: Tell) -> None:
    """Where the cache cannot be written, the next run encodes again."""
    try:
        done.touch()
    except OSError as error:
        tell({"note": f"the cache {done.parent} cannot be written ({error}): going on without"})


def _run_pool(
    config: RunConfig, texts: Sequence[str], folder: Path, num_actors: int, use_gpu: bool, tell: Tell
) -> None:
    _quiet()
    encoded = ray.data.range(len(texts)).map_batches(
        _Encoder,
        fn_constructor_args=(config, folder, ray.put(texts), use_gpu),
        batch_size=min(_LARGEST_BATCH, math.ceil(len(texts) / (num_actors * _BATCHES_PER_ACTOR))),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_actors),
        num_cpus=1,
        num_gpus=int(use_gpu),
    )
    number = 0
    for row in encoded.iter_rows():
        number += row["texts"]
        tell({"phase": f"encoding descriptions: {number:,} of {len(texts):,}"})


class _Encoder:
    """An actor of the pool: numbers of texts in, how many it has put into the cache out."""

    def __init__(self, config: RunConfig, folder: Path, texts: Any, use_gpu: bool) -> None:
        device = "cuda" if use_gpu else "cpu"
        self._states = KeptStates(ray.get(texts), _encoder(config, device), device, Caches(folder))

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._states(batch["id"].tolist())
        self._states.flush()
        return {"texts": np.array([len(batch["id"])])}


def _encoder(config: RunConfig, device: str) -> TextEncoder:
    """With the base model only where that reads the texts."""
    if "llm" not in config.encoder.kinds:
        return SentenceEncoder(config.encoder, device)
    return build_encoder(config.encoder, *load_base(config.base, device))


def _key(config: RunConfig, texts: Sequence[str]) -> str:
    """What tells that there is nothing to do before any model is loaded; the cache's own key knows the weights."""
    return content_key(config.encoder.model_dump(), config.base.model_dump(), texts).decode()


def _quiet() -> None:
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
