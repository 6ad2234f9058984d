"""Checkpoints of a run: complete or absent, pruned, and a damaged one falls back to the one before it."""

from pathlib import Path

import pytest
import torch

from t2l.train.state import CheckpointStore, State
from t2l.train.validations import Validation


def write_model(folder: Path, state: State, step: int) -> None:
    (folder / "config.json").write_text("{}")


def save(store: CheckpointStore, step: int, validate: bool = False) -> State:
    state = {"model/x": torch.full((3,), float(step)), "updates": torch.tensor(float(step))}
    store.save(step, state, write_model, validate)
    return state


def score(store: CheckpointStore, step: int, value: float) -> None:
    store.validations.write(Validation(step, value, {"exact_match": value}, seconds=1.0))


def test_it_reads_back_what_it_saved(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    assert store.newest() is None
    assert store.best() is None
    state = save(store, 7)
    assert store.newest() == 7
    torch.testing.assert_close(store.state(7), state)


def test_without_validations_the_newest_is_used(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2, 3):
        save(store, step)
    assert store.steps() == [2, 3]
    assert store.best() == store.path(3)


def test_the_best_is_the_highest_and_of_equals_the_latest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=9)
    for step in (1, 2, 3, 4, 5):
        save(store, step, validate=True)
    for step, value in ((5, 0.5), (1, 0.2), (3, 0.5), (4, 0.1)):  # in the order in which they happen to end
        score(store, step, value)
    assert store.best() == store.path(5)
    assert store.validations.read()[3] == Validation(3, 0.5, {"exact_match": 0.5}, 1.0)
    assert store.due() == [2]


def test_scores_of_checkpoints_that_are_gone_do_not_count(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    score(store, 1, 0.9)
    save(store, 2, validate=True)
    assert store.best() == store.path(2)
    score(store, 2, 0.1)
    assert store.best() == store.path(2)


def test_it_keeps_the_newest_the_best_and_what_is_yet_to_be_validated(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, validate=True)
    score(store, 1, 0.5)
    for step in (2, 3, 4, 5, 6):
        save(store, step, validate=step == 3)
    assert store.steps() == [1, 3, 5, 6]
    assert store.due() == [3]
    score(store, 3, 0.4)
    store.prune()
    assert store.steps() == [1, 5, 6]
    assert store.best() == store.path(1)


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
        assert store.newest() == 1


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)

    def fail(folder: Path, state: State, step: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(1, {}, fail)
    assert store.steps() == []
    (tmp_path / "checkpoints/.step-000002.0.new").mkdir()
    assert store.steps() == [], "what a killed run was writing is no checkpoint"
    store.clear_leftovers()
    assert list((tmp_path / "checkpoints").iterdir()) == []
