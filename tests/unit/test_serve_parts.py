"""The LLM deployment's host cache and outgoing streams; adapter ids; the graph's settings."""

import asyncio
from pathlib import Path

import pytest
import ray
import torch
import yaml
from pydantic import ValidationError
from ray.serve import Application

from serve.app import GPU_SHARES, deployment
from serve.cache import AdapterCache
from serve.llm import _Stream
from serve.protocol import ADAPTER_ID, Delta, adapter_id
from serve.settings import Settings
from t2l.errors import DescriptionError

CONFIG = Path(__file__).parents[2] / "serve" / "config.yaml"


@pytest.mark.parametrize("gpus", [0, 1])
def test_all_share_one_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, **({"GPU": 1.0} if gpus else {})})
    gateway = deployment(Settings())._bound_deployment
    parts = [part._bound_deployment for part in gateway.init_args if isinstance(part, Application)]
    shares = {part.name: (part.ray_actor_options or {}).get("num_gpus", 0) for part in parts}
    assert set(shares) == set(GPU_SHARES) and sum(shares.values()) == gpus
    assert all((part.ray_actor_options or {})["num_cpus"] == 0.1 for part in parts)


def test_cache_is_bounded_in_bytes_and_drops_the_least_recently_used() -> None:
    cache = AdapterCache(capacity_bytes=3 * 40)
    for key in "abc":
        cache.put(key, torch.zeros(10))
    assert cache.get("a") is not None
    cache.put("d", torch.zeros(10))
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    assert (cache.bytes, cache.evictions, cache.hits, cache.misses) == (120, 1, 4, 1)
    cache.put("huge", torch.zeros(1000))
    assert cache.get("huge") is None and cache.bytes <= 120
    cache.put("a", torch.zeros(20))
    cache.put("a", torch.zeros(5))
    assert cache.bytes == 20
    cache.pop("a")
    cache.pop("a")
    assert (len(cache), cache.bytes) == (0, 0)


def test_stream_sends_the_first_piece_at_once_and_joins_those_within_a_pause() -> None:
    async def read() -> list[Delta]:
        stream, pause = _Stream(), 1000.0
        stream.put(Delta("a", 1), pause)
        taken = [await asyncio.wait_for(stream.take(), 1)]
        stream.put(Delta("b", 1), pause)
        stream.put(Delta("c", 2), pause)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.take(), 0.01)
        assert not stream.ended
        stream.put(Delta("d", 1, "stop"), pause)  # the end does not wait
        taken.append(await asyncio.wait_for(stream.take(), 1))
        assert stream.ended
        return taken

    assert asyncio.run(read()) == [Delta("a", 1), Delta("bcd", 4, "stop")]


def test_id_depends_on_text_hypernetwork_and_base_alone() -> None:
    id = adapter_id("Sort the words", "sha", "base")
    assert ADAPTER_ID.fullmatch(id)
    assert adapter_id("  Sort   the words. ", "sha", "base") == id
    others = {adapter_id("Sort the words", "other", "base"), adapter_id("Sort the words", "sha", "other")}
    assert id not in others | {adapter_id("Sort the letters", "sha", "base")} and len(others) == 2
    with pytest.raises(DescriptionError):
        adapter_id(" ", "sha", "base")


def test_config_file_is_valid_and_unknown_keys_are_refused_by_name() -> None:
    arguments = yaml.safe_load(CONFIG.read_text())["applications"][0]["args"]
    assert Settings.model_validate(arguments).engine.rows == 64
    with pytest.raises(ValidationError, match="rowz"):
        Settings.model_validate({"engine": {"rowz": 3}})
