"""Scorers: functions from an answer and its reference to a score in [0, 1]; ``SCORERS`` has them by name.

All are pure, except that ``pass_at_1`` runs the answer in a process of its own. What they read from a reference, and
which they refuse, is in t2l/tasks/references.py.
"""

import re
from collections.abc import Callable

from t2l.evaluation.pass_at_1 import pass_at_1
from t2l.tasks.references import label_of, last_number, number_in, verdict_of

Scorer = Callable[[str, str], float]


def exact_match(answer: str, reference: str) -> float:
    """1 if both are the same text, white space around it aside."""
    return float(answer.strip() == reference.strip())


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004); punctuation is split off, case counts."""
    a, b = _words(answer), _words(reference)
    if not a or not b:
        return float(a == b)
    common = _longest_common_subsequence(a, b)
    return 2 * common / (len(a) + len(b))


def choice(answer: str, reference: str) -> float:
    """1 if the answer picks the option whose label is the reference ("B", "(b)", "2"); accuracy of ARC, HellaSwag ...

    A label is a letter that punctuation or the line's end closes ("b)", "B."), or a capital before a space; but "A" and
    "I" before a space are words, unless "is", "because" or "since" follows. Where the reference is a digit, labels are
    digits, likewise closed or before a space. The answer's pick is the first of:
    the label it begins with; the last label after "answer" ("the answer is B"); the label in brackets, or after
    "option", "choice", "choose", "pick", "select", "is" or "boxed", if all such labels agree. Else it picks none.

    Raises DataError for a reference that is not one letter or digit.
    """
    label = label_of(reference)
    return float((_DIGITS if label.isdigit() else _LETTERS).picked(answer) == label)


def true_false(answer: str, reference: str) -> float:
    """1 if the answer says of a statement what the reference says, "true" or "false"; accuracy of BoolQ.

    "yes" and "no" count where an answer begins with them; else all of "true", "false", "not true" in it must agree.

    Raises DataError for another reference.
    """
    return float(_verdict(answer) == verdict_of(reference))


def number(answer: str, reference: str) -> float:
    """1 if answer and reference end in the same number, as GSM8K is scored (Cobbe et al. 2021).

    A text's number is the first one after its first "####" (GSM8K's own mark); without that, its last one. Numbers are
    compared by value (42, 42.0 and 042 are equal), without tolerance. Thousands' commas, currency signs and a full stop
    at the end are no part of it; nor is a percent sign: 50% is 50, as in GSM8K's references. "3/4" written without
    spaces is the quotient. A minus counts if no letter, digit or bracket stands before it: "5-3" ends in 3.

    Raises DataError for a reference without a number.
    """
    return float(last_number(answer) == number_in(reference))


SCORERS: dict[str, Scorer] = {
    "exact_match": exact_match,
    "rouge_l": rouge_l,
    "choice": choice,
    "true_false": true_false,
    "number": number,
    "pass_at_1": pass_at_1,
}


def _words(text: str) -> list[str]:
    spaced = "".join(c if c.isalnum() or c.isspace() else f" {c} " for c in text)
    return spaced.split()


def _longest_common_subsequence(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        previous = 0
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], previous + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


_CLOSED = r"""(?=[)\]}:;!?*`"”]|[.,'’](?!\w)|[ \t]*$)"""  # "A's", "e.g" and "A-level" are no labels


class _Labels:
    """Finds labels of one kind. label: what one looks like where words surround it; name: any, in brackets."""

    def __init__(self, label: str, name: str) -> None:
        self._at_start = re.compile(rf"[\W_]*{label}", re.MULTILINE)
        self._of_answer = re.compile(
            r"\b(?i:answer)(?:\s+(?:is|was|must be|would be|should be))?[\W_]*"
            rf"(?:(?i:option|choice)[\W_]*)?\b{label}",
            re.MULTILINE,
        )
        self._named = re.compile(
            rf"(?<=\()({name})(?=\))|\b(?i:option|choice|choose|pick|select|is|boxed)\b[\W_]*?\b{label}", re.MULTILINE
        )

    def picked(self, answer: str) -> str | None:
        """The label, a letter as a capital, of the option that an answer picks; the rule is at ``choice``."""
        if start := self._at_start.match(answer):
            return start[1].upper()
        if of_answer := self._of_answer.findall(answer):
            return of_answer[-1].upper()
        named = {(bracketed or label).upper() for bracketed, label in self._named.findall(answer)}
        return named.pop() if len(named) == 1 else None


_LETTERS = _Labels(rf"([A-Za-z]{_CLOSED}|[B-HJ-Z](?=\s)|[AI](?=\s+(?:is|because|since)\b))", "[A-Za-z]")
_DIGITS = _Labels(rf"(?<![\d.,])([0-9](?:{_CLOSED}|(?=\s)))", "[0-9]")

_TRUTH = re.compile(r"\b(?:(not)\s+)?(true|false)\b", re.IGNORECASE)
_BEGINS = re.compile(r"[\W_]*(yes|no)\b", re.IGNORECASE)


def _verdict(answer: str) -> str | None:
    """What an answer says; the rule is at ``true_false``."""
    if begins := _BEGINS.match(answer):
        return {"yes": "true", "no": "false"}[begins[1].lower()]
    said = {(word.lower() == "true") != bool(negated) for negated, word in _TRUTH.findall(answer)}
    return str(said.pop()).lower() if len(said) == 1 else None
