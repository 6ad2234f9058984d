"""Sentence encoders from any folder, also with code of their own, and base LLMs that have no padding token."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast

from t2l.config import BaseConfig, EncoderConfig, parse_config
from t2l.errors import CheckpointError, ConfigError
from t2l.text.encoder import build_encoder
from t2l.text.normalize import scaled_unit
from t2l.text.sentence import SentenceEncoder
from t2l.train.base import load_base

TEXTS = ["sort the words", "first the sort", "words"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, vocab_size=8, hidden_size=16, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size


class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        table = torch.outer(torch.arange(32.0), torch.arange(1.0, config.hidden_size + 1) / 10).cos()
        self.register_buffer("table", table, persistent=False)
        self.post_init()

    def forward(self, input_ids, attention_mask, **kwargs):
        states = self.words(input_ids) + self.table[: input_ids.shape[1]]
        mask = self.get_extended_attention_mask(attention_mask, input_ids.shape)
        scores = self.key(states) @ states.transpose(1, 2) + mask[:, 0]
        return BaseModelOutputWithPooling(last_hidden_state=scores.softmax(-1) @ states)
"""
"""Does what gte does and transformers 5 does not expect: tables made in the constructor, a method that is gone."""


def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "sort", "the", "words", "first", "."]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    )


def _sentence_folder(model: Path, folder: Path) -> Path:
    """A sentence-transformers model of a transformers one, with CLS pooling as gte has it."""
    words = Transformer(str(model))
    pooling = Pooling(words.get_embedding_dimension(), pooling_mode="cls")
    SentenceTransformer(modules=[words, pooling], device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = tmp_path_factory.mktemp("bert")
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), **SIZES, initializer_range=0.5)).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    return _sentence_folder(plain, plain.with_name("sentence"))


@torch.inference_mode()
def test_cls_pooling_after_the_text_rules(folder: Path) -> None:
    encoder = SentenceEncoder(EncoderConfig(model=str(folder)))
    assert encoder.feature_dim == 16
    features = encoder.encode(TEXTS)
    model, tokenizer = AutoModel.from_pretrained(folder), _tokenizer()
    for text, state in zip(TEXTS, features.states_N_T_D, strict=True):
        cls = model(**tokenizer(f"{text}.", return_tensors="pt")).last_hidden_state[0, 0]
        torch.testing.assert_close(state[0], scaled_unit(cls[None])[0], atol=1e-5, rtol=1e-5)


def test_a_folder_that_does_not_say_how_it_is_pooled(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no modules\.json, which says how it is pooled"):
        SentenceEncoder(EncoderConfig(model=str(folder.with_name(folder.name.replace("sentence", "bert0")))))


@pytest.mark.parametrize(("file", "before", "after"), [
    ("1_Pooling/config.json", '"cls"', '"mean"'), ("tokenizer.json", '"words"', '"things"'),
])  # fmt: skip
def test_whatever_changes_vectors_changes_the_identity(
    folder: Path, tmp_path: Path, file: str, before: str, after: str
) -> None:
    """Else a cache would give the vectors of what the folder held before."""
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    text = (other / file).read_text()
    assert before in text
    (other / file).write_text(text.replace(before, after))
    kept, changed = (SentenceEncoder(EncoderConfig(model=str(place))).identity() for place in (folder, other))
    assert kept != changed
    assert kept == SentenceEncoder(EncoderConfig(model=str(folder))).identity()


# ---- code that comes with a model


@pytest.fixture(scope="module")
def own_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = tmp_path_factory.mktemp("own")
    (plain / "own_code.py").write_text(CODE)
    space: dict[str, object] = {"__name__": "own_code"}
    exec(compile(CODE, "own_code.py", "exec"), space)
    kind, config = space["OwnModel"], space["OwnConfig"]
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    names = {"AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"}
    kind(config(vocab_size=len(tokenizer), auto_map=names)).save_pretrained(plain)  # type: ignore[operator]
    tokenizer.save_pretrained(plain)
    return plain


def test_code_of_a_model_runs_only_where_the_settings_say_so(own_code: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sentence"
    folder.mkdir()
    for file in own_code.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    module = '{"idx": %d, "name": "%d", "path": "%s", "type": "sentence_transformers.models.%s"}'
    modules = [module % (0, 0, "", "Transformer"), module % (1, 1, "1_Pooling", "Pooling")]
    (folder / "modules.json").write_text(f"[{', '.join(modules)}]")
    (folder / "1_Pooling").mkdir()
    pooling = '{"word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    (folder / "1_Pooling" / "config.json").write_text(pooling)
    with pytest.raises(ConfigError, match=r"brings code of its own: read it, then set encoder\.trust_remote_code=true"):
        SentenceEncoder(EncoderConfig(model=str(folder)))

    encoder = SentenceEncoder(EncoderConfig(model=str(folder), revision=COMMIT, trust_remote_code=True))
    features = encoder.encode(TEXTS)
    table = torch.outer(torch.arange(32.0), torch.arange(1.0, 17) / 10).cos()
    weights, tokenizer = load_file(own_code / "model.safetensors"), _tokenizer()
    for text, state in zip(TEXTS, features.states_N_T_D, strict=True):
        ids = tokenizer(f"{text}.")["input_ids"]
        states = weights["words.weight"][ids] + table[: len(ids)]  # type: ignore[arg-type]
        scores = (states @ weights["key.weight"].T + weights["key.bias"]) @ states.T
        cls = scores.softmax(-1)[:1] @ states
        torch.testing.assert_close(state, scaled_unit(cls), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:12]])
def test_code_must_be_pinned_to_a_commit(revision: str | None) -> None:
    with pytest.raises(
        ConfigError, match=r"'encoder\.trust_remote_code' is True: .* set encoder\.revision to the commit"
    ):
        parse_config({"encoder": {"model": "org/gte", "trust_remote_code": True, "revision": revision}})
    pinned = parse_config({"encoder": {"model": "org/gte", "trust_remote_code": True, "revision": COMMIT}})
    assert pinned.encoder.trust_remote_code


# ---- the base model's last token


@pytest.mark.parametrize("recipe", ["mistral_7b_h100", "llama_8b_h100", "gemma_2b_h100", "qwen3_0.6b_rtx4090"])
@torch.inference_mode()
def test_the_last_token_of_a_base_without_padding(recipe: str, tmp_path: Path) -> None:
    model, tokenizer = load_base(BaseConfig(path=str(FAMILIES[recipe].save_tiny(tmp_path))), "cpu")
    assert tokenizer.pad_token is None
    features = build_encoder(EncoderConfig(kinds=("llm",)), model, tokenizer).encode(TEXTS)
    for text, state in zip(TEXTS, features.states_N_T_D, strict=True):
        ids = tokenizer(f"{text}.", return_tensors="pt")["input_ids"]
        assert ids[0].tolist().count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)  # type: ignore[union-attr]
        last = model.base_model(ids).last_hidden_state[0, -1]
        torch.testing.assert_close(state[0], scaled_unit(last[None])[0], atol=1e-4, rtol=1e-4)
