"""Descriptions of a task, written by a language model from examples of it: any endpoint of OpenAI's API.

As in the paper: each request shows a few of the examples, drawn anew, and asks for many descriptions at once, of what
the task is about and what it takes. What breaks the rules is refused here, whatever the model was told: descriptions
that quote an example, give the answer's format away, or say what another one says. Imports torch nowhere.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from t2l.errors import DescriptionError, EndpointError
from t2l.tasks.task import Example

if TYPE_CHECKING:
    from openai import OpenAI

BATCH = 20
"""Descriptions asked for at once."""
SHOWN = 5
"""Examples in a request."""
PATIENCE = 5
"""So many requests in a row without a new description end it all."""
_MIN_WORDS, _MAX_WORDS = 5, 120
_QUOTED_WORDS = 6
"""A run of so many words that an example has too is a quotation."""
_MAX_LABELS = 10
"""A task with no more distinct answers has labels, which a description must not list."""
_TEMPERATURE = 1.0

_REQUEST = """Below are examples of one task: what is given, and what is to be answered.

{examples}

Write {number} descriptions of this task, numbered, each on a line of its own. Say what the task is about, and \
which knowledge, skill or reasoning it takes, so that somebody who has never seen it knows what to do. Speak of the \
task as a whole: mention no single example, and quote nothing from the examples. Keep silent about the form of the \
answers: not how long they are, not which words, letters or options they are chosen from, not how they are laid out. \
Make each description different from the others in structure, length, choice of words and tone."""
_UNLIKE = "\n\nThese are there already; write others:\n{known}"

_FORMAT = re.compile(
    r"multiple[- ]choice|true[ -/]+(?:or )?false|yes[ -/]+(?:or )?no\b|json|comma[- ]separated|bullet|"
    r"\b(?:answer|respond|response|reply|output|format)\w*\b[^.;]{0,40}\b(?:format|word|letter|number|digit|label|"
    r"sentence|line|list|string|option)s?\b|"
    r"\b(?:in|with|by|as|than|exactly|only) (?:just )?(?:one |a single |one single )"
    r"(?:word|letter|number|digit|label|character|token|sentence)\b|"
    r"\b(?:option|choice|label|letter)s? \(?(?-i:[A-E1-4])\b|(?-i:\(A\)|\bA, B,)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"\s*(?:(?:description|\*\*)\s*)*(?:\d{1,3}\s*[.:)]|[-*•])[\s*]*", re.IGNORECASE)
_UNWILLING = re.compile(r"i(?:'|’)?m sorry|i am sorry|i can(?:no|')t|i am unable|as an ai\b", re.IGNORECASE)


@dataclass
class Progress:
    """What there is so far. refused: how many descriptions, by reason."""

    descriptions: list[str]
    wanted: int
    requests: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.refused.most_common())
        refused = f"; refused: {reasons}" if reasons else ""
        requests = "1 request" if self.requests == 1 else f"{self.requests} requests"
        return f"{len(self.descriptions)} of {self.wanted} descriptions after {requests}{refused}"


def describe(
    ask: Callable[[str], str], examples: Sequence[Example], known: Sequence[str], wanted: int, seed: int = 0
) -> Iterator[Progress]:
    """Go on from the known descriptions until there are as many as wanted; yields after each request.

    ask: answers a prompt. Raises DescriptionError if that gives nothing new PATIENCE times in a row.
    """
    rules = Rules(examples, known)
    progress = Progress(list(known), wanted)
    rng = random.Random(seed)
    fruitless = 0
    while len(progress.descriptions) < wanted:
        before = len(progress.descriptions)
        for text in lines_of(ask(_request(examples, progress.descriptions, rng))):
            if len(progress.descriptions) == wanted:
                break
            if (reason := rules.refuse(text)) is not None:
                progress.refused[reason] += 1
            else:
                progress.descriptions.append(text)
        progress.requests += 1
        yield progress
        fruitless = fruitless + 1 if len(progress.descriptions) == before else 0
        if fruitless == PATIENCE:
            raise DescriptionError(
                f"the model wrote {progress}, and nothing new in the last {PATIENCE}: ask another model, or give more "
                "or other examples"
            )


class Rules:
    """What makes a description unusable, for a task and the descriptions of it that there are."""

    def __init__(self, examples: Sequence[Example], known: Sequence[str]) -> None:
        texts = [text for example in examples for text in (example.input, *example.answers)]
        self._quotations = {run for text in texts for run in _runs(_words(text))}
        labels = {_words(example.output) for example in examples}
        self._labels = labels if 1 < len(labels) <= min(_MAX_LABELS, len(examples) - 1) else set()
        self._known = {frozenset(_words(text)) for text in known}

    def refuse(self, text: str) -> str | None:
        """Why not to take a description, in a few words; one that is taken is known from then on."""
        words = _words(text)
        if _UNWILLING.search(text):
            return "that decline"
        if not _MIN_WORDS <= len(words) <= _MAX_WORDS:
            return "too short or too long"
        if not self._quotations.isdisjoint(_runs(words, with_short=True)):
            return "that quote an example"
        if _FORMAT.search(text) or self._lists_labels(words):
            return "that give the answer's format away"
        if frozenset(words) in self._known:
            return "that say what another says"
        self._known.add(frozenset(words))
        return None

    def _lists_labels(self, words: tuple[str, ...]) -> bool:
        return bool(self._labels) and all(_contains(words, label) for label in self._labels)


def lines_of(reply: str) -> list[str]:
    """The descriptions in a reply, without their numbers: what stands around a numbered list is no part of it."""
    lines = [line for line in reply.splitlines() if line.strip()]
    numbered = [line for line in lines if _NUMBERED.match(line)]
    texts = (_NUMBERED.sub("", line, count=1) for line in numbered or lines)
    return [text.strip(' \t*"“”') for text in texts if not text.rstrip().endswith(":")]


def endpoint(client: "OpenAI", model: str) -> Callable[[str], str]:
    """Asks a model at an endpoint. What it raises is an EndpointError that names the address."""
    import openai

    def ask(prompt: str) -> str:
        try:
            reply = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": prompt}], temperature=_TEMPERATURE
            )
        except openai.APIConnectionError as error:
            raise EndpointError(f"{client.base_url} cannot be reached ({error}): check --base-url") from None
        except openai.AuthenticationError:
            raise EndpointError(f"{client.base_url} wants another key: set OPENAI_API_KEY") from None
        except openai.APIStatusError as error:
            reason = " ".join(str(error.message).split())
            raise EndpointError(f"{client.base_url} refused the request ({reason})") from None
        return (reply.choices[0].message.content or "") if reply.choices else ""

    return ask


def _request(examples: Sequence[Example], known: Sequence[str], rng: random.Random) -> str:
    shown = rng.sample(list(examples), min(SHOWN, len(examples)))
    text = "\n\n".join(f"Given: {example.input}\nAnswer: {example.output}" for example in shown)
    request = _REQUEST.format(examples=text, number=BATCH)
    if known:
        request += _UNLIKE.format(known="\n".join(rng.sample(list(known), min(SHOWN, len(known)))))
    return request


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def _runs(words: tuple[str, ...], with_short: bool = False) -> Iterator[tuple[str, ...]]:
    """All runs of _QUOTED_WORDS words; of a shorter text its whole, if that is long enough to be recognised."""
    shortest = 3
    lengths = range(shortest, _QUOTED_WORDS + 1) if with_short else [min(len(words), _QUOTED_WORDS)]
    for length in lengths:
        if length >= shortest:
            yield from (words[start : start + length] for start in range(len(words) - length + 1))


def _contains(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(words[start : start + len(part)] == part for start in range(len(words) - len(part) + 1))
