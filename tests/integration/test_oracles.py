"""The library job: killed, gone on with on Ray, and what it refuses."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny import tiny_settings

from t2l.data import suite
from t2l.lora.library import MANIFEST_FILE, Library, Manifest

JOB = Path(__file__).parents[2] / "jobs" / "train_oracles.py"
SHORT = ("--steps", "6", "--rows", "2", "--eval-every", "3", "--validation-examples", "4", "--at-once", "1")


@pytest.fixture(scope="module")
def config(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracles")
    settings = {key: tiny_settings(tiny_base, folder)[key] for key in ("base", "data")}
    settings["lora"] = {"target_modules": ["q_proj", "v_proj"], "rank": 4}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def job(config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The job's main with these arguments, in this process."""
    main = runpy.run_path(str(JOB))["main"]

    def start(*arguments: object) -> int:
        line = ["train_oracles.py", "--config", config, *SHORT, *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in line])
        return main()

    return start


def adapters_of(library: Path) -> dict[str, int]:
    """Finished tasks and when their adapters were written."""
    known = Library.open(library)
    return {task: (known.folders[task] / "adapter_model.safetensors").stat().st_mtime_ns for task in known.tasks}


def test_a_killed_library_is_gone_on_with_on_ray(
    cluster: str, job: Callable[..., int], config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    library = tmp_path / "library"
    line = [sys.executable, JOB, "--config", config, *SHORT, "--no-ray", "--tasks", "30", "-o", library]
    process = subprocess.Popen(list(map(str, line)), env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (library / MANIFEST_FILE).exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = adapters_of(library)
    wanted = len(before) + 3

    assert job("--tasks", wanted, "-o", library) == 0
    after = adapters_of(library)
    assert len(after) == wanted
    assert before.items() <= after.items(), "finished ones stay untouched"
    assert f"{wanted}/{wanted} adapters  0 in training" in capfd.readouterr().out
    assert len(Library.open(library).weights(tuple(after))) == wanted
    assert all(entry.steps == 6 and not entry.stopped_early for entry in Manifest.read(library).adapters)

    assert job("--tasks", wanted, "-o", library) == 0
    assert adapters_of(library) == after
    assert job("--lr", "0.1", "-o", library) == 1
    assert "trained with lr 0.005, not 0.1: choose another folder" in capfd.readouterr().err


def test_splits_in_this_process(job: Callable[..., int], tmp_path: Path) -> None:
    assert job("--no-ray", "--split", "test", "--split", "validation", "--tasks", "1", "-o", tmp_path) == 0
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert len(manifest["adapters"]) == 2
    assert manifest["settings"]["lora.rank"] == 4


def test_what_cannot_be_trained_is_one_sentence(
    cluster: str, job: Callable[..., int], config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str) -> str:
        assert job("-o", tmp_path / "out", *arguments) == 1
        return capfd.readouterr().err

    assert "no split 'tset': choose from train, validation, test" in refused("--split", "tset")
    assert "steps is 5, no multiple of eval_every 3" in refused("--steps", "5")
    assert "rows is 0: it must be more than 0" in refused("--rows", "0")
    assert "cpus_per_worker is 1000, but the largest node has" in refused("--cpus-per-worker", "1000")
    assert "at_once is 0" in refused("--at-once", "0")
    assert "there are no tasks" in refused("--tasks", "0")
    assert "no more training examples than validation takes (70000)" in refused("--validation-examples", "70000")
    other = yaml.safe_load(config.read_text()) | {"lora": {"target_modules": ["nope"]}}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    assert "nope" in refused("--config", str(tmp_path / "other.yaml")), "a worker's own error"


def test_own_tasks_that_are_too_small_or_have_changed_are_named(
    job: Callable[..., int], config: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def own_task(name: str, split: str, train: int, output: str = "yes") -> None:
        folder = tmp_path / "tasks" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "task.yaml").write_text(f"descriptions: [Do {name}.]\nsplit: {split}\n")
        for part, number in (("train", train), ("test", 1)):
            lines = [json.dumps({"input": f"{part} {i}", "output": output}) for i in range(number)]
            (folder / f"{part}.jsonl").write_text("\n".join(lines))

    own_task("good", "train", 8)
    own_task("small", "train", 4)
    own_task("bare", "test", 0)
    (tmp_path / "tasks" / "bare" / "train.jsonl").unlink()
    settings = yaml.safe_load(config.read_text()) | {"data": {"suite": "jsonl", "path": str(tmp_path / "tasks")}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(settings))
    library = tmp_path / "library"
    again = ("--config", tmp_path / "own.yaml", "--no-ray", "--split", "train", "--split", "test", "-o", library)

    assert job(*again) == 0
    shown = capfd.readouterr().out
    assert "note: left out" in shown and "small (4), bare (0)" in shown and "1/1 adapters" in shown
    before = adapters_of(library)
    assert list(before) == ["good"]
    assert job(*again) == 0 and adapters_of(library) == before
    own_task("good", "train", 8, output="no")
    suite._built.cache_clear()
    assert job(*again) == 1
    assert "adapters that were trained on other examples of good: choose another folder" in capfd.readouterr().err
