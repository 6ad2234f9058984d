"""What chooses a checkpoint: validation tasks in training wording, and never test tasks."""

import io
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny import save_tiny_base, tiny_config

from t2l.checkpoint import save_checkpoint
from t2l.cluster.metrics import Metrics
from t2l.cluster.progress import LiveLine, status_line
from t2l.cluster.validate import evaluate, validation_tasks
from t2l.cluster.worker import check_code
from t2l.config import RunConfig
from t2l.data.suite import build_suite
from t2l.errors import ConfigError
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.spec import LoraSpec
from t2l.tasks.task import Task, TaskSuite
from t2l.text_to_lora import TextToLora
from t2l.train.loop import Plan
from t2l.train.validations import Validation, Validations


class Forbidden(Task):
    """A task that nobody may look at."""

    def __getattribute__(self, name: str) -> Any:
        if name in {field.name for field in fields(Task)}:
            raise AssertionError(f"somebody read {name} of a test task")
        return super().__getattribute__(name)


def guarded(suite: TaskSuite) -> TaskSuite:
    """With test tasks, and unseen wording of the others, that nobody may look at."""
    forbidden = Forbidden("", (), (), (), ())

    def seen(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        return tuple(replace(task, unseen_descriptions=()) for task in tasks)

    return TaskSuite(seen(suite.train), seen(suite.validation), (forbidden,), {"novel": (forbidden,)})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("run")
    return tiny_config(save_tiny_base(folder / "base"), folder)


def test_it_scores_a_checkpoint_on_validation_tasks_alone(config: RunConfig, tmp_path: Path) -> None:
    suite = guarded(build_suite(config.data))
    tasks = validation_tasks(config, suite)
    assert tasks == suite.validation
    spec = LoraSpec.from_config(llama_config(config), config.lora.target_modules)
    save_checkpoint(tmp_path / "checkpoint", build_model(config, spec, 32), config, spec, 32)
    record = evaluate(TextToLora.from_pretrained(tmp_path / "checkpoint", "cpu"), tasks)
    assert record.num_questions == len(tasks) * config.train.validation_inputs
    assert record.score == record.scores["exact_match"]
    assert record.wording == "seen"


def llama_config(config: RunConfig) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(config.base.path)


def test_a_one_hot_code_is_asked_about_training_tasks(config: RunConfig) -> None:
    suite = guarded(build_suite(config.data))
    tasks = validation_tasks(config.model_copy(update={"condition": "one_hot"}), suite)
    assert tasks == suite.train[:60]


def test_what_is_validated_is_a_checkpoint(config: RunConfig) -> None:
    train = config.train.model_copy(update={"steps": 7, "eval_every": 3, "checkpoint_every": 2, "log_every": 10})
    config = config.model_copy(update={"train": train})
    plans = [Plan.after(done, config, validates=True) for done in range(1, 8)]
    assert [i for i, plan in enumerate(plans, 1) if plan.validate] == [3, 6, 7]
    assert [i for i, plan in enumerate(plans, 1) if plan.checkpoint] == [2, 3, 4, 6, 7]
    assert all(plan.log == plan.checkpoint for plan in plans)
    assert not any(Plan.after(done, config, validates=False).validate for done in range(1, 8))


def test_scores_are_taken_over_into_the_metrics_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.append({"step": 1, "loss": 1.0})
    Validations(tmp_path).write(Validation(1, 0.5, {"exact_match": 0.5}, 1.0))
    for _ in range(2):
        metrics.add_validations()
    assert metrics.read() == [{"step": 1, "loss": 1.0}, {"step": 1, "validation": {"exact_match": 0.5}}]


def test_the_live_line_shows_the_newest_score() -> None:
    values = {"phase": "training", "unit": "adapters", "step": 1, "loss": 0.5, "rate": 1e3, "seconds_per_step": 2.0}
    values["busy"] = 0.976
    assert status_line(values, 3) == "step 1/3  loss 0.5000  1,000 adapters/s  busy 98%  0:04 left"
    assert "validation 0.250 (step 1)" in status_line(values | {"validated": 1, "validation": 0.25}, 3)


def test_notes_may_hold_brackets() -> None:
    out = io.StringIO()
    LiveLine(1, Console(file=out, soft_wrap=True)).show({}, ["[/gloo/tcp/pair.cc:553] Connection closed [bold]"])
    assert out.getvalue() == "note: [/gloo/tcp/pair.cc:553] Connection closed [bold]\n"


def test_answers_that_may_not_be_run_are_refused_before_training(config: RunConfig) -> None:
    suite = build_suite(config.data)
    code = replace(suite, test=(replace(suite.test[0], name="sums", metric="pass_at_1"),))
    check_code(config, suite)
    with pytest.raises(ConfigError, match=r"grading sums runs code .* data\.run_code=true"):
        check_code(config, code)
    check_code(config.model_copy(update={"data": config.data.model_copy(update={"run_code": True})}), code)
    no_table = {"train": config.train.model_copy(update={"report_inputs": 0})}
    check_code(config.model_copy(update=no_table), code)
