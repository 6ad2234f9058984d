"""The table gives each text its own states, encoded once: by whichever step, worker or run needs them first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_config, tiny_llama, tiny_tokenizer
from torch import nn

from t2l.cluster import encode
from t2l.data import descriptions
from t2l.data.cache import Caches
from t2l.data.descriptions import DescriptionNumbers, DescriptionTable, KeptStates
from t2l.errors import DescriptionError
from t2l.lora.apply import PerRowLora
from t2l.lora.spec import LoraSpec
from t2l.tasks.task import Task
from t2l.text.encoder import TextFeatures, encoder_digest
from t2l.text.llm import LlmEncoder


class CountingEncoder:
    """Text of c words -> c states, whose features say word and place; keeps what it was asked."""

    feature_dim = 2

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[str] = []

    def identity(self) -> str:
        return self.name

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(len(text.split()),) for text in texts]

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        self.asked += texts
        width = max(len(text.split()) for text in texts)
        states, mask = torch.full((len(texts), width, 2), 9.0), torch.zeros(len(texts), width, dtype=torch.bool)
        for i, text in enumerate(texts):
            for j, word in enumerate(text.split()):
                states[i, j], mask[i, j] = torch.tensor([len(word), j]), True
        return TextFeatures(states, mask)


TEXTS = ["sort", "take the last one", "two words", "three more words", "one"]
EVERY = range(len(TEXTS))


def check(table: DescriptionTable, index: list[int]) -> None:
    expected = CountingEncoder().encode([TEXTS[i] for i in index])
    found = table.lookup(torch.tensor(index))
    assert torch.equal(found.mask_N_T, expected.mask_N_T)
    assert torch.equal(found.states_N_T_D, (expected.states_N_T_D * expected.mask_N_T[..., None]).half())


@given(st.lists(st.lists(st.sampled_from(EVERY), min_size=1, max_size=4), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_lookups_give_what_the_encoder_says_and_ask_it_once(lookups: list[list[int]]) -> None:
    encoder = CountingEncoder()
    table = DescriptionTable(len(TEXTS), KeptStates(TEXTS, encoder, "cpu", None), "cpu")
    for index in lookups:
        check(table, index)
    assert sorted(encoder.asked) == sorted({TEXTS[i] for index in lookups for i in index})
    check(DescriptionTable.encode(TEXTS, CountingEncoder()), lookups[0])


def test_what_a_table_lacks_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptions, "_AT_ONCE", 2)
    encoder, told = CountingEncoder(), []
    table = DescriptionTable(len(TEXTS), KeptStates(TEXTS, encoder, "cpu", None), "cpu")
    check(table, [1, 3])
    table.fill(lambda done, of: told.append((done, of)))
    assert sorted(encoder.asked) == sorted(TEXTS) and told == [(2, 3), (3, 3)]
    check(table, list(EVERY))


def kept(folder: Path, encoder: CountingEncoder, texts: Sequence[str] = TEXTS) -> KeptStates:
    return KeptStates(texts, encoder, "cpu", Caches(folder))


def test_runs_share_what_was_encoded(tmp_path: Path) -> None:
    first = kept(tmp_path, CountingEncoder())
    first([1, 3])
    first.flush()
    encoder = CountingEncoder()
    second = kept(tmp_path, encoder, ["another text", *TEXTS])
    assert second.known() == [2, 4]
    table = DescriptionTable(len(TEXTS), kept(tmp_path, encoder), "cpu")
    for index in ([1, 3, 1], [0, 1, 2]):
        check(table, index)
    assert sorted(encoder.asked) == ["sort", "two words"]


def test_another_encoder_shares_nothing(tmp_path: Path) -> None:
    first = kept(tmp_path, CountingEncoder())
    first(EVERY)
    first.flush()
    assert kept(tmp_path, CountingEncoder("another")).known() == []


def test_any_change_of_a_model_is_another_encoder() -> None:
    def llm(**settings: object) -> str:
        return LlmEncoder(tiny_llama(), tiny_tokenizer(), "tokens", **({"probes": ["a"]} | settings)).identity()  # type: ignore[arg-type]

    assert llm() == llm()
    assert len({llm(), llm(probes=["b"]), llm(probes=["a", "b"]), llm(num_layers=1)}) == 4
    model = tiny_llama()
    before = encoder_digest(model)
    with torch.no_grad():
        model.get_parameter("model.layers.1.mlp.down_proj.weight").add_(1e-3)
    assert encoder_digest(model) != before
    assert encoder_digest(nn.Linear(2, 3)) != encoder_digest(nn.Linear(3, 2))


@pytest.mark.parametrize("pooling", ["sentence", "tokens"])
def test_bits_depend_neither_on_company_nor_on_training(pooling: str) -> None:
    """Encoded together before training, and one by one between the steps, with LoRA layers and dropout in place."""
    texts = ["Sort the words.", "Reverse.", "Take the last one.", "Sort the worms."]
    model = tiny_llama()
    encoder = LlmEncoder(model, tiny_tokenizer(), pooling, ["owl, cat"])  # type: ignore[arg-type]
    together = KeptStates(texts, encoder, "cpu", None)(range(4))
    identity = encoder.identity()
    PerRowLora(model, LoraSpec.from_config(model.config, ["q_proj"], 2, dropout=0.5)).train()
    setattr(model.get_submodule("model.layers.0.self_attn"), "attention_dropout", 0.5)  # noqa: B010
    alone = [KeptStates(texts, encoder, "cpu", None)([number])[0] for number in range(4)]
    assert all(map(np.array_equal, together, alone))
    assert model.training
    assert encoder.identity() == identity


def test_a_text_that_cannot_be_read_is_refused_before_the_first_step() -> None:
    task = Task("bare", ["Sort the words.", " "], [], [], [])
    with pytest.raises(DescriptionError, match="the description is empty"):
        DescriptionNumbers.of("description", [task], 2)
    assert DescriptionNumbers.of("description", [task], 1).texts == ("Sort the words.",)


def test_a_cache_that_cannot_be_written_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own notes come from the pool's actors; what is left is that all is encoded, which the driver writes down."""
    monkeypatch.setattr(encode, "_run_pool", lambda *_: None)
    (tmp_path / "file").write_text("in the way")
    config = tiny_config(tmp_path / "no model", tmp_path).model_copy(update={"cache_dir": str(tmp_path / "file/cache")})
    news: list[Any] = []
    encode.encode_ahead(config, config.run_dir, 1, False, news.append)
    assert len(news) == 1 and "file/cache/descriptions cannot be written" in news[0]["note"]
