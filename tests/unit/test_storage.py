"""Runs in an object store, on a real S3 server (moto's): machines are folders that share nothing but the bucket."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from moto.server import ThreadedMotoServer
from pyarrow.fs import FileSelector, S3FileSystem
from typer.testing import CliRunner

from t2l.cli import app
from t2l.cluster.run import open_run
from t2l.config import load_config
from t2l.errors import ResourceError
from t2l.lora.peft_io import load_peft
from t2l.storage import Copy, fetched
from t2l.train.state import CheckpointStore, State
from t2l.train.validations import Validation

URL = "s3://bucket/runs/mine"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3FileSystem]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "any")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        files = S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True)
        files.create_dir("bucket")
        yield files
    server.stop()


@pytest.fixture(autouse=True)
def empty(s3: S3FileSystem) -> None:
    s3.delete_dir_contents("bucket")


def write_model(folder: Path, state: State, step: int) -> None:
    (folder / "config.json").write_text("{}")


def save(store: CheckpointStore, step: int, value: float = 1.0) -> State:
    state = {"model/x": torch.full((3,), value), "updates": torch.tensor(float(step))}
    store.save(step, state, write_model, validate=True)
    return state


def names(s3: S3FileSystem) -> set[str]:
    found = s3.get_file_info(FileSelector("bucket/runs/mine", recursive=True, allow_not_found=True))
    return {info.path.removeprefix("bucket/runs/mine/") for info in found if info.is_file}


def test_another_machine_goes_on_where_the_first_one_stopped(s3: S3FileSystem, tmp_path: Path) -> None:
    first, second = (CheckpointStore(tmp_path / name, 2, URL) for name in ("first", "second"))
    for step in (1, 2, 3):
        (first.run_dir / "metrics.jsonl").parent.mkdir(exist_ok=True)
        (first.run_dir / "metrics.jsonl").write_text(f"until {step}\n")
        (first.run_dir / "cache").mkdir(exist_ok=True)
        (first.run_dir / "cache/tokens").write_text("of this machine")
        first.validations.write(Validation(step, 1 / step, {}, 0.1))
        state = save(first, step)
    assert second.recover() == []
    assert second.steps() == [1, 2, 3], "the best and the newest two"
    torch.testing.assert_close(second.state(3), state)
    assert (second.run_dir / "metrics.jsonl").read_text() == "until 3\n"
    assert not (second.run_dir / "cache").exists()

    (second.run_dir / "metrics.jsonl").write_text("until 5\n")
    save(second, 4)
    save(second, 5)
    assert {name.split("/")[1] for name in names(s3) if name.startswith("checkpoints")} == {
        f"step-{step:06d}" for step in (1, 4, 5)
    }
    os.utime(first.run_dir / "metrics.jsonl", (0, 0))  # some time later
    again = CheckpointStore(first.run_dir, 2, URL)
    assert again.recover() == [] and again.newest() == 5
    assert (first.run_dir / "metrics.jsonl").read_text() == "until 5\n", "the later one counts"


def test_an_upload_that_was_cut_short_is_not_seen_and_a_damaged_one_set_aside(s3: S3FileSystem, tmp_path: Path) -> None:
    first, second = (CheckpointStore(tmp_path / name, 3, URL) for name in ("first", "second"))
    for step in (1, 2, 3):
        save(first, step)
    s3.delete_file("bucket/runs/mine/checkpoints/step-000003/manifest.json")
    with s3.open_output_stream("bucket/runs/mine/checkpoints/step-000002/resume/state.safetensors") as file:
        file.write(b"damaged")
    [said] = second.recover()
    assert "step-000002 holds a resume/state.safetensors" in said
    assert second.steps() == [1]
    save(second, 2)
    third = CheckpointStore(tmp_path / "third", 3, URL)
    assert third.recover() == [] and third.steps() == [1, 2], "made again, it replaced the damaged one"


def test_a_damaged_checkpoint_here_is_fetched_again(tmp_path: Path, s3: S3FileSystem) -> None:
    store = CheckpointStore(tmp_path, 2, URL)
    state = save(store, 1)
    (store.path(1) / "resume/state.safetensors").write_bytes(b"damaged")
    [said] = store.recover()
    assert "set aside" in said and store.newest() == 1
    torch.testing.assert_close(store.state(1), state)


def make_old(run_dir: Path) -> None:
    """As if all of it was written a day ago: S3's times are whole seconds."""
    for path in run_dir.rglob("*"):
        yesterday = path.stat().st_mtime - 86_400
        os.utime(path, (yesterday, yesterday))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begin_anew(s3: S3FileSystem, tmp_path: Path) -> tuple[Path, State]:
    """A folder of a run that was deleted in the bucket and trained again elsewhere, and the state of step 1 there."""
    old = CheckpointStore(tmp_path / "old", 2, URL)
    for step in (1, 2):
        save(old, step)
        old.validations.write(Validation(step, 0.5, {}, 0.1))
    (old.run_dir / "results.json").write_text("of the old run")
    make_old(old.run_dir)
    s3.delete_dir("bucket/runs/mine")
    return old.run_dir, save(CheckpointStore(tmp_path / "new", 2, URL), 1, value=7.0)


def test_a_run_begun_anew_elsewhere_replaces_an_old_copy(s3: S3FileSystem, tmp_path: Path) -> None:
    folder, state = begin_anew(s3, tmp_path)
    there = names(s3)
    again = CheckpointStore(folder, 2, URL)
    assert again.recover() == []
    assert again.steps() == [1] and again.due() == [1], "its score was the old one's"
    torch.testing.assert_close(again.state(1), state)
    assert not (folder / "results.json").exists()
    again.copy.push()
    assert names(s3) == there
    third = CheckpointStore(tmp_path / "third", 2, URL)
    torch.testing.assert_close(third.state(1), state)


def test_a_machine_that_validates_does_not_take_an_old_checkpoint(s3: S3FileSystem, tmp_path: Path) -> None:
    folder, state = begin_anew(s3, tmp_path)
    validates = CheckpointStore(folder, 2, URL)
    validates.fetch(1)
    torch.testing.assert_close(validates.state(1), state)
    assert 1 not in validates.validations.read()


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    s3: S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, state = begin_anew(s3, tmp_path)
    download = Copy._download  # pyright: ignore[reportPrivateUsage]

    def cut_short(self: Copy, name: str, path: Path) -> None:
        if name.endswith("state.safetensors"):
            raise OSError("cut short")
        download(self, name, path)

    store = CheckpointStore(folder, 2, URL)
    before = contents(store.path(1))
    with monkeypatch.context() as patch:
        patch.setattr(Copy, "_download", cut_short)
        with pytest.raises(OSError, match="cut short"):
            store.fetch(1)
    assert contents(store.path(1)) == before
    assert store.recover() == []
    torch.testing.assert_close(store.state(1), state)


def test_what_is_there_already_is_not_sent_again(
    s3: S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = CheckpointStore(tmp_path, 2, URL)
    first.validations.write(Validation(1, 0.5, {}, 0.1))
    make_old(tmp_path)
    save(first, 1)
    sent: list[str] = []
    upload = Copy._upload  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(Copy, "_upload", lambda self, name: (sent.append(name), upload(self, name)))
    again = CheckpointStore(tmp_path, 2, URL)
    assert again.recover() == []
    again.copy.push()
    assert sent == []
    save(again, 2)
    assert sent and all(name.startswith("checkpoints/step-000002/") for name in sent)
    assert sent[-1].endswith("manifest.json")


@pytest.mark.parametrize("lost", ["checkpoints/step-000002/manifest.json", ""], ids=["cut short", "emptied"])
def test_a_start_sends_what_is_not_there(s3: S3FileSystem, tmp_path: Path, lost: str) -> None:
    first, second = (CheckpointStore(tmp_path / name, 2, URL) for name in ("first", "second"))
    save(first, 1)
    state = save(first, 2)
    (first.run_dir / "metrics.jsonl").write_text("until 2\n")
    whole = {*names(s3), "metrics.jsonl"}
    if lost:
        s3.delete_file(f"bucket/runs/mine/{lost}")
    else:
        s3.delete_dir_contents("bucket")
    assert CheckpointStore(first.run_dir, 2, URL).recover() == []
    assert names(s3) == whole
    torch.testing.assert_close(second.state(2), state)


def test_a_checkpoint_set_aside_takes_its_score_along(s3: S3FileSystem, tmp_path: Path) -> None:
    first, second = (CheckpointStore(tmp_path / name, 2, URL) for name in ("first", "second"))
    for step in (1, 2):
        save(first, step)
        first.validations.write(Validation(step, 0.5, {}, 0.1))
    first.copy.push()
    with s3.open_output_stream("bucket/runs/mine/checkpoints/step-000002/resume/state.safetensors") as file:
        file.write(b"damaged")
    assert len(second.recover()) == 1
    assert not {name for name in names(s3) if "step-000002" in name}
    save(second, 2)
    assert second.due() == [2] and list(second.validations.read()) == [1]


def test_one_machine_validates_what_another_trains(tmp_path: Path, s3: S3FileSystem) -> None:
    trains, validates = (CheckpointStore(tmp_path / name, 1, URL) for name in ("trains", "validates"))
    save(trains, 1)
    validates.fetch(1)
    assert validates.steps() == [1]
    validates.validations.write(Validation(1, 0.5, {}, 0.1))
    validates.copy.push("validation/")
    save(trains, 2)
    save(trains, 3)
    assert trains.steps() == [1, 2, 3], "the best, the newest, and one that waits for its validation"


def test_commands_take_a_checkpoints_address(
    tmp_path: Path, s3: S3FileSystem, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2L_CACHE", str(tmp_path / "cache"))

    def write(folder: Path, *_: object) -> None:
        shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True)

    CheckpointStore(tmp_path / "run", 1, URL).save(1, {"model/x": torch.zeros(3)}, write, validate=False)
    arguments = ["generate", "Sort the words.", "-o", str(tmp_path / "adapter"), "--checkpoint"]
    result = CliRunner().invoke(app, [*arguments, f"{URL}/checkpoints/step-000001"])
    assert result.exit_code == 0, result.output
    assert len(load_peft(tmp_path / "adapter")) == 1
    result = CliRunner().invoke(app, [*arguments, "s3://bucket/nothing", "--force"])
    assert result.exit_code == 1 and "s3://bucket/nothing holds no files" in result.stderr


def test_a_folder_of_a_bucket_serves_as_one(tmp_path: Path, s3: S3FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2L_CACHE", str(tmp_path / "cache"))
    save(CheckpointStore(tmp_path / "run", 1, URL), 1)
    folder = fetched(f"{URL}/checkpoints/step-000001")
    assert folder == tmp_path / "cache/s3/bucket/runs/mine/checkpoints/step-000001"
    assert (folder / "config.json").read_text() == "{}"
    assert fetched(str(tmp_path)) == tmp_path
    with pytest.raises(ResourceError, match="s3://bucket/nothing holds no files"):
        fetched("s3://bucket/nothing")
    with pytest.raises(ResourceError, match=r"cannot be used .*: give an address like"):
        fetched("ftp://bucket/nothing")
    config = load_config(None, ["output_dir=s3://bucket/runs/", "name=mine"])
    assert config.run_url == URL and config.run_dir == tmp_path / "cache/s3/bucket/runs/mine"


def test_what_cannot_be_reached_is_one_sentence(
    s3: S3FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T2L_CACHE", str(tmp_path))
    with pytest.raises(ResourceError, match=r"s3://absent/runs/mine cannot be reached .* check the address"):
        open_run(load_config(None, ["output_dir=s3://absent/runs", "name=mine"]))
