"""Checkpoints of a run: complete or absent, pruned, and a damaged one falls back to the one before it."""

import json
from pathlib import Path

import pytest
import torch

from t2l.train.state import CheckpointStore, Progress, State


def write_model(folder: Path, state: State, progress: Progress) -> None:
    (folder / "config.json").write_text("{}")


def save(store: CheckpointStore, step: int, best: int | None = None) -> State:
    state = {"model/x": torch.full((3,), float(step)), "updates": torch.tensor(float(step))}
    store.save(Progress(step, best, None if best is None else 0.5), state, write_model)
    return state


def test_it_reads_back_what_it_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.newest() is None
    assert store.best() is None
    state = save(store, 7, best=7)
    assert store.newest() == Progress(7, 7, 0.5)
    torch.testing.assert_close(store.state(7), state)
    assert store.best() == store.path(7)


def test_it_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 3, 4, 5):
        save(store, step, best=min(step, 2))
    assert store.steps() == [2, 4, 5]
    assert store.best() == store.path(2)
    assert json.loads((tmp_path / "best.json").read_text())["checkpoint"] == "checkpoints/step-000002"


@pytest.mark.parametrize("harm", ["truncate", "flip", "remove", "no manifest"])
def test_a_damaged_checkpoint_falls_back_with_a_warning(tmp_path: Path, harm: str) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2):
        save(store, step)
    file = store.path(2) / "resume/state.safetensors"
    data = file.read_bytes()
    if harm == "truncate":
        file.write_bytes(data[:-1])
    elif harm == "flip":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif harm == "remove":
        file.unlink()
    else:
        (store.path(2) / "manifest.json").unlink()
    with pytest.warns(UserWarning, match="going on from the checkpoint before it"):
        assert store.newest() == Progress(1)


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)

    def fail(folder: Path, state: State, progress: Progress) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(Progress(1), {}, fail)
    assert store.steps() == []
    (tmp_path / "checkpoints/.step-000002.0.new").mkdir()
    assert store.steps() == [], "what a killed run was writing is no checkpoint"
    store.clear_leftovers()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_best_is_the_highest_and_of_equals_the_latest() -> None:
    progress = Progress()
    for step, score in ((1, 0.2), (2, None), (3, 0.5), (4, 0.1), (5, 0.5)):
        progress = progress.after(step, score)
    assert progress == Progress(5, 5, 0.5)
