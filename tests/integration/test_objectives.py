"""Every objective and condition through the same worker: trained, validated, gone on with, evaluated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_settings

from t2l.cluster.aims import Request, aims_of, base_of
from t2l.cluster.alone import train_alone
from t2l.cluster.evaluators import alone, evaluate
from t2l.cluster.metrics import Metrics
from t2l.cluster.records import Records
from t2l.config import RunConfig, parse_config
from t2l.data.suite import build_suite
from t2l.errors import CheckpointError, ConfigError
from t2l.evaluation.records import ResultFile
from t2l.lora import LoraSpec, LoraWeights
from t2l.lora.library import LibraryEntry, Manifest
from t2l.lora.peft_io import save_peft
from t2l.text_to_lora import TextToLora
from t2l.train.base import build_spec, load_base
from t2l.train.loop import LogRecord

TASKS = 3


def config_of(base: Path, folder: Path, condition: str = "description", **train: Any) -> RunConfig:
    short = {"steps": 4, "eval_every": 2, "checkpoint_every": 2, "report_inputs": 0, "validation_inputs": 1}
    settings = tiny_settings(base, folder, **short, **train)
    settings["data"] |= {"picks": ["first", "last"], "renders": ["uppercase", "quotes", "dashes"], "num_test": 2}
    return parse_config(settings | {"condition": condition})


@pytest.fixture
def library(tiny_base: Path, tmp_path: Path) -> Path:
    """Random LoRAs of the training tasks."""
    config, folder = config_of(tiny_base, tmp_path), tmp_path / "library"
    model, _ = load_base(config.base, "cpu")
    spec = build_spec(config.lora, model.config)
    names = [task.name for task in build_suite(config.data).train]
    for number in range(len(names)):
        save_peft(lively(spec, number), 0, folder / str(number), str(tiny_base))
    entries = (LibraryEntry(name, str(number), 1, 0.0, False, 1.0) for number, name in enumerate(names))
    Manifest(str(tiny_base), {}, tuple(entries)).write(folder)
    return folder


def lively(spec: LoraSpec, seed: int) -> LoraWeights:
    torch.manual_seed(seed)
    return LoraWeights.zeros(spec, 1).map(lambda tensor: torch.randn_like(tensor) * 0.1)


def measured(config: RunConfig) -> ResultFile:
    request = Request((config.run_dir,), splits=("seen",), methods=METHODS, inputs=1, seen_tasks=TASKS)
    results = ResultFile(command="test")
    evaluate(request, results, alone)
    assert len(results.records) == len(aims_of(request)) > 0
    assert str(base_of(request).path) == config.base.path
    return results


def stop_at_3(on_log: Callable[[Records, LogRecord], None]) -> Callable[[Records, LogRecord], None]:
    def stopping(records: Records, record: LogRecord) -> None:
        if record.step == 3:
            raise KeyboardInterrupt
        on_log(records, record)

    return stopping


METHODS = ("t2l", "one_hot", "multitask", "hyperdecoder")


@pytest.mark.parametrize(
    ("condition", "train", "method"),
    [
        ("one_hot", {}, "one_hot"),
        ("static", {}, "multitask"),
        ("input", {}, "hyperdecoder"),
        ("description", {"objective": "distill", "pool_size": 2, "answer_tokens": 6}, "t2l"),
    ],
)
def test_through_the_base(condition: str, train: dict[str, Any], method: str, tiny_base: Path, tmp_path: Path) -> None:
    config = config_of(tiny_base, tmp_path, condition, **train)
    done = train_alone(config)
    assert done.outcome.step == 4
    assert {record.method for record in measured(config).records} == {method}


def test_reconstruction_learns_goes_on_and_says_how_far_it_is_off(
    tiny_base: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recon = {"objective": "recon", "library": str(library), "lr": 3e-3, "warmup_fraction": 0.0}
    config = config_of(tiny_base, tmp_path, **recon)
    train_alone(config)
    losses = [record["loss"] for record in Metrics(config.run_dir).read() if "loss" in record]
    assert losses[-1] < losses[0]
    twin = config.model_copy(update={"name": "twin"})
    monkeypatch.setattr(Records, "on_log", stop_at_3(Records.on_log))
    with pytest.raises(KeyboardInterrupt):
        train_alone(twin)
    monkeypatch.undo()
    train_alone(twin)
    assert [r["loss"] for r in Metrics(twin.run_dir).read() if "loss" in r] == losses
    errors = {record.wording: record.scores.get("reconstruction_error") for record in measured(config).records}
    assert errors["seen"] is not None and 0 < errors["seen"] < 2
    assert errors["junk"] is None


def test_a_library_of_other_tasks_is_refused_by_name(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="/no/library"):
        train_alone(config_of(tiny_base, tmp_path, objective="recon", library="/no/library"))
    with pytest.raises(ConfigError, match=r"train\.library is empty"):
        train_alone(config_of(tiny_base, tmp_path / "other", objective="recon"))


def test_names_are_part_of_a_checkpoint(tiny_base: Path, tmp_path: Path) -> None:
    done = train_alone(config_of(tiny_base, tmp_path, "one_hot"))
    t2l = TextToLora.from_pretrained(done.outcome.checkpoint)
    names = [task.name for task in build_suite(t2l.config.data).train]
    assert len(t2l.generate(names[:2]).weights) == 2
