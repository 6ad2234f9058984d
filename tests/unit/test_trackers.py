"""Trackers: MLflow's own client on a folder; a package that is missing and a service that is down."""

import sys
from pathlib import Path

import pytest

from t2l.cluster.metrics import Metrics
from t2l.cluster.run import differing_keys
from t2l.cluster.trackers import TRACKERS, Trackers, log_validations
from t2l.config import RunConfig, load_config
from t2l.config.tracking import TrackingConfig
from t2l.errors import ResourceError
from t2l.train.validations import Validation, Validations


def config(folder: Path, *overrides: str) -> RunConfig:
    return load_config(None, [f"output_dir={folder}", "name=mine", *overrides])


def test_every_setting_has_its_tracker() -> None:
    assert TrackingConfig.model_fields.keys() == TRACKERS.keys()


def test_trackers_may_change_while_a_run_goes_on(tmp_path: Path) -> None:
    assert list(differing_keys(config(tmp_path), config(tmp_path, "tracking.wandb.project=other"))) == []


def test_a_run_that_goes_on_is_one_run_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    run = config(tmp_path, f"tracking.mlflow.uri=file:{tmp_path}/store", "tracking.mlflow.experiment=mine")
    notes: list[str] = []
    first = Trackers(run, run.run_dir, notes.append)
    first.log(1, {"train/loss": 3.0, "train/lr": 0.1})
    second = Trackers(run, run.run_dir, notes.append)  # the first one was killed
    second.log(2, {"train/loss": 2.0})
    log_validations([Validation(1, 0.5, {"exact_match": 0.5}, 0.1)], second)
    second.close()

    client = mlflow.MlflowClient(f"file:{tmp_path}/store")
    experiment = client.get_experiment_by_name("mine")
    assert experiment is not None and notes == []
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "mine" and found.info.status == "FINISHED"
    assert found.data.params["train.steps"] == str(run.train.steps)
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "train/loss")] == [(1, 3), (2, 2)]
    assert [(m.step, m.value) for m in client.get_metric_history(found.info.run_id, "validation/exact_match")] == [
        (1, 0.5)
    ]


def test_a_service_that_is_down_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    notes: list[str] = []
    run = config(tmp_path, "tracking.mlflow.uri=http://127.0.0.1:9")
    trackers = Trackers(run, run.run_dir, notes.append)
    trackers.log(1, {"train/loss": 1.0})
    trackers.close()
    [note] = notes
    assert note.startswith("mlflow failed (") and note.endswith("nothing more is sent to it")


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_one_sentence(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it was not installed
    with pytest.raises(ResourceError, match=f"tracking.{name} is set, but the package {name} is not installed"):
        Trackers(config(tmp_path, f"tracking.{name}={{}}"), tmp_path, print)


def test_validations_are_added_to_the_metrics_once(tmp_path: Path) -> None:
    metrics, scores = Metrics(tmp_path), Validations(tmp_path)
    metrics.append({"step": 2, "loss": 1.0})
    scores.write(Validation(2, 0.5, {"exact_match": 0.5}, 0.1))
    assert [found.step for found in metrics.add_validations()] == [2]
    assert metrics.add_validations() == []
    assert metrics.read()[1:] == [{"step": 2, "validation": {"exact_match": 0.5}}]


def test_a_folder_is_the_same_for_workers_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So the ids that one of them writes down are the run's."""
    monkeypatch.chdir(tmp_path)
    assert load_config(None, []).output_dir == str(tmp_path / "runs")
    assert load_config(None, ["output_dir=mine"]).run_dir == tmp_path / "mine" / "sft"
    assert load_config(None, ["output_dir=s3://bucket/runs"]).run_url == "s3://bucket/runs/sft"


def test_lines_that_a_power_failure_left_blank_are_dropped(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.append({"step": 1})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"\0" * 40 + b"\n")
    metrics.append({"step": 2})
    assert [record["step"] for record in metrics.read()] == [1, 2]
