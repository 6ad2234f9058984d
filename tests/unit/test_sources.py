"""Where adapters come from: means, the nearest task, Arrow, and layers that change with the adapters' spec."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from lora_models import random_weights
from tiny import save_tiny_base, tiny_llama, tiny_tokenizer

from t2l.cluster.sources import FrozenBase
from t2l.config import BaseConfig
from t2l.evaluation.arrow import arrow_model
from t2l.evaluation.decode import Unadapted
from t2l.evaluation.generate import greedy_answers
from t2l.evaluation.retrieval import Nearest, average_of, mean_adapter
from t2l.lora import LoraSpec, LoraWeights
from t2l.lora.library import Library
from t2l.lora.peft_io import save_peft
from t2l.tasks.task import Task
from t2l.text.encoder import TextFeatures

PROMPTS = ["<|begin|><|user|>" + text + "<|assistant|>" for text in ("b, a", "hello there")]


def spec(rank: int = 4, *targets: str) -> LoraSpec:
    return LoraSpec.from_config(tiny_llama().config, targets or ["q_proj", "v_proj"], rank=rank)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> FrozenBase:
    return FrozenBase(BaseConfig(path=str(save_tiny_base(tmp_path_factory.mktemp("base")))), "cpu")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    weights = random_weights(spec(), 3, torch.float32)
    for index, name in enumerate(("one", "two", "three")):
        save_peft(weights, index, tmp_path / name, "tiny")
    return Library.open(tmp_path)


def answers(base: FrozenBase, weights: LoraWeights) -> list[str]:
    return greedy_answers(base.with_layers_for(weights.spec), base.tokenizer, PROMPTS, weights, 8)


def test_one_base_takes_adapters_of_one_spec_after_another(base: FrozenBase) -> None:
    bare = greedy_answers(Unadapted(base.model), base.tokenizer, PROMPTS, None, 8)
    few, many = random_weights(spec(), 1, torch.float32), random_weights(spec(2, "down_proj"), 1, torch.float32)
    first = answers(base, few)
    assert answers(base, many) != first
    assert answers(base, few) == first, "nothing is left of other layers"
    assert greedy_answers(Unadapted(base.model), base.tokenizer, PROMPTS, None, 8) == bare != first
    assert base.with_layers_for(few.spec) is base.with_layers_for(few.spec)


def test_released_layers_leave_the_model_as_it_was(base: FrozenBase) -> None:
    fresh = dict(tiny_llama().named_modules()).keys()
    assert dict(base.with_layers_for(spec()).released().named_modules()).keys() == fresh
    base.with_layers_for(spec(2))  # for the tests after this one


def test_means_do_not_depend_on_how_they_are_cut() -> None:
    weights = random_weights(spec(), 5, torch.float32)
    parts = (weights.select(slice(start, start + 2)) for start in range(0, 5, 2))
    for ours, right in zip(mean_adapter(parts).tensors(), weights.mean().tensors(), strict=True):
        torch.testing.assert_close(ours, right)


def test_the_average_is_that_of_the_tasks_named(library: Library) -> None:
    two = library.weights(["three", "one"])
    for ours, right in zip(average_of(library, ["one", "three"]).tensors(), two.mean().tensors(), strict=True):
        torch.testing.assert_close(ours, right)


class Letters:
    """Encodes a text as how often each letter stands in it."""

    feature_dim = 26

    def identity(self) -> str:
        return "letters"

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        counts = torch.tensor([[float(text.count(chr(97 + i))) for i in range(26)] for text in texts])
        return TextFeatures(counts[:, None], torch.ones(len(texts), 1, dtype=torch.bool))

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(1,)] * len(texts)


def test_the_nearest_task_is_the_one_with_the_description_most_alike() -> None:
    tasks = [Task(name, texts, (), (), ()) for name, texts in (("a", ("aab", "cd")), ("x", ("xyz", "xx")))]
    nearest = Nearest(Letters(), tasks)
    assert nearest(["aaab", "zyx", "dddc", "xxxxxxx"]) == ["a", "x", "a", "x"]


def test_arrow_routes_between_the_adapters(base: FrozenBase, library: Library) -> None:
    bare = greedy_answers(Unadapted(tiny_llama().eval()), base.tokenizer, PROMPTS, None, 8)
    routed = arrow_model(tiny_llama().eval(), list(library.folders.values()))
    found = greedy_answers(Unadapted(routed), tiny_tokenizer(), PROMPTS, None, 8)
    assert found != bare
    [one] = [folder for task, folder in library.folders.items() if task == "one"]
    alone = greedy_answers(Unadapted(arrow_model(tiny_llama().eval(), [one])), tiny_tokenizer(), PROMPTS, None, 8)
    assert alone == answers(base, library.weights(["one"])), "a library of one leaves no choice"
