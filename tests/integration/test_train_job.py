"""The real job on real Ray with real DeepSpeed: a few steps of a tiny model on two workers."""

import pytest
import torch
from safetensors.torch import load_file

from t2l.checkpoint import load_checkpoint
from t2l.cluster.metrics import Metrics
from t2l.cluster.run import Finished
from t2l.cluster.train import check_resources, train_on_ray
from t2l.config import ClusterConfig, RunConfig
from t2l.errors import ConfigError, ResourceError
from t2l.evaluation.records import ResultFile
from t2l.train.validations import Validations

STEPS = 40


def test_it_trains_and_writes_everything_down(whole_run: Finished, whole_config: RunConfig) -> None:
    assert whole_run.outcome.step == STEPS
    records = Metrics(whole_config.run_dir).read()
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == STEPS
    assert sum(losses[-5:]) < sum(losses[:5])
    assert list((whole_config.run_dir / "tensorboard").glob("events*"))


def test_checkpoints_are_validated_while_training_goes_on(whole_run: Finished, whole_config: RunConfig) -> None:
    scores = {step: found.scores for step, found in Validations(whole_config.run_dir).read().items()}
    assert scores.keys() == {20, 40}
    records = Metrics(whole_config.run_dir).read()
    assert {record["step"]: record["validation"] for record in records if "validation" in record} == scores
    assert list((whole_config.run_dir / "tensorboard/validation").glob("events*"))
    assert not list(whole_config.run_dir.glob("checkpoints/checkpoint_*")), "Ray Train copies nothing"


def test_checkpoints_hold_the_hypernetwork_only_and_load(whole_run: Finished, whole_config: RunConfig) -> None:
    steps = sorted(path.name for path in (whole_config.run_dir / "checkpoints").iterdir())
    assert steps == ["step-000035", "step-000040"], "the newest two, of which the last validated best or equal"
    assert whole_run.outcome.checkpoint.name == "step-000040"
    loaded = load_checkpoint(whole_run.outcome.checkpoint)
    model = loaded.model
    assert loaded.config == whole_config
    assert loaded.spec == model.hypernet.spec
    assert loaded.base_fingerprint
    names = load_file(whole_run.outcome.checkpoint / "model.safetensors").keys()
    assert names == model.state_dict().keys()
    weights = model(torch.randn(1, 1, 32), torch.ones(1, 1, dtype=torch.bool))
    assert any(tensor.abs().max() > 0 for tensor in weights.B.values()), "training moved B away from 0"


def test_the_report_holds_every_wording(whole_run: Finished, whole_config: RunConfig) -> None:
    written = ResultFile.read(whole_config.run_dir / "results.json").records
    assert written == whole_run.report
    assert {record.split for record in written} == {"seen", "held_out"}
    wordings = {("t2l", wording) for wording in ("seen", "unseen", "shuffled", "junk", "static")}
    measured = {(record.method, record.wording) for record in written}
    assert measured == wordings | {("base", None), ("definition", "seen"), ("definition", "unseen")}


def test_a_finished_run_says_so(
    whole_run: Finished, whole_config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    again = train_on_ray(whole_config)
    assert again.outcome == whole_run.outcome
    assert "is finished: 40 steps" in capsys.readouterr().out


def test_other_settings_under_the_same_name_are_refused(whole_run: Finished, whole_config: RunConfig) -> None:
    changed = whole_config.model_copy(update={"train": whole_config.train.model_copy(update={"lr": 1.0}), "seed": 5})
    with pytest.raises(ConfigError, match=r"other settings \(seed, train.lr\)"):
        train_on_ray(changed)


def test_more_workers_than_the_cluster_has_are_refused_at_once(cluster: str) -> None:
    with pytest.raises(ResourceError, match=r"num_workers is 9 .* has 2 CPUs"):
        check_resources(ClusterConfig(num_workers=9))
    with pytest.raises(ResourceError, match="has 0: lower it, add GPUs"):
        check_resources(ClusterConfig(num_workers=1, use_gpu=True))


def test_a_workers_own_error_comes_out_as_one_sentence(cluster: str, whole_config: RunConfig) -> None:
    base = whole_config.base.model_copy(update={"path": "/no/such/folder"})
    with pytest.raises(Exception, match="there is no folder /no/such/folder") as caught:
        train_on_ray(
            whole_config.model_copy(update={"name": "wrong", "base": base, "cluster": ClusterConfig(zero_stage=0)})
        )
    assert type(caught.value).__name__ == "HubAccessError"
