"""The embedded universe: thousands of generated tasks with natural descriptions, deterministic, offline.

A task is (domain, pick, render), see ``operations.py``. Tasks that behave alike are one task. Splits are by task:
``test`` and ``validation`` hold combinations whose pick and render both occur in training tasks of the same domain;
``extra["novel"]`` holds combinations that the base model never saw either (its pretraining skips them);
``extra["new_operations"]`` holds tasks with an operation that T2L never trains on, which shows the method's limit.
"""

import random
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeVar, overload

from t2l.errors import ConfigError
from t2l.tasks.operations import PICKS, RENDERS, Operations
from t2l.tasks.phrasing import Describer
from t2l.tasks.task import Example, Task, TaskSuite
from t2l.tasks.vocabulary import DOMAINS, Input

NEW_OPERATIONS = frozenset({"second_last", "tools", "pipes", "ones_digit", "hashtags"})
NUM_DESCRIPTIONS = 128
"""Training descriptions a task, the paper's number."""
NUM_UNSEEN_DESCRIPTIONS = 32
_SPLIT_SIZES = {"novel": 40, "test": 120, "validation": 60}
_MIN_TRAIN_USES = 4
_NUM_NEW_OPERATION_TASKS = 80
_TRAIN_EXAMPLES, _TEST_EXAMPLES = 1 << 16, 1 << 10
_PROBES = 40

T = TypeVar("T")


@dataclass(frozen=True)
class Program:
    """What a task does: a pick and a render on one domain's inputs."""

    domain: str
    pick: str
    render: str

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.pick}/{self.render}"

    @property
    def is_composite(self) -> bool:
        return self.pick != "all" and self.render != "plain"

    def apply(self, given: Input) -> str | None:
        """The answer, or None where the pick finds nothing."""
        kept = PICKS[self.domain][self.pick](given)
        return RENDERS[self.domain][self.render](kept, DOMAINS[self.domain].separator) if kept else None

    def draw(self, rng: random.Random) -> Example:
        """An example whose answer exists."""
        given = self.draw_input(rng)
        return Example(given.text, str(self.apply(given)))

    def draw_input(self, rng: random.Random) -> Input:
        """Inputs where the pick finds nothing, or too little, are drawn again."""
        pairs = self.pick.count("+")
        while True:
            given = DOMAINS[self.domain].draw(rng)
            if pairs and len(PICKS[self.domain][self.pick](given)) <= pairs:
                continue
            if self.apply(given) is not None:
                return given


class _Generated(Sequence[T]):
    """Items made when asked for; an index always gives the same one."""

    def __init__(self, length: int):
        self._length = length

    @abstractmethod
    def make(self, index: int) -> T:
        """Item ``index``, counted from 0."""

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.make(i) for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self.make(index % self._length)


class GeneratedExamples(_Generated[Example]):
    """Examples of one program, each from a seed of its own."""

    def __init__(self, program: Program, split: str, length: int):
        super().__init__(length)
        self._program = program
        self._seed = zlib.crc32(f"{split}:{program.name}".encode())

    def make(self, index: int) -> Example:
        return self._program.draw(random.Random((self._seed << 32) + index))


class GeneratedDescriptions(_Generated[str]):
    """Distinct descriptions of one program, written in order up to the one asked for."""

    def __init__(self, program: Program, unseen: bool, length: int):
        super().__init__(length)
        self._program, self._unseen = program, unseen
        self._known: set[str] = set()
        self._texts: list[str] = []

    @cached_property
    def _writer(self) -> tuple[random.Random, Describer]:
        program = self._program
        seed = zlib.crc32(f"{self._unseen}:{program.name}".encode())
        return random.Random(seed), Describer(program.domain, program.pick, program.render)

    def make(self, index: int) -> str:
        rng, describer = self._writer
        while len(self._texts) <= index:
            text = describer.describe(rng, self._program.draw(rng), self._unseen)
            if text not in self._known:
                self._known.add(text)
                self._texts.append(text)
        return self._texts[index]


def make_task(program: Program) -> Task:
    return Task(
        name=program.name,
        descriptions=GeneratedDescriptions(program, unseen=False, length=NUM_DESCRIPTIONS),
        unseen_descriptions=GeneratedDescriptions(program, unseen=True, length=NUM_UNSEEN_DESCRIPTIONS),
        train=GeneratedExamples(program, "train", _TRAIN_EXAMPLES),
        test=GeneratedExamples(program, "test", _TEST_EXAMPLES),
    )


@cache
def programs() -> tuple[Program, ...]:
    """Every distinct program: constant ones are left out, and of those that behave alike the first stays."""
    distinct: list[Program] = []
    for domain in DOMAINS:
        rng = random.Random(domain)
        probes = [DOMAINS[domain].draw(rng) for _ in range(_PROBES)]
        known: set[tuple[str | None, ...]] = set()
        for pick in PICKS[domain]:
            for render in RENDERS[domain]:
                program = Program(domain, pick, render)
                behaviour = tuple(program.apply(probe) for probe in probes)
                if behaviour not in known and len(set(behaviour) - {None}) > 1:
                    known.add(behaviour)
                    distinct.append(program)
    return tuple(distinct)


def _shuffled(items: Iterable[Program], salt: str) -> list[Program]:
    return sorted(items, key=lambda program: zlib.crc32(f"{salt}:{program.name}".encode()))


def _skills(program: Program) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    return (program.domain, "pick", program.pick), (program.domain, "render", program.render)


def split_programs(candidates: Sequence[Program], sizes: dict[str, int]) -> dict[str, list[Program]]:
    """Take held-out combinations from the candidates, leaving each skill in several training tasks."""
    uses = Counter(skill for program in candidates for skill in _skills(program))
    splits: dict[str, list[Program]] = {name: [] for name in (*sizes, "train")}
    for program in _shuffled(candidates, "split"):
        short = next((name for name, size in sizes.items() if len(splits[name]) < size), None)
        skills = _skills(program)
        if short and program.is_composite and all(uses[skill] > _MIN_TRAIN_USES for skill in skills):
            splits[short].append(program)
            uses.subtract(skills)
        else:
            splits["train"].append(program)
    splits["train"] = _covering_order(splits["train"])
    return splits


def _covering_order(train: Sequence[Program]) -> list[Program]:
    """An order in which every prefix covers as many skills as it can: tasks with the least seen skills come first."""
    seen: Counter[tuple[str, str, str]] = Counter()
    rounds: dict[int, list[Program]] = {}
    for program in _shuffled(train, "order"):
        rarity = min(seen[skill] for skill in _skills(program))
        seen.update(_skills(program))
        rounds.setdefault(rarity, []).append(program)
    return [program for rarity in sorted(rounds) for program in rounds[rarity]]


@cache
def full_splits() -> dict[str, list[Program]]:
    """The programs behind each split of the whole universe."""
    known = [p for p in programs() if p.pick not in NEW_OPERATIONS and p.render not in NEW_OPERATIONS]
    splits = split_programs(known, _SPLIT_SIZES)
    unknown = [p for p in programs() if p.pick in NEW_OPERATIONS or p.render in NEW_OPERATIONS]
    splits["new_operations"] = _shuffled(unknown, "new")[:_NUM_NEW_OPERATION_TASKS]
    return splits


def pretraining_programs() -> list[Program]:
    """What the base model is pretrained on: everything but the novel combinations."""
    novel = set(full_splits()["novel"])
    return [program for program in programs() if program not in novel]


def _tasks(chosen: Iterable[Program]) -> tuple[Task, ...]:
    return tuple(make_task(program) for program in chosen)


def universe(num_train_tasks: int | None = 479) -> TaskSuite:
    """The whole universe with the first ``num_train_tasks`` training tasks (None: all of them).

    Test and validation tasks do not depend on the number of training tasks.
    """
    splits = full_splits()
    available = len(splits["train"])
    if num_train_tasks is not None and not 1 <= num_train_tasks <= available:
        raise ConfigError(f"num_train_tasks is {num_train_tasks}; the universe has 1 to {available} training tasks")
    return TaskSuite(
        train=_tasks(splits["train"][:num_train_tasks]),
        validation=_tasks(splits["validation"]),
        test=_tasks(splits["test"]),
        extra={name: _tasks(splits[name]) for name in ("novel", "new_operations")},
    )


def sub_universe(domain: str, operations: Operations, num_validation: int, num_test: int) -> TaskSuite:
    """A small world of one domain and few operations, for demos and tests; its own splits, same guarantees."""
    if domain not in DOMAINS:
        raise ConfigError(f"unknown domain '{domain}'; choose one of {', '.join(DOMAINS)}")
    chosen = [p for p in programs() if p.domain == domain and operations.allows(p.pick, p.render)]
    splits = split_programs(chosen, {"validation": num_validation, "test": num_test})
    return TaskSuite(_tasks(splits["train"]), _tasks(splits["validation"]), _tasks(splits["test"]))
