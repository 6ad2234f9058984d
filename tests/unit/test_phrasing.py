"""Held-out wording is held out: rules that any two phrases of one operation must keep."""

import random
import re

import pytest

from t2l.tasks.operations import PICKS, RENDERS
from t2l.tasks.phrasing import SEEN, UNSEEN, Describer, load_phrases
from t2l.tasks.universe import universe

STOP_WORDS = frozenset(
    "a an the of in on at to by with for from and or as it its is are be that this these those them then than you your "
    "me my i we only just each every all any one ones into out up so do does which what who where when how not no but "
    "if their there here".split()
)
OPERATIONS = [(kind, name) for kind, operations in load_phrases().items() for name in operations]


def _tokens(phrase: str) -> list[str]:
    return re.findall(r"\{?[a-z0-9']+\}?", phrase.lower())


def _content(phrase: str) -> set[str]:
    return {token for token in _tokens(phrase) if token not in STOP_WORDS and not token.startswith("{")}


def _trigrams(phrase: str) -> set[tuple[str, ...]]:
    tokens = _tokens(phrase)
    return {tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)}


def test_every_operation_has_phrases() -> None:
    picks = {part for table in PICKS.values() for pick in table for part in pick.split("+")}
    renders = {render for table in RENDERS.values() for render in table}
    assert set(load_phrases()["picks"]) == picks and set(load_phrases()["renders"]) == renders


@pytest.mark.parametrize(("kind", "name"), OPERATIONS)
def test_unseen_phrases_have_their_own_wording(kind: str, name: str) -> None:
    phrases = load_phrases()[kind][name]
    assert min(map(len, (phrases.noun, phrases.command))) >= 8
    assert min(map(len, (phrases.unseen_noun, phrases.unseen_command))) >= 4
    for unseen in (*phrases.unseen_noun, *phrases.unseen_command):
        words = _content(unseen)
        for seen in (*phrases.noun, *phrases.command):
            shared = words & _content(seen)
            assert not _trigrams(unseen) & _trigrams(seen), (unseen, seen)
            assert not words or (not words <= _content(seen) and len(shared) <= len(words) / 2), (unseen, seen)


@pytest.mark.parametrize("field", ["two_steps", "commands", "nouns", "pairs", "fetch", "contexts", "examples"])
def test_unseen_joins_are_other_joins(field: str) -> None:
    seen, unseen = getattr(SEEN, field), getattr(UNSEEN, field)
    assert not set(seen) & set(unseen)
    words = {frozenset(_content(re.sub(r"\{\w\}", "", join))) for join in seen} - {frozenset()}
    for join in unseen:
        own = _content(re.sub(r"\{\w\}", "", join))
        assert not any(own and own <= other for other in words), join


def test_no_unseen_phrase_reaches_a_training_description() -> None:
    phrases = load_phrases()
    for task in universe(None).train[::40]:
        _, pick, render = task.name.split("/")
        held_out = [p for part in pick.split("+") for p in phrases["picks"][part].unseen_command]
        held_out += phrases["renders"][render].unseen_command
        probes = [re.split(r"\{\w+\}", phrase)[0].strip().lower() for phrase in held_out]
        for text in task.descriptions:
            assert not any(len(probe.split()) >= 3 and probe in text.lower() for probe in probes), (text, task.name)


def test_descriptions_fill_every_placeholder() -> None:
    rng = random.Random(0)
    for task in universe(None).train[::25]:
        describer = Describer(*task.name.split("/"))
        for unseen in (False, True):
            text = describer.describe(rng, task.train[0], unseen)
            assert text and not re.search(r"\{(x|s|r|c|n|a|b|d|i|o|item|items)\}", text), text
