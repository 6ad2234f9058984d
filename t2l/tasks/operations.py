"""The skills of the embedded universe: operations that pick items, then operations that render them.

A task is one pick followed by one render. A pick maps the items of an input to a shorter or reordered list; a render
turns that list into the answer. Two stages, so that a description never has to encode the order of two operations.
What an operation is called in plain words lives in ``phrases/``; what it does is here and nowhere else.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from t2l.tasks.vocabulary import CATEGORY, KEYS, NUMBER_WORDS, Input

Pick = Callable[[Input], list[str]]
Render = Callable[[list[str], str], str]

POSITIONAL: Mapping[str, Callable[[list[str]], list[str]]] = {
    "all": lambda xs: xs,
    "first": lambda xs: xs[:1],
    "last": lambda xs: xs[-1:],
    "second": lambda xs: xs[1:2],
    "second_last": lambda xs: xs[-2:-1],
    "first_two": lambda xs: xs[:2],
    "last_two": lambda xs: xs[-2:],
    "first_three": lambda xs: xs[:3],
    "drop_first": lambda xs: xs[1:],
    "drop_last": lambda xs: xs[:-1],
    "drop_ends": lambda xs: xs[1:-1],
    "ends": lambda xs: [xs[0], xs[-1]],
    "reverse": lambda xs: xs[::-1],
    "odd_positions": lambda xs: xs[::2],
    "even_positions": lambda xs: xs[1::2],
    "swap_ends": lambda xs: [xs[-1], *xs[1:-1], xs[0]],
    "first_to_end": lambda xs: [*xs[1:], xs[0]],
    "last_to_front": lambda xs: [xs[-1], *xs[:-1]],
}

WORD_PICKS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "alphabetical": sorted,
    "reverse_alphabetical": lambda xs: sorted(xs, reverse=True),
    "longest": lambda xs: [max(xs, key=len)],
    "shortest": lambda xs: [min(xs, key=len)],
    "vowel_start": lambda xs: [x for x in xs if x[0] in "aeiou"],
    "short_words": lambda xs: [x for x in xs if len(x) <= 4],
    "long_words": lambda xs: [x for x in xs if len(x) >= 6],
    "animals": lambda xs: [x for x in xs if CATEGORY[x] == "animal"],
    "foods": lambda xs: [x for x in xs if CATEGORY[x] == "food"],
    "tools": lambda xs: [x for x in xs if CATEGORY[x] == "tool"],
    "clothes": lambda xs: [x for x in xs if CATEGORY[x] == "clothing"],
}

NUMBER_PICKS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "ascending": lambda xs: sorted(xs, key=int),
    "descending": lambda xs: sorted(xs, key=int, reverse=True),
    "largest": lambda xs: [max(xs, key=int)],
    "smallest": lambda xs: [min(xs, key=int)],
    "two_largest": lambda xs: sorted(xs, key=int, reverse=True)[:2],
    "two_smallest": lambda xs: sorted(xs, key=int)[:2],
    "even": lambda xs: [x for x in xs if int(x) % 2 == 0],
    "odd": lambda xs: [x for x in xs if int(x) % 2 == 1],
    "above_fifty": lambda xs: [x for x in xs if int(x) > 50],
    "below_fifty": lambda xs: [x for x in xs if int(x) < 50],
}

LETTER_PICKS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "alphabetical": sorted,
    "reverse_alphabetical": lambda xs: sorted(xs, reverse=True),
    "vowels": lambda xs: [x for x in xs if x in "aeiou"],
    "consonants": lambda xs: [x for x in xs if x not in "aeiou"],
}

MIXED_PICKS: Mapping[str, Callable[[list[str]], list[str]]] = {
    "only_words": lambda xs: [x for x in xs if x.isalpha()],
    "only_numbers": lambda xs: [x for x in xs if x.isdigit()],
    "words_first": lambda xs: sorted(xs, key=str.isdigit),
    "numbers_first": lambda xs: sorted(xs, key=str.isalpha),
}


def _from_items(operation: Callable[[list[str]], list[str]]) -> Pick:
    return lambda given: operation(list(given.items))


def _from_slots(*names: str) -> Pick:
    return lambda given: [given.slots[name] for name in names if name in given.slots]


def _list_picks(*groups: Mapping[str, Callable[[list[str]], list[str]]]) -> dict[str, Pick]:
    return {name: _from_items(operation) for group in groups for name, operation in group.items()}


def _slot_picks(singles: tuple[str, ...], pairs: tuple[tuple[str, str], ...]) -> dict[str, Pick]:
    return {name: _from_slots(name) for name in singles} | {f"{a}+{b}": _from_slots(a, b) for a, b in pairs}


RECORD_PAIRS = (
    ("name", "age"), ("name", "city"), ("city", "job"), ("job", "age"), ("age", "name"), ("city", "name"),
    ("job", "color"),
)  # fmt: skip
EVENT_PAIRS = (
    ("who", "where"),
    ("who", "what"),
    ("when", "where"),
    ("where", "who"),
    ("what", "how_many"),
    ("when", "who"),
)
ASPECT_PAIRS = (("food", "service"), ("room", "price"), ("location", "food"))


PICKS: dict[str, dict[str, Pick]] = {
    "words": _list_picks(POSITIONAL, WORD_PICKS),
    "numbers": _list_picks(POSITIONAL, NUMBER_PICKS),
    "letters": _list_picks(POSITIONAL, LETTER_PICKS),
    "mixed": _list_picks(POSITIONAL, MIXED_PICKS),
    "record": _slot_picks(KEYS, RECORD_PAIRS)
    | {
        "first_value": lambda given: [next(iter(given.slots.values()))],
        "last_value": lambda given: [list(given.slots.values())[-1]],
        "all_values": lambda given: list(given.slots.values()),
        "all_keys": lambda given: list(given.slots),
    },
    "event": _slot_picks(("who", "what", "how_many", "where", "when"), EVENT_PAIRS),
    "review": _slot_picks(("food", "service", "room", "price", "location"), ASPECT_PAIRS)
    | {
        "first_opinion": lambda given: [next(iter(given.slots.values()))],
        "last_opinion": lambda given: [list(given.slots.values())[-1]],
        "overall": lambda given: [Counter(given.slots.values()).most_common(1)[0][0]],
    },
}
"""Domain -> pick -> function from an input to the items it keeps."""


def _joined(separator: str) -> Render:
    return lambda xs, _: separator.join(xs)


def _each(change: Callable[[str], str]) -> Render:
    return lambda xs, join: join.join(change(x) for x in xs)


def _listed(change: Callable[[str], str], separator: str) -> Render:
    return lambda xs, _: separator.join(change(x) for x in xs)


FORMATS: dict[str, Render] = {
    "plain": lambda xs, join: join.join(xs),
    "dashes": _joined("-"),
    "spaces": _joined(" "),
    "slashes": _joined("/"),
    "and": _joined(" and "),
    "semicolons": _joined("; "),
    "lines": _joined("\n"),
    "arrows": _joined(" > "),
    "plus_signs": _joined(" + "),
    "pipes": _joined(" | "),
    "underscores": _joined("_"),
    "square_brackets": lambda xs, join: f"[{join.join(xs)}]",
    "parentheses": _listed("({})".format, " "),
    "quotes": _listed('"{}"'.format, ", "),
    "stars": _listed("*{}*".format, " "),
    "hashtags": _listed("#{}".format, " "),
    "bullets": _listed("- {}".format, "\n"),
    "numbered": lambda xs, _: " ".join(f"{i}. {x}" for i, x in enumerate(xs, 1)),
    "count": lambda xs, _: str(len(xs)),
    "twice": lambda xs, join: join.join(x for x in xs for _ in range(2)),
    "answer_prefix": lambda xs, join: f"answer: {join.join(xs)}",
    "exclamation": lambda xs, join: f"{join.join(xs)}!",
    "sentence": lambda xs, join: f"the answer is {join.join(xs)}.",
}

WORD_RENDERS: dict[str, Render] = {
    "uppercase": _each(str.upper),
    "capitalized": _each(str.capitalize),
    "length": _each(lambda x: str(len(x))),
    "first_letter": _each(lambda x: x[0]),
    "last_letter": _each(lambda x: x[-1]),
    "category": _each(lambda x: CATEGORY[x]),
    "plural": _each(lambda x: x + ("es" if x.endswith(("s", "x", "ch", "sh")) else "s")),
    "spelled": _each("-".join),
}

NUMBER_RENDERS: dict[str, Render] = {
    "in_words": _each(lambda x: NUMBER_WORDS[int(x)]),
    "plus_one": _each(lambda x: str(int(x) + 1)),
    "minus_one": _each(lambda x: str(int(x) - 1)),
    "plus_ten": _each(lambda x: str(int(x) + 10)),
    "doubled": _each(lambda x: str(int(x) * 2)),
    "times_ten": _each(lambda x: str(int(x) * 10)),
    "negative": _each("-{}".format),
    "parity": _each(lambda x: "odd" if int(x) % 2 else "even"),
    "tens_digit": _each(lambda x: str(int(x) // 10)),
    "ones_digit": _each(lambda x: str(int(x) % 10)),
    "rounded_down": _each(lambda x: str(int(x) // 10 * 10)),
    "big_or_small": _each(lambda x: "big" if int(x) > 50 else "small"),
}

LETTER_RENDERS: dict[str, Render] = {
    "uppercase": _each(str.upper),
    "next_letter": _each(lambda x: chr((ord(x) - 96) % 26 + 97)),
    "previous_letter": _each(lambda x: chr((ord(x) - 98) % 26 + 97)),
    "alphabet_position": _listed(lambda x: str(ord(x) - 96), ", "),
    "vowel_or_consonant": _listed(lambda x: "vowel" if x in "aeiou" else "consonant", ", "),
}

MIXED_RENDERS: dict[str, Render] = {
    "uppercase": _each(str.upper),
    "word_or_number": _each(lambda x: "number" if x.isdigit() else "word"),
}

VALUE_RENDERS: dict[str, Render] = {"uppercase": _each(str.upper), "capitalized": _each(str.capitalize)}


def _labels(positive: str, negative: str) -> Render:
    return _listed(lambda x: positive if x == "positive" else negative, ", ")


LABEL_RENDERS: dict[str, Render] = {
    "positive_negative": _labels("positive", "negative"),
    "good_bad": _labels("good", "bad"),
    "yes_no": _labels("yes", "no"),
    "one_zero": _labels("1", "0"),
    "plus_minus": _labels("+", "-"),
    "happy_sad": _labels("happy", "sad"),
    "thumbs": _labels("thumbs up", "thumbs down"),
    "star_rating": _labels("5 stars", "1 star"),
    "pass_fail": _labels("pass", "fail"),
    "like_dislike": _labels("like", "dislike"),
    "smileys": _labels(":)", ":("),
    "shouted_label": _labels("POSITIVE", "NEGATIVE"),
}

RENDERS: dict[str, dict[str, Render]] = {
    "words": FORMATS | WORD_RENDERS,
    "numbers": FORMATS | NUMBER_RENDERS,
    "letters": FORMATS | LETTER_RENDERS,
    "mixed": FORMATS | MIXED_RENDERS,
    "record": FORMATS | VALUE_RENDERS,
    "event": FORMATS | VALUE_RENDERS,
    "review": LABEL_RENDERS,
}
"""Domain -> render -> function from the kept items and the domain's own separator to the answer."""


@dataclass(frozen=True)
class Operations:
    """The names of the operations that a recipe may use; empty means all of them."""

    picks: frozenset[str] = frozenset()
    renders: frozenset[str] = frozenset()

    def allows(self, pick: str, render: str) -> bool:
        return (not self.picks or pick in self.picks) and (not self.renders or render in self.renders)
