"""Checkpoints of a run: complete or absent, pruned, and a damaged one falls back to the one before it."""

import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from t2l.cluster.metrics import Metrics
from t2l.cluster.run import CONFIG_FILE, open_run
from t2l.config import load_config
from t2l.errors import ConfigError, ResourceError
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


FILES = ("config.json", "resume/state.safetensors", "resume/progress.json", "manifest.json")


def truncate(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def flip(data: bytes) -> bytes:
    """A bit in the middle."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def garble(data: bytes) -> bytes:
    return bytes(255 - byte for byte in data)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [truncate, empty, flip, garble, None], ids=lambda harm: getattr(harm, "__name__", "-"))
def test_a_damaged_checkpoint_is_set_aside_by_name(
    tmp_path: Path, name: str, harm: Callable[[bytes], bytes] | None
) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2):
        save(store, step, validate=True)
        score(store, step, step)
    file = store.path(2) / name
    if harm:
        file.write_bytes(harm(file.read_bytes()))
    else:
        file.unlink()
    assert store.newest() == 1
    assert store.best() == store.path(1), "although the damaged one scored more"
    [said] = store.recover()
    assert str(store.path(2)) in said and name in said and "damaged-step-000002" in said
    assert store.steps() == [1] and store.due() == []


def test_a_step_that_comes_again_has_no_score_yet(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (1, 2):
        save(store, step, validate=True)
        score(store, step, step)
    (store.path(2) / "config.json").write_text("")
    store.recover()
    assert list(store.validations.read()) == [1]
    save(store, 2, validate=True)
    assert store.due() == [2] and store.best() == store.path(1)


def test_a_kill_while_a_checkpoint_is_removed_leaves_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 1)

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        (folder / "manifest.json").unlink(missing_ok=ignore_errors)
        if not ignore_errors:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            save(store, 2)
    assert store.steps() == [2]
    assert store.recover() == []
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000002"]


def test_what_follows_a_damaged_checkpoint_is_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    save(store, 9)
    (store.path(9) / "manifest.json").write_text("{}")
    store.recover()
    save(store, 4)  # the run went on from an earlier one
    assert store.newest() == 4
    save(store, 9)
    (store.path(9) / "manifest.json").write_text("")
    assert len(store.recover()) == 1, "again"


def test_a_run_whose_last_checkpoint_is_damaged_is_not_finished(tmp_path: Path) -> None:
    config = load_config(None, [f"output_dir={tmp_path}", "train.steps=3"])
    store = CheckpointStore(config.run_dir, keep=2)
    for step, finished in ((2, False), (3, True)):
        save(store, step)
        assert open_run(config) == finished
    (store.path(3) / "config.json").write_text("")
    assert not open_run(config)


def leave_metrics(run_dir: Path) -> None:
    Metrics(run_dir).append({"step": 1, "loss": 2.0})


def leave_checkpoint(run_dir: Path) -> None:
    save(CheckpointStore(run_dir, keep=1), 1)


def leave_validation(run_dir: Path) -> None:
    score(CheckpointStore(run_dir, keep=1), 1, 0.5)


@pytest.mark.parametrize("leave", [leave_metrics, leave_checkpoint, leave_validation])
def test_settings_may_change_until_something_is_trained(tmp_path: Path, leave: Callable[[Path], None]) -> None:
    wrong, right = (load_config(None, [f"output_dir={tmp_path}", f"base.path={path}"]) for path in ("nope", "embedded"))
    assert not open_run(wrong)
    Metrics(wrong.run_dir).keep_until(0)
    assert not open_run(right)
    assert load_config(right.run_dir / CONFIG_FILE) == right
    leave(right.run_dir)
    assert not open_run(right)
    with pytest.raises(ConfigError, match=r"holds a run with other settings \(base\.path\)"):
        open_run(wrong)


def test_a_damaged_validation_is_due_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    save(store, 1, validate=True)
    score(store, 1, 0.5)
    assert store.due() == []
    file = tmp_path / "validation/step-000001.json"
    file.write_text(file.read_text()[:-9])
    assert store.due() == [1]


@pytest.fixture(params=["a full file system", "a limit on the size of files"])
def full_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder with room for 32 KiB."""
    folder, limits = tmp_path / "disk", resource.getrlimit(resource.RLIMIT_FSIZE)
    folder.mkdir()
    if request.param == "a limit on the size of files":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, limits[1]))
        yield folder
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        return
    command = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_checkpoint_whole(full_disk: Path) -> None:
    store = CheckpointStore(full_disk, keep=2)
    state = save(store, 1)
    with pytest.raises(ResourceError, match=r"no room on the disk for .*step-000002 .*free space, start again"):
        store.save(2, {"model/x": torch.zeros(1 << 20)}, write_model)
    assert store.newest() == 1 and store.recover() == []
    torch.testing.assert_close(store.state(1), state)
    assert [path.name for path in (full_disk / "checkpoints").iterdir()] == ["step-000001"]
    with pytest.raises(ResourceError, match=r"metrics\.jsonl"):
        Metrics(full_disk).append({"step": 1, "note": "x" * (1 << 16)})
    assert Metrics(full_disk).read() == []
    Metrics(full_disk).keep_until(1)
    Metrics(full_disk).append({"step": 1})
    assert Metrics(full_disk).read() == [{"step": 1}], "what was cut short is gone"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)

    def fail(folder: Path, state: State, step: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save(1, {}, fail)
    assert store.steps() == []
    (tmp_path / "checkpoints/.step-000002.0.new").mkdir()
    assert store.steps() == [], "what a killed run was writing is no checkpoint"
    store.recover()
    assert list((tmp_path / "checkpoints").iterdir()) == []
