"""Scorers: pure functions from an answer and its reference to [0, 1]."""


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
