"""Tokens from the cache are those that the tokenizer would give, and what changes them changes the cache."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_config, tiny_tokenizer

from t2l.config.data import DataConfig
from t2l.data.cache import Caches
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.data.tokens import Text, Tokenizing
from t2l.tasks.task import Task
from t2l.text.tokenizer import tokenizer_json

LIMITS = DataConfig(max_prompt_tokens=9, max_response_tokens=5)
TOKENIZER = tiny_tokenizer()
TEXTS = st.builds(Text, st.text(min_size=1, max_size=15), st.text(min_size=1, max_size=9), st.booleans())


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=6), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_kept_tokens_are_those_of_the_tokenizer(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Text]]
) -> None:
    folder, plain = tmp_path_factory.mktemp("cache"), Tokenizing(TOKENIZER, LIMITS, None)
    for _ in range(2):  # the second time from files
        kept = Tokenizing(TOKENIZER, LIMITS, Caches(folder))
        for batch in [*batches, *batches]:
            assert kept(batch) == plain(batch)
        kept.flush()


class CountingTokenizer:
    """Stands before a real one and keeps what that was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.backend_tokenizer = tiny_tokenizer().backend_tokenizer

    def __call__(self, texts: Sequence[str], add_special_tokens: bool, verbose: bool) -> object:
        self.asked += texts
        return TOKENIZER(list(texts), add_special_tokens=add_special_tokens, verbose=verbose)


def asked(folder: Path, texts: Sequence[Text], limits: DataConfig = LIMITS) -> list[str]:
    """What the tokenizer is asked for when a new run draws these."""
    tokenizer = CountingTokenizer()
    kept = Tokenizing(tokenizer, limits, Caches(folder))  # type: ignore[arg-type]
    kept(texts)
    kept.flush()
    return tokenizer.asked


def test_only_what_comes_again_is_kept_and_any_change_is_noticed(tmp_path: Path) -> None:
    again, once = Text("What is 2 + 2?", "4", True), Text("once", "only", False)
    assert asked(tmp_path, [again, once]) == ["What is 2 + 2?", "once", "4", "only"]
    assert asked(tmp_path, [again, once]) == ["once", "only"]
    assert asked(tmp_path, [again._replace(answer="5")]) == ["What is 2 + 2?", "5"]
    assert asked(tmp_path, [again._replace(prompt="2 + 2?")]) == ["2 + 2?", "4"]
    assert asked(tmp_path, [again], LIMITS.model_copy(update={"max_prompt_tokens": 8})) == ["What is 2 + 2?", "4"]
    assert asked(tmp_path, [again]) == []


def test_another_tokenizer_is_noticed_and_padding_is_none_of_its_matter() -> None:
    tokenizer = tiny_tokenizer()
    before = tokenizer_json(tokenizer)
    tokenizer(["a", "bc"], padding=True, truncation=True, max_length=5)
    assert tokenizer_json(tokenizer) == before
    tokenizer.add_tokens(["word"])
    assert tokenizer_json(tokenizer) != before


@pytest.fixture(scope="module")
def tasks() -> Sequence[Task]:
    """Finite ones: 7 examples each."""
    made = build_suite(tiny_config(Path("unused"), Path("unused")).data).train
    return [replace(task, train=tuple(task.train[:7])) for task in made]


@pytest.mark.parametrize("definition", ["never", "dropout"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_with_and_without_a_cache_are_equal(
    tasks: Sequence[Task], tmp_path: Path, definition: str, workers: int
) -> None:
    config = tiny_config(Path("unused"), Path("unused"), steps=6, tasks_per_step=5, samples_per_task=2)
    data = config.data.model_copy(update={"definition": definition, "loader_workers": workers})
    config = config.model_copy(update={"data": data})
    numbers = DescriptionNumbers.of("description", tasks, 4)
    plain = SftSteps(config, tasks, numbers, TOKENIZER)
    for _ in range(2):  # the second time from files
        kept = SftSteps(config, tasks, numbers, TOKENIZER, caches=Caches(tmp_path))
        for step, batches in enumerate(kept.loader(0, pin=False)):
            for ours, expected in zip(batches, plain[step], strict=True):
                assert torch.equal(ours.input_ids_B_T, expected.input_ids_B_T)
                assert torch.equal(ours.label_ids_K, expected.label_ids_K)
        assert list(tmp_path.rglob("*.arrow")), "loader processes have written what they tokenized"
