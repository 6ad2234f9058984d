"""What training tasks share with held-out ones: a test may then measure memory.

Examples overlap where an input or an answer of a test shares 13 words in a row with one that is trained on (as GPT-3
was checked, Brown et al. 2020, https://arxiv.org/abs/2005.14165), or is the same as a whole if it has 4 to 12 words;
shorter ones are the same by chance. Descriptions are alike by the word triples that two of them share, as a part of
those that either has; from a half on, one is a slip of the pen away from the other. Case and punctuation do not count.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from t2l.tasks.task import Example, Task

RUN, SHORTEST = 13, 4
"""Words in a row that are no chance; words of the shortest text that is looked at."""
ALIKE = 0.5
MAX_EXAMPLES = 10_000
"""Of each task; those of the embedded universe have no end."""
_TRIPLE = 3


@dataclass
class Overlap:
    """What a training task shares with a held-out one.

    examples: numbers of the held-out task's test examples. likeness: of their most alike descriptions; 0 if below
    ALIKE. sample: words that both have.
    """

    train: str
    held_out: str
    num_examples: int
    examples: set[int] = field(default_factory=set)
    likeness: float = 0.0
    sample: str = ""

    @property
    def share(self) -> float:
        """Of the test examples."""
        return len(self.examples) / self.num_examples if self.num_examples else 0.0


def overlaps(train: Iterable[Task], held_out: Sequence[Task]) -> list[Overlap]:
    """All pairs that share something, those that share most first."""
    runs, wordings = _RunIndex(held_out), _WordingIndex(held_out)
    found: dict[tuple[str, int], Overlap] = {}

    def pair(task: Task, number: int) -> Overlap:
        other = held_out[number]
        fresh = Overlap(task.name, other.name, min(len(other.test), MAX_EXAMPLES))
        return found.setdefault((task.name, number), fresh)

    for task in train:
        for number, likeness, text in wordings.alike(task):
            one = pair(task, number)
            if likeness > one.likeness:
                one.likeness, one.sample = likeness, text
        for number, example, words in runs.shared(task):
            one = pair(task, number)
            one.examples.add(example)
            one.sample = one.sample or words
    return sorted(found.values(), key=lambda one: (-max(one.share, one.likeness), one.train, one.held_out))


class _RunIndex:
    """Runs of words in the test examples of held-out tasks, by their hash."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._places: dict[int, set[tuple[int, int]]] = defaultdict(set)
        for number, task in enumerate(tasks):
            for i, example in enumerate(islice(task.test, MAX_EXAMPLES)):
                for run in _runs(example):
                    self._places[hash(run)].add((number, i))

    def shared(self, task: Task) -> Iterator[tuple[int, int, str]]:
        """Number of a held-out task, number of its example, words that both have."""
        for example in islice(task.train, MAX_EXAMPLES):
            for run in _runs(example):
                for number, i in self._places.get(hash(run), ()):
                    yield number, i, " ".join(run)


class _WordingIndex:
    """Word triples of the descriptions of held-out tasks."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._wordings: list[tuple[int, int, str]] = []
        self._places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for number, task in enumerate(tasks):
            for text in _wordings(task):
                triples = _triples(text)
                for triple in triples:
                    self._places[triple].append(len(self._wordings))
                self._wordings.append((number, len(triples), text))

    def alike(self, task: Task) -> Iterator[tuple[int, float, str]]:
        """Number of a held-out task, likeness of one of its descriptions, that description."""
        for text in _wordings(task):
            triples = _triples(text)
            shared = Counter(place for triple in triples for place in self._places.get(triple, ()))
            for place, count in shared.items():
                number, size, other = self._wordings[place]
                likeness = count / (len(triples) + size - count)
                if likeness >= ALIKE:
                    yield number, likeness, other


def _runs(example: Example) -> Iterator[tuple[str, ...]]:
    """Of each text: all of RUN words in a row, or the whole of a shorter one."""
    for text in (example.input, *example.answers):
        words = _words(text)
        if len(words) >= SHORTEST:
            yield from (tuple(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1)))


def _triples(text: str) -> set[tuple[str, ...]]:
    words = _words(text)
    return {tuple(words[i : i + _TRIPLE]) for i in range(max(1, len(words) - _TRIPLE + 1))}


def _wordings(task: Task) -> list[str]:
    return list(dict.fromkeys((*task.descriptions, *task.unseen_descriptions)))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
