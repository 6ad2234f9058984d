"""Many adapters in training at once: each as if alone, stopped by its own validation, followed by the next task."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny import tiny_llama, tiny_tokenizer

from t2l.config import DataConfig
from t2l.data.collate import Row, SftBatch
from t2l.errors import ConfigError, DataError
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights
from t2l.tasks.operations import Operations
from t2l.tasks.task import Example, Task
from t2l.tasks.universe import sub_universe
from t2l.train.lora import RowMaker, TrainedLora, draw, refine_loras, train_loras
from t2l.train.lora_settings import LoraTraining, OracleTraining
from t2l.train.losses import answer_loss
from t2l.train.slots import LoraSlots, Update
from t2l.train.step import label_logits

SETTINGS = OracleTraining(steps=6, rows=3, lr=1e-2, eval_every=2, validation_examples=4)


@pytest.fixture(scope="module")
def base() -> PerRowLora:
    """In fp64, so that only mistakes make differences."""
    model = tiny_llama().double().eval()
    return PerRowLora(model, LoraSpec.from_config(model.config, ["q_proj", "down_proj"], rank=4))


@pytest.fixture(scope="module")
def tasks() -> tuple[Task, ...]:
    picks, renders = frozenset({"first", "last", "reverse"}), frozenset({"plain", "uppercase", "quotes"})
    return sub_universe("words", Operations(picks, renders), num_validation=0, num_test=0).train[:4]


@pytest.fixture
def train(base: PerRowLora) -> Callable[..., list[TrainedLora]]:
    def run(tasks: list[Task], settings: OracleTraining = SETTINGS, at_once: int = 24) -> list[TrainedLora]:
        rounds = train_loras(base, tiny_tokenizer(), tasks, settings, at_once)
        return [done for round_ in rounds for done in round_.finished]

    return run


def assert_same(one: LoraWeights, other: LoraWeights) -> None:
    for ours, theirs in zip(one.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


# ---- slots


def test_each_slot_is_updated_as_torchs_adamw_would_update_it_alone(base: PerRowLora) -> None:
    """Also when it starts later than its neighbour, and when its neighbour's gradient must be clipped."""
    fresh = LoraWeights.init(base.spec, 1, torch.Generator().manual_seed(0))
    slots, layout = LoraSlots(fresh), FlatLayout(base.spec)
    alone = [layout.flatten(fresh).requires_grad_() for _ in range(2)]
    peers = [torch.optim.AdamW([flat], weight_decay=0.1) for flat in alone]
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        if step == 2:
            slots.extend(LoraSlots(fresh))
        now = peers[: len(slots)]
        gradients = [torch.randn(layout.size, generator=generator) * scale for scale in (1.0, 1e-4)][: len(now)]
        rates = [1e-2 / (step + 1), 2e-2][: len(now)]
        torch.dot(layout.flatten(slots.weights()).flatten(), torch.cat(gradients)).backward()
        slots.update(rates, Update(weight_decay=0.1, clip=1.0))
        for flat, peer, gradient, rate in zip(alone, peers, gradients, rates, strict=False):
            flat.grad = gradient[None].clone()
            torch.nn.utils.clip_grad_norm_([flat], 1.0)
            peer.param_groups[0]["lr"] = rate
            peer.step()
    assert slots.updates == [6, 4]
    torch.testing.assert_close(slots.copy(), torch.cat(alone).detach(), rtol=1e-4, atol=1e-6)
    slots.keep([1])
    assert slots.updates == [4]
    assert_same(slots.adapter(slots.copy()[0]), layout.unflatten(alone[1].detach()))


def test_draws_repeat_only_what_they_must() -> None:
    assert sorted(draw(8, 8, "a")) == list(range(8))
    assert sorted(draw(3, 6, "a")) == [0, 0, 1, 1, 2, 2]
    assert len(set(draw(1 << 16, 8, "a"))) == 8
    assert draw(100, 8, "a") == draw(100, 8, "a") != draw(100, 8, "b")


# ---- the queue


def test_an_adapter_comes_out_the_same_alone_in_company_and_in_a_refilled_slot(
    train: Callable[..., list[TrainedLora]], tasks: tuple[Task, ...]
) -> None:
    together, queued = train(tasks), train(tasks, at_once=3)
    assert [done.task for done in together] == [done.task for done in queued] == list(tasks)
    for task, many, refilled in zip(tasks, together, queued, strict=True):
        [alone] = train([task])
        assert_same(alone.weights, many.weights)
        assert_same(alone.weights, refilled.weights)
        assert alone.validation_loss == pytest.approx(many.validation_loss, rel=1e-4)
    first, second = (done.weights.B["q_proj"] for done in together[:2])
    assert not torch.allclose(first, second), "each learns its own task"


def test_early_stopping_keeps_the_best_weights(
    base: PerRowLora, train: Callable[..., list[TrainedLora]], tasks: tuple[Task, ...]
) -> None:
    """Training answers teach the opposite of the validation's: from some step on, the loss there only rises."""
    good = [Example(f"say {n}", "yes") for n in range(4)]
    turned = Task("turned", ("",), ("",), [Example(f"say {n}", "no no") for n in range(8)] + good, ())
    settings = replace(SETTINGS, steps=40, patience=3)
    [done] = train([turned], settings)
    assert done.stopped_early
    assert done.steps < 40
    maker = RowMaker(base, tiny_tokenizer(), DataConfig())
    batch = maker.batch(maker.make(good), len(good))
    loss = answer_loss(label_logits(base, done.weights, batch), batch.label_ids_K, batch.label_weights_K)
    assert loss.item() == pytest.approx(done.validation_loss, rel=1e-4), "the weights handed out are those of that loss"


def test_a_slot_that_stops_early_takes_the_next_task(base: PerRowLora, tasks: tuple[Task, ...]) -> None:
    good = [Example(f"say {n}", "yes") for n in range(4)]
    turned = Task("turned", ("",), ("",), [Example(f"say {n}", "no no") for n in range(8)] + good, ())
    settings = replace(SETTINGS, steps=20, lr=3e-2, patience=1)
    rounds = list(train_loras(base, tiny_tokenizer(), [turned, *tasks[:2]], settings, at_once=2))
    assert {done.task.name for round_ in rounds for done in round_.finished} == {
        "turned",
        *(task.name for task in tasks[:2]),
    }
    assert max(round_.in_training for round_ in rounds) <= 2
    assert rounds[-1].in_training == 0


def test_training_learns_and_leaves_the_base_alone(
    base: PerRowLora, train: Callable[..., list[TrainedLora]], tasks: tuple[Task, ...]
) -> None:
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    short, long = train(tasks[:1]), train(tasks[:1], replace(SETTINGS, steps=40, eval_every=10))
    assert long[0].validation_loss < 0.9 * short[0].validation_loss
    assert not any(tensor.requires_grad for tensor in long[0].weights.tensors())
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.model.state_dict().items())
    assert not base.training


def test_validation_examples_are_never_trained_on(train: Callable[..., list[TrainedLora]]) -> None:
    class Watched(list[Example]):
        def __getitem__(self, index):  # type: ignore[override]
            seen[index] += 1
            return super().__getitem__(index)

    seen: Counter[int] = Counter()
    task = Task("watched", ("",), ("",), Watched(Example(f"say {n}", f"{n}") for n in range(12)), ())
    train([task])
    assert {index: times for index, times in seen.items() if index >= 8} == {8: 1, 9: 1, 10: 1, 11: 1}
    assert sum(seen.values()) == 4 + SETTINGS.steps * SETTINGS.rows


def test_settings_and_tasks_that_cannot_be_trained(base: PerRowLora, tasks: tuple[Task, ...]) -> None:
    with pytest.raises(ConfigError, match="steps is 5, no multiple of eval_every 2"):
        replace(SETTINGS, steps=5)
    small = replace(tasks[0], name="small", train=tuple(tasks[0].train[i] for i in range(4)))
    with pytest.raises(DataError, match="'small' has 4 training examples, of which validation takes 4"):
        next(train_loras(base, tiny_tokenizer(), [small], SETTINGS))


@pytest.mark.parametrize(("data", "longest"), [(DataConfig(), 512), (DataConfig(max_prompt_tokens=40), 296)])
def test_rows_keep_to_the_runs_limits_and_the_bases_positions(
    data: DataConfig, longest: int, base: PerRowLora, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracles and refined adapters alike; the tiny model has 512 positions."""
    lengths: list[int] = []
    batch = RowMaker.batch

    def watched(self: RowMaker, rows: list[Row], rows_of_each: int) -> SftBatch:
        lengths.extend(map(len, rows))
        return batch(self, rows, rows_of_each)

    monkeypatch.setattr(RowMaker, "batch", watched)
    long = [Example("x" * 900, "y" * 900)] * 8
    settings = replace(SETTINGS, steps=2)
    list(train_loras(base, tiny_tokenizer(), [Task("long", ("",), ("",), long, ())], settings, data=data))
    refine_loras(base, tiny_tokenizer(), LoraWeights.zeros(base.spec, 1), [long], LoraTraining(steps=1), data)
    assert set(lengths) == {longest}


# ---- refine


def test_refining_lowers_the_loss_of_each_adapter_on_its_own_examples(
    base: PerRowLora, tasks: tuple[Task, ...]
) -> None:
    weights = LoraWeights.init(base.spec, 2, torch.Generator().manual_seed(3))
    few = [[task.train[i] for i in range(number)] for task, number in zip(tasks, (5, 2), strict=False)]
    settings = LoraTraining(steps=30, rows=4, lr=1e-2)
    refined = refine_loras(base, tiny_tokenizer(), weights, few, settings)
    maker = RowMaker(base, tiny_tokenizer(), DataConfig())
    for n, examples in enumerate(few):
        batch = maker.batch(maker.make(examples), len(examples))
        before, after = (
            answer_loss(label_logits(base, one.select([n]), batch), batch.label_ids_K, batch.label_weights_K)
            for one in (weights, refined)
        )
        assert after < 0.8 * before
        alone = refine_loras(base, tiny_tokenizer(), weights.select([n]), [examples], settings)
        assert_same(alone, refined.select([n]))
    with pytest.raises(DataError, match=r"2 adapters cannot be refined with \[5, 0\] examples"):
        refine_loras(base, tiny_tokenizer(), weights, [few[0], []], settings)


def test_an_adapter_that_diverges_is_named(train: Callable[..., list[TrainedLora]], tasks: tuple[Task, ...]) -> None:
    with pytest.raises(ConfigError, match=f"the adapter of task '{tasks[0].name}' diverged: lower lr"):
        train([tasks[0]], replace(SETTINGS, lr=1e200))
