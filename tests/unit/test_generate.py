"""Greedy answers with one adapter a row: the same alone, in any batch, and in PEFT."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lora_models import random_weights
from peft import PeftModel
from tiny import save_tiny_base, tiny_llama, tiny_tokenizer
from transformers import AutoModelForCausalLM

from t2l.config.data import DataConfig
from t2l.errors import DataError, SpecMismatchError
from t2l.evaluation import generate, suite
from t2l.evaluation.generate import greedy_answers, greedy_texts
from t2l.evaluation.questions import Question
from t2l.evaluation.suite import Evaluation
from t2l.lora import LoraSpec, LoraWeights
from t2l.lora.apply import PerRowLora
from t2l.lora.peft_io import save_peft

PROMPTS = ["<|begin|><|user|>" + text + "<|assistant|>" for text in ("b, a", "hello there", "7", "a longer one: x y z")]
NEW = 12
TOKENIZER = tiny_tokenizer()


def spec() -> LoraSpec:
    return LoraSpec.from_config(tiny_llama().config, ["q_proj", "v_proj"], rank=4)


def base() -> PerRowLora:
    return PerRowLora(tiny_llama().eval(), spec())


def adapters() -> LoraWeights:
    return random_weights(spec(), len(PROMPTS), torch.float32)


def answers(weights: LoraWeights | None, prompts: list[str] = PROMPTS) -> list[str]:
    return greedy_answers(base(), TOKENIZER, prompts, weights, NEW)


@pytest.mark.parametrize("batch", [1, 2, 256])
def test_answers_do_not_depend_on_the_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [answers(adapters().select([i]), [prompt])[0] for i, prompt in enumerate(PROMPTS)]
    monkeypatch.setattr(generate, "batch_size", lambda model: batch)
    assert answers(adapters()) == alone
    assert len(set(alone)) == len(PROMPTS), "random adapters that all say the same would prove nothing"
    assert answers(None) != alone


def test_each_answer_has_its_own_limit() -> None:
    """Whatever stands beside it in the batch."""
    limits = [3, NEW, 1, 7]
    together = greedy_texts(base(), TOKENIZER, PROMPTS, None, limits)
    assert together == [
        greedy_texts(base(), TOKENIZER, [prompt], None, limit)[0] for prompt, limit in zip(PROMPTS, limits, strict=True)
    ]
    assert len({len(text) for text in together}) > 2


def test_they_are_what_peft_generates(tmp_path: Path) -> None:
    save_tiny_base(tmp_path / "base")
    found = answers(adapters())
    for i, prompt in enumerate(PROMPTS):
        save_peft(adapters(), i, tmp_path / str(i), str(tmp_path / "base"))
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
        peft = PeftModel.from_pretrained(model, str(tmp_path / str(i))).eval()
        inputs = TOKENIZER(prompt, return_tensors="pt", add_special_tokens=False)
        output = peft.generate(**inputs, max_new_tokens=NEW, do_sample=False)
        text = TOKENIZER.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert found[i] == str(text).strip()


def test_one_adapter_may_serve_all_prompts() -> None:
    one = adapters().select([2])
    assert answers(one) == answers(one.select([0] * len(PROMPTS)))


def test_a_row_ends_at_its_end_token_while_others_go_on() -> None:
    lora = base()
    lora.model.generation_config.eos_token_id = None  # type: ignore[union-attr]
    whole = greedy_answers(lora, TOKENIZER, PROMPTS, adapters(), NEW)
    end = whole[0][0]  # let the first character of the first answer, one token, be what ends an answer
    lora.model.generation_config.eos_token_id = TOKENIZER.convert_tokens_to_ids([end])  # type: ignore[union-attr]
    ended = greedy_answers(lora, TOKENIZER, PROMPTS, adapters(), NEW)
    assert ended == [text[: text.index(end) + 1] if end in text else text for text in whole]
    assert max(map(len, ended)) > len(ended[0]) == 1


def test_no_prompts_no_answers() -> None:
    assert answers(None, []) == []


def test_wrong_numbers_and_lengths_are_refused() -> None:
    with pytest.raises(SpecMismatchError, match="2 adapters for 4 prompts"):
        answers(adapters().select([0, 1]))
    with pytest.raises(DataError, match="601 tokens and an answer of up to 12 exceed the base model's 512"):
        answers(None, ["<|user|>" + "x" * 600])


def test_long_prompts_may_be_cut_from_the_left() -> None:
    tail = "<|user|>" + "z" * 30 + "<|assistant|>"
    cut = greedy_texts(base(), TOKENIZER, ["x" * 900 + tail, "b, a"], None, NEW, max_prompt_tokens=32)
    assert cut == greedy_texts(base(), TOKENIZER, [tail, "b, a"], None, NEW), "two special tokens and 30 letters"
    [whole] = greedy_texts(base(), TOKENIZER, ["x" * 900 + tail], None, NEW, max_prompt_tokens=10_000)
    assert [whole] == greedy_texts(base(), TOKENIZER, ["x" * (512 - NEW - 32) + tail], None, NEW), "as much as has room"


def test_an_evaluation_makes_as_many_adapters_at_once_as_may_be_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    keys = [str(i) for i in range(len(PROMPTS))]

    def make(asked: Sequence[str]) -> LoraWeights:
        made.append(list(asked))
        return adapters().select([int(key) for key in asked])

    asked = [Question("task", text, "a, b, c, d", key) for key, text in zip(keys, PROMPTS, strict=True)]
    evaluation = Evaluation(base(), TOKENIZER, make, DataConfig())
    together = evaluation.answer(asked)
    monkeypatch.setattr(suite, "ADAPTER_BYTES", 2 * 3 * 4 * spec().num_parameters)
    assert evaluation.answer(asked) == together
    assert made == [keys, keys[:2], keys[2:]]
