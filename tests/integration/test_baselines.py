"""Baseline LoRAs: many at once equal each by itself, and the job that trains, saves and scores them."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer

from t2l.lora.apply import PerRowLora
from t2l.lora.peft_io import load_peft
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.tasks.operations import Operations
from t2l.tasks.task import Task
from t2l.tasks.universe import sub_universe
from t2l.train.lora import LoraBatches, LoraTraining, clip_each, train_loras

ROOT = Path(__file__).parents[2]
SETTINGS = LoraTraining(steps=6, rows=3, lr=1e-2)


@pytest.fixture
def base() -> PerRowLora:
    """In fp64, so that only mistakes make differences."""
    model = tiny_llama().double()
    return PerRowLora(model, LoraSpec.from_config(model.config, ["q_proj", "down_proj"], rank=4))


@pytest.fixture(scope="module")
def tasks() -> tuple[Task, ...]:
    picks, renders = frozenset({"first", "last", "reverse"}), frozenset({"plain", "uppercase", "quotes"})
    return sub_universe("words", Operations(picks, renders), num_validation=0, num_test=0).train[:3]


def test_an_adapter_comes_out_the_same_alone_and_in_company(base: PerRowLora, tasks: tuple[Task, ...]) -> None:
    together = train_loras(base, tiny_tokenizer(), [[task] for task in tasks], SETTINGS)
    assert len(together) == len(tasks)
    for number, task in enumerate(tasks):
        alone = train_loras(base, tiny_tokenizer(), [[task]], SETTINGS)
        for one, many in zip(alone.tensors(), together.tensors(), strict=True):
            torch.testing.assert_close(one[0], many[number], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together.B["q_proj"][0], together.B["q_proj"][1]), "each learns its own task"


def test_training_lowers_the_loss_and_leaves_the_base_alone(base: PerRowLora, tasks: tuple[Task, ...]) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    losses: list[float] = []
    weights = train_loras(
        base, tiny_tokenizer(), [tasks], LoraTraining(steps=30, lr=1e-2), lambda done, loss: losses.append(loss.item())
    )
    assert len(weights) == 1, "one adapter for all tasks of a group"
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert not any(tensor.requires_grad for tensor in weights.tensors())
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())


def test_a_batch_holds_each_groups_tasks_in_turn_and_no_description(tasks: tuple[Task, ...]) -> None:
    tokenizer = tiny_tokenizer()
    batch = LoraBatches([tasks, tasks[:1]], tokenizer, SETTINGS)[0]
    assert batch.input_ids_B_T.shape[0] == 2 * SETTINGS.rows
    torch.testing.assert_close(batch.label_weights_K.sum(), torch.tensor(2.0))
    texts = tokenizer.batch_decode(batch.input_ids_B_T)
    assert not any(description in text for text in texts for task in tasks for description in task.descriptions[:20])


def test_clipping_is_per_adapter(base: PerRowLora) -> None:
    weights = LoraWeights.zeros(base.spec, 2)
    for tensor in weights.tensors():
        tensor.requires_grad_().grad = torch.ones_like(tensor) * torch.tensor([10.0, 1e-4])[:, None, None, None]
    clip_each(weights, 1.0)
    norms = torch.stack([t.grad.flatten(1).norm(dim=1) for t in weights.tensors() if t.grad is not None]).norm(dim=0)
    torch.testing.assert_close(norms[0], torch.tensor(1.0), rtol=1e-4, atol=0)
    assert norms[1] < 0.1, "a small gradient stays as it is, whatever its neighbour's"
    assert all(torch.equal(t.grad[1], torch.full_like(t[1], 1e-4)) for t in weights.tensors() if t.grad is not None)


Job = Callable[..., int]


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job's main with these arguments, in this process: four starts would import torch four times."""
    main = runpy.run_path(str(ROOT / "jobs" / "train_baselines.py"))["main"]

    def start(*arguments: str) -> int:
        short = ["--steps", "2", "--rows", "2", "--inputs", "2"]
        monkeypatch.setattr(sys, "argv", ["train_baselines.py", *arguments, *short])
        return main()

    return start


def test_the_job_goes_on_where_it_stopped(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("oracle", "--tasks-at-once", "2", "-o", str(tmp_path))
    assert job(*arguments, "--tasks", "2") == 0
    assert "exact match" in capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("adapters/*/adapter_model.safetensors")}
    assert len(written) == 2
    assert all(len(load_peft(path.parent)) == 1 for path in written)

    assert job(*arguments, "--tasks", "3") == 0
    assert len(list((tmp_path / "adapters").iterdir())) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in written.items()), "finished ones stay untouched"
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["num_tasks"] == len(results["by_task"]) == 3
    assert 0 <= results["exact_match"] <= results["rouge_l"] <= 1

    assert job(*arguments, "--lr", "0.1") == 1
    assert "choose another folder" in capsys.readouterr().err


def test_the_multitask_lora_is_one_adapter(job: Job, tmp_path: Path) -> None:
    assert job("multitask", "--tasks", "2", "-o", str(tmp_path)) == 0
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == ["multitask"]
    assert json.loads((tmp_path / "results.json").read_text())["num_tasks"] == 2
