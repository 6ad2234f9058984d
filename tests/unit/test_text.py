"""Text encoders: the paper's normalisation, the right vectors, and the same ones in any batch."""

import hashlib
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_llama, tiny_tokenizer

from t2l.config import EncoderConfig, ReaderConfig
from t2l.errors import CheckpointError, ConfigError, DescriptionError, HubAccessError
from t2l.text import sentence
from t2l.text.encoder import TextEncoder, TokenEncoder, Tokens, build_encoder
from t2l.text.joint import JointEncoder
from t2l.text.llm import LlmEncoder
from t2l.text.normalize import MAX_CHARACTERS, clean_description, scaled_unit, text_digest
from t2l.text.one_hot import OneHotEncoder
from t2l.text.prompts import PromptFormat
from t2l.text.sentence import MINILM_SHA256, SentenceEncoder, minilm_path

TEXTS = ["Sort the words.", "Reverse", "Take the first three words of the list and write them in capitals!", "Sum: 1+1"]
LLAMA, TOKENIZER = tiny_llama().eval(), tiny_tokenizer()


PROBES = ("cat, dog", "3", "say it again")


@cache
def encoder(kinds: tuple[str, ...], with_reader: bool) -> TextEncoder:
    reader = ReaderConfig() if with_reader else None
    config = EncoderConfig(kinds=kinds, reader=reader, probes=PROBES)  # type: ignore[arg-type]
    return build_encoder(config, LLAMA, TOKENIZER)


# ---- normalisation


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Sort the words", "Sort the words."),
        ("  Sort\n the\twords. ", "Sort the words."),
        ("Is it prime?", "Is it prime?"),
        ("Add 1", "Add 1"),
        ("Größe", "Größe."),
    ],
)
def test_a_full_stop_follows_a_closing_letter(text: str, cleaned: str) -> None:
    assert clean_description(text) == cleaned


@given(st.text(min_size=1, max_size=80).filter(str.strip))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_description(text)
    assert clean_description(once) == once
    assert text_digest(once) == text_digest(text)


def test_the_longest_description_is_clean_once_it_has_its_full_stop() -> None:
    longest = clean_description("x" * MAX_CHARACTERS)
    assert clean_description(longest) == longest == "x" * MAX_CHARACTERS + "."


@pytest.mark.parametrize(("text", "complaint"), [("", "empty"), (" \n", "empty"), ("x" * 4001, "4001 characters")])
def test_empty_and_over_long_descriptions_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(DescriptionError, match=complaint):
        encoder(("llm",), with_reader=False).encode(["fine", text])
    assert MAX_CHARACTERS == 4000


@pytest.mark.parametrize("with_reader", [False, True])
def test_what_a_base_has_no_positions_for_is_cut_off_or_refused(with_reader: bool) -> None:
    llm = encoder(("llm",), with_reader)
    assert isinstance(llm, LlmEncoder)
    chat = PromptFormat.of(TOKENIZER)
    probe = max(len(TOKENIZER.tokenize(f"\n\n{probe}{chat.user_to_assistant}")) for probe in PROBES)
    room = LLAMA.config.max_position_embeddings - probe * with_reader
    letters = room - llm.token_counts(["."])[0][0]  # a token each
    whole, longer = "x" * letters + ".", "x" * letters + ". x."
    assert JointEncoder([llm, llm]).check_whole(["fine", whole])[1] == (room, room)
    found = llm.encode([whole, longer]).states_N_T_D
    torch.testing.assert_close(found[0], found[1])
    for refusing in (llm, JointEncoder([llm])):
        with pytest.raises(DescriptionError, match=f"has {room + 3} tokens, of which the text encoder reads {room}: "):
            refusing.check_whole(["fine", longer])


def test_vectors_have_length_sqrt_dim() -> None:
    vectors = scaled_unit(torch.randn(5, 48, dtype=torch.float16))
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.full((5,), 48**0.5))


@pytest.mark.parametrize("kind", ["sentence", "llm"])
def test_sentence_features_are_one_vector_of_that_length(kind: str) -> None:
    features = encoder((kind,), with_reader=False).encode(TEXTS)
    dim = encoder((kind,), with_reader=False).feature_dim
    assert features.states_N_T_D.shape == (len(TEXTS), 1, dim)
    assert features.mask_N_T.all()
    torch.testing.assert_close(features.states_N_T_D.norm(dim=-1), torch.full((len(TEXTS), 1), dim**0.5))


# ---- each encoder against its source


def test_the_packaged_minilm_is_the_official_one() -> None:
    digest = hashlib.sha256((minilm_path() / "model.safetensors").read_bytes()).hexdigest()
    assert digest == MINILM_SHA256


def test_another_minilm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence, "MINILM_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match=r"not the official 0{64}"):
        minilm_path.__wrapped__()


def test_sentence_vectors_are_those_of_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(minilm_path()), device="cpu").encode(
        [clean_description(text) for text in TEXTS], convert_to_tensor=True, normalize_embeddings=True
    )
    found = encoder(("sentence",), with_reader=False).encode(TEXTS).states_N_T_D[:, 0]
    torch.testing.assert_close(found, expected * 384**0.5, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_llm_vector_is_the_last_token_of_the_last_layer() -> None:
    found = encoder(("llm",), with_reader=False).encode(TEXTS)
    for text, state in zip(TEXTS, found.states_N_T_D, strict=True):
        inputs = TOKENIZER(clean_description(text), return_tensors="pt")
        last = LLAMA.model(**inputs).last_hidden_state[0, -1]
        torch.testing.assert_close(state[0], last / last.norm() * 32**0.5, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_all_probes_in_one_pass_equal_each_probe_in_a_prompt_of_its_own() -> None:
    features = encoder(("llm",), with_reader=True).encode(TEXTS)
    chat = PromptFormat.of(TOKENIZER)
    assert features.mask_N_T.all()
    for row, text in enumerate(TEXTS):
        expected = []
        opening = TOKENIZER(chat.opening + clean_description(text), add_special_tokens=False)["input_ids"]
        for probe in PROBES:
            ids = TOKENIZER(f"\n\n{probe}{chat.user_to_assistant}", add_special_tokens=False)["input_ids"]
            prompt = torch.tensor([opening + ids])  # type: ignore[operator]
            layers = LLAMA.model(prompt, output_hidden_states=True).hidden_states[-2:]
            expected.append(torch.cat([scaled_unit(layer[0, -len(ids) :]) for layer in layers], dim=-1))
        torch.testing.assert_close(features.states_N_T_D[row], torch.cat(expected), atol=1e-4, rtol=1e-4)


def test_probes_must_leave_room_for_a_description() -> None:
    config = EncoderConfig(kinds=("llm",), reader=ReaderConfig(), probes=("x" * 600,))
    with pytest.raises(ConfigError, match=r"has 6\d\d tokens, of which the base model has 512 positions: shorten"):
        build_encoder(config, LLAMA, TOKENIZER)


def test_reading_tokens_needs_probes() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.probes is empty"):
        build_encoder(EncoderConfig(kinds=("llm",), reader=ReaderConfig()), LLAMA, TOKENIZER)


def test_one_hot_codes() -> None:
    codes = OneHotEncoder(["a", "b", "c", "d"])
    features = codes.encode(["c", "a"])
    assert torch.equal(features.states_N_T_D[:, 0], torch.eye(4)[[2, 0]] * 2)
    with pytest.raises(DescriptionError, match="'e' is none of the 4 names"):
        codes.encode(["a", "e"])


def test_joint_tokens_stand_in_blocks_of_their_own() -> None:
    joint = encoder(("sentence", "llm"), with_reader=True)
    words, states = (encoder((kind,), with_reader=True) for kind in ("sentence", "llm"))
    features, first, second = (e.encode(TEXTS) for e in (joint, words, states))
    assert joint.feature_dim == 384 + 2 * 32
    assert torch.equal(features.mask_N_T, torch.cat([first.mask_N_T, second.mask_N_T], dim=1))
    split = first.mask_N_T.shape[1]
    assert torch.equal(features.states_N_T_D[:, :split, :384], first.states_N_T_D)
    assert torch.equal(features.states_N_T_D[:, split:, 384:], second.states_N_T_D)
    assert not features.states_N_T_D[:, :split, 384:].any()
    assert not features.states_N_T_D[:, split:, :384].any()


# ---- batches


every_kind = pytest.mark.parametrize(
    ("kinds", "with_reader"),
    [(("sentence",), False), (("sentence",), True), (("llm",), False), (("llm",), True), (("sentence", "llm"), True)],
)


@every_kind
def test_a_text_reads_the_same_alone_and_in_a_batch(kinds: tuple[str, ...], with_reader: bool) -> None:
    texts = encoder(kinds, with_reader)
    together = texts.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        alone = texts.encode([text])
        found = together.states_N_T_D[row][together.mask_N_T[row]]
        torch.testing.assert_close(found, alone.states_N_T_D[0][alone.mask_N_T[0]], atol=1e-4, rtol=1e-4)


def widths(tokens: Tokens) -> set[int]:
    return {tensor.shape[1] for tensor in tokens.values() if tensor.ndim == 2}


@every_kind
def test_widths_can_be_rounded_up(kinds: tuple[str, ...], with_reader: bool) -> None:
    texts = encoder(kinds, with_reader)
    assert isinstance(texts, TokenEncoder)
    clean = [clean_description(text) for text in TEXTS]
    exact, tokens = texts.tokenize(clean), texts.tokenize(clean, 64)
    longest = {max(counts) for counts in zip(*texts.token_counts(TEXTS), strict=True)}
    assert widths(exact) == longest and widths(tokens) == {-(-width // 64) * 64 for width in longest}
    wide, narrow = texts.read(tokens), texts.read(exact)
    found, expected = (features.states_N_T_D[features.mask_N_T] for features in (wide, narrow))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_no_width_is_beyond_the_models_limit() -> None:
    words = encoder(("sentence",), with_reader=True)
    assert isinstance(words, TokenEncoder)
    assert widths(words.tokenize(["long " * 300], 100)) == {256} and widths(words.tokenize(["short"], 100)) == {100}


# ---- from settings


def test_settings_choose_the_encoder() -> None:
    assert isinstance(encoder(("sentence",), with_reader=False), SentenceEncoder)
    assert isinstance(encoder(("llm",), with_reader=True), LlmEncoder)
    assert isinstance(encoder(("sentence", "llm"), with_reader=True), JointEncoder)
    one_hot = build_encoder(EncoderConfig(), LLAMA, TOKENIZER, names=["a", "b"])
    assert isinstance(one_hot, OneHotEncoder)
    assert one_hot.feature_dim == 2


def test_several_encoders_need_a_reader() -> None:
    with pytest.raises(ConfigError, match=r"need encoder\.reader"):
        build_encoder(EncoderConfig(kinds=("sentence", "llm")), LLAMA, TOKENIZER)


def test_an_unreachable_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubAccessError, match="'nobody/no-such-model' is not in the hub's cache"):
        SentenceEncoder(EncoderConfig(model="nobody/no-such-model"))
