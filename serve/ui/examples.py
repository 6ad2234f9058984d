"""Descriptions to try and inputs that fit them, from the embedded universe: the shipped checkpoint does them right."""

_WORDS = ("owl, shirt, apple, saw", "river, cat, hammer, honey, scarf", "lion, park, bread, hat, drill, pear")
_NUMBERS = ("12, 85, 7, 51, 64", "90, 3, 47, 28", "5, 72, 18, 99, 33")
_REVIEWS = (
    "the soup was great, the bill was bad and the bed was lovely.",
    "the fee was bad, the view was great and the staff was nice.",
)

EXAMPLES: dict[str, tuple[str, ...]] = {
    "sort the words from z to a": _WORDS,
    "take the first two words and put them in capital letters": _WORDS,
    "say what kind of thing each word is": _WORDS,
    "the longest word, spelled letter by letter with hyphens": _WORDS,
    "double every number": _NUMBERS,
    "Did they like the first thing they mention? yes or no": _REVIEWS,
}


def inputs_for(description: str) -> tuple[str, ...]:
    """Those that fit an example; for a description of the reader's own, one of each kind.

    The API ends a description with a full stop, if there is none.
    """
    return EXAMPLES.get(description.removesuffix("."), (_WORDS[0], _NUMBERS[0], _REVIEWS[0]))
