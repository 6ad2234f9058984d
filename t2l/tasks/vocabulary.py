"""The things that the universe talks about, and the inputs made of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

NOUNS: dict[str, tuple[str, ...]] = {
    "animal": tuple("ant ape bat bear cat cow crab deer dog duck eagle elephant fox goat horse iguana lion mouse otter owl pig rabbit shark snake tiger wolf zebra".split()),
    "food": tuple("apple bacon banana bean bread butter cake carrot cheese egg garlic honey jam lemon melon nut olive onion orange pasta pear pie plum rice salad soup".split()),
    "tool": tuple("anvil axe broom chisel clamp drill file hammer hoe iron knife ladder lever needle pliers rake ruler saw scissor shovel spade spoon tape wrench".split()),
    "clothing": tuple("apron belt blouse boot cap cape coat dress glove gown hat hood jacket jeans mitten scarf shirt shoe skirt sock suit tie uniform vest".split()),
    "place": tuple("airport attic bank beach bridge cave church desert farm forest garden harbor hill hotel island lake market museum office park river school tower valley".split()),
}  # fmt: skip
CATEGORY = {noun: category for category, nouns in NOUNS.items() for noun in nouns}
WORDS = tuple(CATEGORY)
NUMBERS = tuple(str(n) for n in range(1, 100))

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
)  # fmt: skip
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
NUMBER_WORDS = _UNITS + [t if u == 0 else f"{t} {_UNITS[u]}" for t in _TENS for u in range(10)]

PEOPLE = tuple(
    "anna ben carla david emma felix gina henry iris jack kate leo maria nick olga paul rosa sam tina victor".split()
)
CITIES = tuple(
    "athens berlin cairo dublin geneva lima lisbon london madrid miami moscow oslo paris prague rome seoul tokyo vienna".split()
)
JOBS = tuple(
    "artist baker doctor driver farmer judge lawyer nurse painter pilot sailor singer teacher waiter writer".split()
)
COLORS = tuple("black blue brown gray green pink purple red white yellow".split())
DAYS = tuple("monday tuesday wednesday thursday friday saturday sunday".split())
VERBS = tuple("bought sold found lost saw made painted cleaned borrowed carried".split())
OBJECTS = tuple(
    "bottles books boxes chairs clocks cups flowers keys lamps letters maps mirrors phones pictures stamps tickets toys watches".split()
)
KEYS = ("name", "age", "city", "job", "color")

ASPECTS: dict[str, tuple[str, ...]] = {
    "food": tuple("soup pasta dessert breakfast steak".split()),
    "service": tuple("waiter staff receptionist manager host".split()),
    "room": tuple("bed bathroom carpet shower balcony".split()),
    "price": tuple("price bill cost fee rate".split()),
    "location": tuple("view neighborhood street area beach".split()),
}
PRAISE = tuple("great lovely excellent perfect wonderful fantastic superb nice pleasant amazing".split())
BLAME = tuple("awful terrible horrible bad poor dreadful disappointing nasty unpleasant disgusting".split())


@dataclass(frozen=True, slots=True)
class Input:
    """One input: the text that a user sends, and the parts that operations work on."""

    text: str
    items: tuple[str, ...] = ()
    slots: dict[str, str] = field(default_factory=dict)


def _words(rng: random.Random) -> Input:
    items = tuple(rng.sample(WORDS, rng.randint(4, 6)))
    return Input(", ".join(items), items)


def _numbers(rng: random.Random) -> Input:
    items = tuple(rng.sample(NUMBERS, rng.randint(4, 6)))
    return Input(", ".join(items), items)


def _mixed(rng: random.Random) -> Input:
    words = rng.randint(2, 3)
    items = rng.sample(WORDS, words) + rng.sample(NUMBERS, rng.randint(2, 3))
    rng.shuffle(items)
    return Input(", ".join(items), tuple(items))


def _letters(rng: random.Random) -> Input:
    items = tuple(rng.sample("aaeeiioubcdfghjklmnpqrstvwxyz", rng.randint(4, 7)))
    return Input("".join(items), items)


def _record(rng: random.Random) -> Input:
    values = {
        "name": rng.choice(PEOPLE),
        "age": str(rng.randint(18, 90)),
        "city": rng.choice(CITIES),
        "job": rng.choice(JOBS),
        "color": rng.choice(COLORS),
    }
    keys = rng.sample(KEYS, len(KEYS))
    slots = {key: values[key] for key in keys}
    return Input(", ".join(f"{key}: {value}" for key, value in slots.items()), slots=slots)


def _event(rng: random.Random) -> Input:
    slots = {
        "who": rng.choice(PEOPLE),
        "what": rng.choice(OBJECTS),
        "how_many": str(rng.randint(2, 99)),
        "where": rng.choice(CITIES),
        "when": rng.choice(DAYS),
    }
    verb, order = rng.choice(VERBS), rng.randrange(4)
    core = f"{slots['who']} {verb} {slots['how_many']} {slots['what']}"
    where, when = f"in {slots['where']}", f"on {slots['when']}"
    text = (f"{core} {where} {when}.", f"{core} {when} {where}.", f"{when} {core} {where}.", f"{where} {core} {when}.")[
        order
    ]
    return Input(text, slots=slots)


def _review(rng: random.Random) -> Input:
    aspects = rng.sample(list(ASPECTS), 3)
    slots = {aspect: rng.choice(("positive", "negative")) for aspect in aspects}
    parts = [
        f"the {rng.choice(ASPECTS[aspect])} was {rng.choice(PRAISE if slots[aspect] == 'positive' else BLAME)}"
        for aspect in aspects
    ]
    return Input(f"{parts[0]}, {parts[1]} and {parts[2]}.", slots=slots)


@dataclass(frozen=True)
class Domain:
    """A kind of input: how it is drawn, how its items are joined again, and what people call them."""

    draw: Callable[[random.Random], Input]
    separator: str
    item_names: tuple[tuple[str, str], ...]
    """(singular, plural) nouns for one item."""


DOMAINS: dict[str, Domain] = {
    "words": Domain(_words, ", ", (("word", "words"), ("item", "items"), ("term", "terms"), ("entry", "entries"))),
    "numbers": Domain(
        _numbers, ", ", (("number", "numbers"), ("value", "values"), ("figure", "figures"), ("integer", "integers"))
    ),
    "letters": Domain(_letters, "", (("letter", "letters"), ("character", "characters"))),
    "mixed": Domain(
        _mixed, ", ", (("item", "items"), ("entry", "entries"), ("element", "elements"), ("thing", "things"))
    ),
    "record": Domain(_record, ", ", (("value", "values"), ("detail", "details"), ("field", "fields"))),
    "event": Domain(_event, ", ", (("detail", "details"), ("fact", "facts"))),
    "review": Domain(_review, ", ", (("opinion", "opinions"),)),
}
