"""The teacher's answers are the base model's own, whatever the batch, and rows carry them to the loss."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, tiny_llama, tiny_tokenizer

from t2l.cluster.teacher import Teacher
from t2l.config import DistillConfig, RunConfig
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.data.teacher import TeacherPool, teacher_prompts
from t2l.errors import ConfigError
from t2l.evaluation.generate import greedy_answers
from t2l.lora.apply import PerRowLora
from t2l.lora.spec import LoraSpec
from t2l.text.prompts import PromptFormat

TOKENIZER = tiny_tokenizer()
CONFIG = tiny_config(Path("unused"), Path("unused"))
TASKS = build_suite(CONFIG.data).train[:4]
DISTILL = DistillConfig(pool_size=3, top_k=5, answer_tokens=12, tasks_per_step=4, steps=20)


@pytest.fixture(scope="module")
def base() -> PerRowLora:
    model = tiny_llama().eval()
    return PerRowLora(model, LoraSpec.from_config(model.config, ["q_proj"], 2))


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return teacher_prompts(TASKS, PromptFormat.of(TOKENIZER), DISTILL)


@pytest.fixture(scope="module")
def pool(base: PerRowLora, prompts: list[str]) -> TeacherPool:
    teacher = Teacher(base, TOKENIZER, DISTILL)
    return TeacherPool([teacher(prompts[:7]), teacher(prompts[7:])], TASKS, DISTILL)


def run_config(sft_share: float) -> RunConfig:
    return CONFIG.model_copy(update={"train": DISTILL.model_copy(update={"sft_share": sft_share})})


def test_prompts_hold_definition_and_input(prompts: list[str]) -> None:
    assert len(prompts) == len(TASKS) * DISTILL.pool_size
    assert TASKS[1].descriptions[2] in prompts[5]
    assert TASKS[1].train[2].input in prompts[5]


def test_it_answers_as_the_base_model_does(base: PerRowLora, prompts: list[str], pool: TeacherPool) -> None:
    answers = greedy_answers(base, TOKENIZER, prompts, None, DISTILL.answer_tokens)
    for number, answer in enumerate(answers):
        taught = pool.look_up(*divmod(number, DISTILL.pool_size))
        assert str(TOKENIZER.decode(taught.answer, skip_special_tokens=True)).strip() == answer


def test_answers_that_leave_prompts_no_room_are_refused(base: PerRowLora, prompts: list[str]) -> None:
    room = base.model.config.max_position_embeddings
    teacher = Teacher(base, TOKENIZER, DISTILL.model_copy(update={"answer_tokens": room}))
    with pytest.raises(ConfigError, match=f"train.answer_tokens {room} leaves a prompt no room"):
        teacher(prompts[:1])


def test_probabilities_are_those_of_one_prompt_alone(base: PerRowLora, prompts: list[str], pool: TeacherPool) -> None:
    taught = pool.look_up(2, 1)
    ids = TOKENIZER(prompts[2 * DISTILL.pool_size + 1], add_special_tokens=False)["input_ids"]
    logits = base.model(torch.tensor([ids + taught.answer])).logits[0, len(ids) - 1 : -1]  # type: ignore[operator]
    top = logits.softmax(-1).topk(DISTILL.top_k)
    assert torch.equal(taught.ids[:, 0], torch.tensor(taught.answer)), "greedy: the likeliest is what it said"
    torch.testing.assert_close(taught.probs, top.values / top.values.sum(1, keepdim=True), atol=5e-3, rtol=2e-2)
    torch.testing.assert_close(taught.probs.sum(1), torch.ones(len(taught.answer)), atol=2e-2, rtol=0)


@pytest.mark.parametrize("sft_share", [0.0, 0.5, 1.0])
def test_rows_have_the_teachers_answer_or_the_tasks_own(pool: TeacherPool, sft_share: float) -> None:
    config = run_config(sft_share)
    numbers = DescriptionNumbers.of("description", TASKS, 4)
    pool.sft_share = sft_share
    steps = SftSteps(config, TASKS, numbers, TOKENIZER, teacher=pool)
    sure = []
    for step in range(20):
        [batch] = steps[step]
        if sft_share in (0.0, 1.0):  # in between, a batch may happen to be all of one kind
            assert (batch.teacher_ids_K_J is None) == (sft_share == 1.0)
        if batch.teacher_ids_K_J is not None and batch.teacher_probs_K_J is not None:
            torch.testing.assert_close(batch.teacher_ids_K_J[:, 0], batch.label_ids_K)
            sure += (batch.teacher_probs_K_J[:, 0] == 1.0).tolist()
    if sft_share < 1.0:
        assert any(sure) == (sft_share > 0)


@pytest.mark.parametrize("condition", ["description", "input"])
def test_tasks_with_few_examples_have_small_pools_and_adapters_of_what_is_asked(
    base: PerRowLora, condition: str
) -> None:
    tasks = [replace(TASKS[0], train=list(TASKS[0].train[:2])), *TASKS[1:]]
    prompts = teacher_prompts(tasks, PromptFormat.of(TOKENIZER), DISTILL)
    assert len(prompts) == 2 + 3 * DISTILL.pool_size
    few = TeacherPool([Teacher(base, TOKENIZER, DISTILL)(prompts)], tasks, DISTILL)
    numbers = DescriptionNumbers.of(condition, tasks, 2)
    config = run_config(0.0).model_copy(update={"condition": condition})
    steps = SftSteps(config, tasks, numbers, TOKENIZER, teacher=few)
    for step in range(20):
        [batch] = steps[step]
        for row, number in zip(batch.input_ids_B_T, batch.description_index_B.tolist(), strict=True):
            if condition == "input":
                assert numbers.texts[number].strip() in str(TOKENIZER.decode(row))
