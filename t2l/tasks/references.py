"""What a metric reads from a reference; the scorers (t2l/evaluation/scorers.py) hold answers against it.

It stands here so that those who read tasks can refuse what no answer could be graded by.
"""

import re
from collections.abc import Callable
from decimal import Decimal

from t2l.errors import DataError
from t2l.tasks.benchmarks.rows import ANSWER_LINE

_NUMBER = re.compile(
    r"(?P<minus>(?<![\w)\]])[-−])?[$£€]?(?P<minus_after>(?<=[$£€])[-−])?"
    r"(?P<digits>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![.0-9])\.[0-9]+)"
    r"(?:/(?P<below>[1-9][0-9]*))?"
)


def check_reference(metric: str, reference: str) -> None:
    """Raises DataError for one that the metric cannot grade by."""
    if metric in _READ:
        _READ[metric](reference)


def label_of(reference: str) -> str:
    """The label of the right option, a letter as a capital. Raises DataError unless it is one letter or digit."""
    label = re.sub(r"[\W_]", "", reference).upper()
    if not re.fullmatch("[A-Z0-9]", label):
        raise DataError(f"the reference of a choice is {reference!r}: give the label of the right option")
    return label


def verdict_of(reference: str) -> str:
    """Raises DataError unless it is "true" or "false"."""
    verdict = reference.strip().lower()
    if verdict not in ("true", "false"):
        raise DataError(f"the reference is {reference!r}: give true or false")
    return verdict


def number_in(reference: str) -> Decimal:
    """Raises DataError for one without a number."""
    number = last_number(reference)
    if number is None:
        raise DataError(f"the reference {reference!r} holds no number: choose another metric for this task")
    return number


def last_number(text: str) -> Decimal | None:
    """The number that a text ends in; the rule is at ``number`` of the scorers."""
    marked = _NUMBER.search(text.partition("####")[2])
    found = marked or next(reversed(list(_NUMBER.finditer(text))), None)
    if found is None:
        return None
    value = Decimal(found["digits"].replace(",", ""))
    if found["below"]:
        value /= Decimal(found["below"])
    return value.copy_negate() if found["minus"] or found["minus_after"] else value


def _tests_of(reference: str) -> str:
    """Raises DataError for one without any, which all answers would pass."""
    tests = reference.rpartition(ANSWER_LINE)[2].strip()
    if not tests:
        raise DataError(f"the reference {reference!r} holds no tests: give Python that raises if the answer is wrong")
    return tests


_READ: dict[str, Callable[[str], object]] = {
    "choice": label_of,
    "true_false": verdict_of,
    "number": number_in,
    "pass_at_1": _tests_of,
}
