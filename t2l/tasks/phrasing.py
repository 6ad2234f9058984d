"""How people describe the universe's tasks: hand-written phrases for each operation, and many ways to join two steps.

Phrases lie in ``phrases/*.yaml``: nouns and commands for a pick, commands and nouns (around ``{x}``) for a render. The
``unseen_*`` lists are held out: they share no wording with the others (tested) and are never used to train T2L.
"""

import random
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from t2l.tasks.task import Example
from t2l.tasks.vocabulary import DOMAINS

PHRASE_FILES = ("picks_order", "picks_filter", "picks_slots", "renders_format", "renders_value")
SINGLE_PICKS = frozenset(
    "first last second second_last longest shortest largest smallest name age city job color first_value last_value "
    "who what how_many where when food service room price location first_opinion last_opinion overall".split()
)


@dataclass(frozen=True)
class Wording:
    """The joining words of one kind of description, seen or unseen."""

    two_steps: tuple[str, ...]
    """Around ``{s}``, a pick's command, and ``{r}``, a render's command about a pronoun."""
    commands: tuple[str, ...]
    """Around ``{c}``, one command."""
    nouns: tuple[str, ...]
    """Around ``{n}``, a noun phrase."""
    pairs: tuple[str, ...]
    """Two noun phrases ``{a}`` and ``{b}`` as one."""
    fetch: tuple[str, ...]
    """A command made of a noun phrase ``{n}``."""
    contexts: tuple[str, ...]
    """What the input is; may stand before any description."""
    examples: tuple[str, ...]
    """A description ``{d}`` with one worked example, ``{i}`` and ``{o}``."""


SEEN = Wording(
    two_steps=(
        "{s}, then {r}", "{s} and {r}", "first {s}, then {r}", "{s}, and after that {r}", "{s}; {r}", "{s}. {r}",
        "first {s}. second, {r}", "step 1: {s}. step 2: {r}", "please {s} and then {r}", "could you {s} and {r}?",
        "i need you to {s}, then {r}", "{s}. when that is done, {r}", "{s}. afterwards {r}", "{s} before you {r}",
        "hey, can you {s} for me? then {r}, thanks", "the task: {s}, and then {r}", "{s}, next {r}",
        "to answer, {s} and then {r}", "{r}, but before that {s}", "so what you do is {s}, and then you {r}",
        "{s} & {r}", "{s} -> {r}", "ok so {s} and also {r}", "1) {s} 2) {r}", "{s}, {r}", "{s}, and finally {r}", "{s} | {r}",
        "after you {s}, {r}", "once you {s}, {r}", "{r} after you {s}", "from the input, {s}. now {r}", "{s}, then just {r}",
        "pls {s} then {r}", "{s} first and then {r}", "what i want: {s}, and {r}", "{s}. for the output, {r}",
    ),
    commands=(
        "{c}", "{c}", "{c}", "please {c}", "{c}, please", "can you {c}?", "could you {c} for me?", "your task is to {c}",
        "i want you to {c}", "the job is simple: {c}", "you should {c}", "{c} and say nothing else", "just {c}",
        "hi! {c}", "{c} pls", "for every line i send, {c}", "from now on {c}", "your output: {c}", "{c}, that's all", "we need to {c}",
    ),
    nouns=(
        "{n}", "{n}", "{n}", "give me {n}", "i want {n}", "what i need is {n}", "write {n}", "show {n}", "{n}, please",
        "output only {n}", "reply with {n}", "the output should be {n}", "return {n}", "answer with {n}", "produce {n}",
        "{n} pls", "tell me {n}", "what is {n}?", "what's {n}?", "i only care about {n}", "can i get {n}?", "looking for {n}", "print {n}",
        "could you tell me {n}?", "i'm after {n}", "only {n} and no more", "find out {n}", "{n} is what i want", "send back {n}",
    ),
    pairs=("{a} and {b}", "{a} and then {b}", "{a} followed by {b}", "{a} plus {b}", "both {a} and {b}, in that order"),
    fetch=("find {n}", "take {n}", "extract {n}", "pick out {n}", "get {n}", "look for {n}"),
    contexts=(
        "you are given some {items}. {d}", "given a few {items}: {d}", "the input has several {items}. {d}",
        "{d} (the input is made of {items})", "here come some {items}. {d}", "with these {items}: {d}",
    ),
    examples=("{d}. example: {i} -> {o}", "{d}. for example, {i} becomes {o}", "{d}, e.g. {i} => {o}"),
)  # fmt: skip

UNSEEN = Wording(
    two_steps=(
        "begin with this: {s}. next up: {r}", "two things to do: {s}; finally, {r}", "start off like so: {s}. finish like so: {r}",
        "would be great if you'd {s}, and later {r}", "{s} - and once you're finished, {r}", "initially {s}; subsequently {r}",
        "do this in order - {s} - {r}",
    ),
    commands=("kindly {c}", "all you have to do: {c}", "would be nice if you'd {c}", "here's the deal: {c}", "go ahead, {c}"),
    nouns=("i'd love to see {n}", "nothing but {n}", "let's have {n}", "my boss is asking for {n}", "respond using {n}"),
    pairs=("{a} along with {b}", "{a}, with {b} after it", "{a} as well as {b}"),
    fetch=("track down {n}", "fetch {n}", "hunt for {n}"),
    contexts=("someone hands over {items}. {d}", "looking at these {items} - {d}"),
    examples=("{d} (so {i} would turn into {o})", "{d}; think {i} giving {o}"),
)  # fmt: skip


@dataclass(frozen=True)
class Phrases:
    """The hand-written phrases of one operation."""

    noun: tuple[str, ...]
    command: tuple[str, ...]
    unseen_noun: tuple[str, ...]
    unseen_command: tuple[str, ...]

    def nouns(self, unseen: bool) -> tuple[str, ...]:
        return self.unseen_noun if unseen else self.noun

    def commands(self, unseen: bool) -> tuple[str, ...]:
        return self.unseen_command if unseen else self.command


@cache
def load_phrases() -> dict[str, dict[str, Phrases]]:
    """``{"picks": {operation: Phrases}, "renders": {operation: Phrases}}`` from the hand-written files."""
    found: dict[str, dict[str, Phrases]] = {"picks": {}, "renders": {}}
    for name in PHRASE_FILES:
        text = files("t2l.tasks").joinpath("phrases", f"{name}.yaml").read_text()
        for kind, operations in yaml.load(text, Loader=yaml.CSafeLoader).items():
            for operation, lists in operations.items():
                found[kind][operation] = Phrases(**{key: tuple(values) for key, values in lists.items()})
    return found


class Describer:
    """Writes descriptions of one task, a (domain, pick, render)."""

    def __init__(self, domain: str, pick: str, render: str):
        self.domain, self.pick, self.render = domain, pick, render
        phrases = load_phrases()
        self._picks = [phrases["picks"][name] for name in pick.split("+")]
        self._render = phrases["renders"][render]

    def describe(self, rng: random.Random, example: Example, unseen: bool) -> str:
        """One description; ``example`` is only written into the few that explain by example."""
        wording = UNSEEN if unseen else SEEN
        item, items = rng.choice(DOMAINS[self.domain].item_names)
        text = self._body(rng, wording, unseen).replace("{items}", items).replace("{item}", item)
        if rng.random() < 0.15:
            text = rng.choice(wording.contexts).format(d=text, items=items)
        text = text.rstrip(".")
        if rng.random() < 0.1 and "\n" not in example.output:
            text = rng.choice(wording.examples).format(d=text, i=example.input, o=example.output)
        elif not text.endswith("?") and rng.random() < 0.5:
            text += "."
        return text[0].upper() + text[1:] if rng.random() < 0.5 else text

    def _body(self, rng: random.Random, wording: Wording, unseen: bool) -> str:
        if self.render == "plain" and rng.random() < 0.7:
            if self.pick != "all" and rng.random() < 0.5:
                return rng.choice(wording.commands).replace("{c}", self._pick_command(rng, wording, unseen))
            return rng.choice(wording.nouns).replace("{n}", self._pick_noun(rng, wording, unseen))
        style = rng.random()
        if style < 0.4 and self.pick != "all":
            command = rng.choice(self._render.commands(unseen)).replace("{x}", self._pronoun(rng))
            join = rng.choice(wording.two_steps)
            return join.replace("{s}", self._pick_command(rng, wording, unseen)).replace("{r}", command)
        noun = self._pick_noun(rng, wording, unseen)
        if style < 0.72:
            command = rng.choice(self._render.commands(unseen)).replace("{x}", noun)
            return rng.choice(wording.commands).replace("{c}", command)
        return rng.choice(wording.nouns).replace("{n}", rng.choice(self._render.nouns(unseen)).replace("{x}", noun))

    def _pick_noun(self, rng: random.Random, wording: Wording, unseen: bool) -> str:
        nouns = [rng.choice(phrases.nouns(unseen)) for phrases in self._picks]
        return (
            nouns[0] if len(nouns) == 1 else rng.choice(wording.pairs).replace("{a}", nouns[0]).replace("{b}", nouns[1])
        )

    def _pick_command(self, rng: random.Random, wording: Wording, unseen: bool) -> str:
        if len(self._picks) == 1:
            return rng.choice(self._picks[0].commands(unseen))
        return rng.choice(wording.fetch).replace("{n}", self._pick_noun(rng, wording, unseen))

    def _pronoun(self, rng: random.Random) -> str:
        single = self.pick in SINGLE_PICKS
        return rng.choice(
            ("it", "it", "the result", "that", "what you found")
            if single
            else ("them", "them", "the result", "those", "what you have")
        )
