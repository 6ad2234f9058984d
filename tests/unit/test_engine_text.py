"""Streamed text is the whole text, whatever pieces it comes in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from serve.engine.text import AnswerText, Detokenizer, StopStrings

BYTES = tiny_tokenizer().backend_tokenizer


def ids_of(tokenizer: Tokenizer, *pieces: str) -> list[int]:
    ids = [tokenizer.token_to_id(piece) for piece in pieces]
    return [token for token in ids if token is not None]


def sentencepiece() -> Tokenizer:
    """As Llama 2 and Gemma have it: words with a leading space, bytes for what is unknown."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "b", "▁b"]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


SENTENCEPIECE = sentencepiece()


def byte_ids(text: str) -> list[int]:
    return ids_of(SENTENCEPIECE, *(f"<0x{byte:02X}>" for byte in text.encode()))


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    text = Detokenizer(tokenizer)
    return [*(text.push(token) for token in ids), text.end()]


@given(st.lists(st.integers(0, BYTES.get_vocab_size() - 1)))
def test_any_tokens_give_the_text_of_them_all(ids: list[int]) -> None:
    assert "".join(streamed(BYTES, ids)) == BYTES.decode(ids)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")))
def test_no_character_is_let_out_in_part(text: str) -> None:
    ids = BYTES.encode(text, add_special_tokens=False).ids
    pieces = streamed(BYTES, ids)
    assert "".join(pieces) == BYTES.decode(ids)
    assert "\ufffd" not in "".join(pieces)


@given(st.text(st.sampled_from("ab é漢🙂"), min_size=1).filter(lambda text: not text.startswith(" ")))
def test_byte_tokens_of_sentencepiece_make_whole_characters(text: str) -> None:
    assert "".join(streamed(SENTENCEPIECE, byte_ids(text))) == text


@given(st.lists(st.integers(0, SENTENCEPIECE.get_vocab_size() - 1)))
def test_byte_tokens_that_form_no_text_do_no_harm(ids: list[int]) -> None:
    text = Detokenizer(SENTENCEPIECE)
    for token in ids:
        text.push(token)
    clear = ids_of(SENTENCEPIECE, "▁a", "▁b")
    assert "".join(text.push(token) for token in clear).endswith(" a b" if ids else "a b")


def test_spaces_between_words_survive_and_special_tokens_do_not_show() -> None:
    ids = ids_of(SENTENCEPIECE, "▁a", "b", "▁b", "▁a")
    assert streamed(SENTENCEPIECE, ids) == ["a", "b", " b", " a", ""]
    assert streamed(BYTES, [*BYTES.encode("hi").ids, *ids_of(BYTES, "<|end|>")]) == ["h", "i", "", ""]


def up_to_stop(text: str, stop: list[str]) -> str:
    """Character by character, as a reader would: the stop string that is complete first ends the text."""
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)]
    return text


@given(
    st.lists(st.text("abc", max_size=5), max_size=12),
    st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_stop_strings_cut_the_same_text_in_any_pieces(pieces: list[str], stop: list[str]) -> None:
    ours = StopStrings(stop)
    shown = ""
    for piece in pieces:
        shown += ours.push(piece)
        assert up_to_stop("".join(pieces), stop).startswith(shown)
    assert shown + ours.end() == up_to_stop("".join(pieces), stop)
    assert ours.found == any(s in "".join(pieces) for s in stop)


@given(st.text("ab", max_size=8), st.text("ab", min_size=1, max_size=4))
def test_no_more_is_held_back_than_a_stop_string_may_claim(text: str, stop: str) -> None:
    ours = StopStrings([stop])
    shown = ours.push(text)
    if not ours.found:
        held = text[len(shown) :]
        assert stop.startswith(held)
        assert held == max((text[i:] for i in range(len(text) + 1) if stop.startswith(text[i:])), key=len)


@pytest.mark.parametrize("split", range(1, 9))
def test_stop_strings_work_across_tokens(split: int) -> None:
    answer = AnswerText(BYTES, ("12\n", "🙂"))
    shown = "".join(answer.push(token) for token in BYTES.encode("ab 1 🙂 12\nrest").ids[: split + 4])
    assert "ab 1 ".startswith(shown)
    assert answer.stopped == (split >= 5)


def test_an_end_that_no_stop_string_claims_is_given_out() -> None:
    answer = AnswerText(BYTES, ("12\n",))
    ids = [*BYTES.encode("a 12").ids, BYTES.encode("🙂").ids[0]]
    assert "".join(answer.push(token) for token in ids) == "a "
    assert answer.end() == "12\ufffd"
    assert not answer.stopped
