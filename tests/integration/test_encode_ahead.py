"""A real pool of Ray Data actors fills the cache that workers then read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.data
from ray.exceptions import RayError
from tiny import tiny_config

from t2l.cluster import encode
from t2l.cluster.place import Place
from t2l.config import RunConfig
from t2l.data.descriptions import DescriptionNumbers, KeptStates
from t2l.data.suite import build_suite
from t2l.text.encoder import build_encoder
from t2l.train.base import load_base


def states(config: RunConfig, place: Place) -> KeptStates:
    """A worker's."""
    numbers = DescriptionNumbers.of("description", build_suite(config.data).train, config.data.num_descriptions)
    encoder = build_encoder(config.encoder, *load_base(config.base, "cpu"))
    return KeptStates(numbers.texts, encoder, "cpu", place.caches(config, print))


def test_workers_find_everything_encoded(
    cluster: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, news = tiny_config(tiny_base, tmp_path), list[Any]()
    place = Place(config.run_dir)
    alone = states(config, place)
    number = len(alone.texts)
    expected = alone(range(number))  # never flushed
    encode.encode_ahead(config, config.run_dir, 2, False, news.append)
    assert news[-1] == {"phase": f"encoding descriptions: {number} of {number}"}
    worker = states(config, place)
    assert worker.known() == list(range(number))
    assert all(map(np.array_equal, worker(range(number)), expected))

    monkeypatch.setattr(ray.data, "range", lambda number: pytest.fail("a second run starts no pool"))
    encode.encode_ahead(
        config.model_copy(update={"seed": 1, "name": "another"}), tmp_path / "another", 2, False, news.append
    )


def test_a_pool_that_fails_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RayError("the actor died\nand its trace\nHubAccessError: there is no folder")

    monkeypatch.setattr(encode, "_run_pool", fail)
    config, news = tiny_config(tmp_path / "no model", tmp_path), list[Any]()
    encode.encode_ahead(config, config.run_dir, 1, False, news.append)
    assert "could not be encoded ahead" in news[-1]["note"] and news[-1]["note"].endswith("there is no folder")
    assert not list(tmp_path.rglob("*.done"))
