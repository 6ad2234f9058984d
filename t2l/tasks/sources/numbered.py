"""Tasks of Super-NaturalInstructions, from whichever files: named by number, divided as the paper divides them."""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from t2l.errors import DataError
from t2l.tasks.sources.descriptions import Described, unseen_of
from t2l.tasks.task import Example, Task, TaskSuite

_HELD_OUT_SHARE = 5
_MAX_CHOICES, _USES_OF_A_CHOICE = 20, 4


@dataclass(frozen=True)
class NumberedTask:
    """A task as its files have it. definition: the one description that its authors wrote."""

    name: str
    definition: str
    train: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def number(self) -> int:
        return number_of(self.name)


@dataclass(frozen=True)
class PaperSplits:
    """Names of 500 tasks, each list in the order of their numbers."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    contaminated: tuple[str, ...]


@cache
def paper_splits() -> PaperSplits:
    lists = yaml.safe_load(files("t2l.tasks.sources").joinpath("splits.yaml").read_text(encoding="utf-8"))
    return PaperSplits(**{name: tuple(names) for name, names in lists.items()})


def number_of(name: str) -> int:
    """363 of task363_sst2_polarity_classification and of upstream's lol_363. Raises DataError for another name."""
    found = re.match(r"(?:task|lol_)(\d+)", name)
    if found is None:
        raise DataError(f"'{name}' is no task of Super-NaturalInstructions: their names begin with 'task' and a number")
    return int(found[1])


def hold_out(examples: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Examples to train on and a fifth to test on, chosen by the hash of the input, so that no input is in both."""
    inputs = sorted({example.input for example in examples}, key=_rank)
    held = set(inputs[: max(1, len(inputs) // _HELD_OUT_SHARE)])
    train = tuple(example for example in examples if example.input not in held)
    return train, tuple(example for example in examples if example.input in held)


def metric_of(examples: Sequence[Example]) -> str:
    """Exact match where a few answers come again and again, as in a choice or a classification; else ROUGE-L."""
    choices = len({example.output for example in examples})
    is_choice = choices <= _MAX_CHOICES and choices * _USES_OF_A_CHOICE <= len(examples)
    return "exact_match" if is_choice else "rouge_l"


def paper_suite(
    tasks: Sequence[NumberedTask],
    described: Mapping[int, Described],
    num_validation: int,
    num_train_tasks: int | None = None,
    notes: Sequence[str] = (),
) -> TaskSuite:
    """Tasks divided by the paper's lists, the first `num_validation` of its training tasks held back for validation.

    Which these are, and the order of all, is set by the hash of the name. Contaminated tasks are left out with a note;
    tasks that the lists do not know are for the final report only, as the split ``unlisted``. described: by number;
    other tasks have their definition alone. Raises DataError if there are too few training tasks.
    """
    splits = paper_splits()
    listed = {number_of(name): split for split, names in vars(splits).items() for name in names}
    groups: dict[str, list[Task]] = {"train": [], "test": [], "contaminated": [], "unlisted": []}
    known = {task.name: task for task in tasks}
    for task in map(known.__getitem__, in_order(known)):
        split = listed.get(task.number, "unlisted")
        groups[split].append(_task(task, described.get(task.number), unseen=split != "train"))
    family, dropped = groups["train"], [task.name for task in groups["contaminated"]]
    if len(family) < num_validation + (num_train_tasks or 1):
        raise DataError(
            f"there are {len(family)} tasks of the paper's training list, fewer than data.num_validation "
            f"({num_validation}) and data.num_train_tasks ({num_train_tasks or 1}): lower these, or give more tasks"
        )
    return TaskSuite(
        train=tuple(family[num_validation:][:num_train_tasks]),
        validation=tuple(family[:num_validation]),
        test=tuple(groups["test"]),
        extra={"unlisted": tuple(groups["unlisted"])} if groups["unlisted"] else {},
        notes=(*notes, *([f"left out, as they are in the benchmarks: {', '.join(dropped)}"] if dropped else [])),
    )


def _task(task: NumberedTask, described: Described | None, unseen: bool) -> Task:
    """unseen: training never sees the task, so that every wording of it is an unseen one.

    The authors' definition is no paraphrase of what training sees, but other people's words: an unseen wording.
    """
    descriptions = described.descriptions if described else (task.definition,)
    kept = unseen_of((task.definition, *described.unseen), descriptions) if described else ()
    made = Task(task.name, descriptions, kept, task.train, task.test, metric_of(task.train))
    return made.as_held_out() if unseen else made


def in_order(names: Iterable[str]) -> list[str]:
    """By the hash of the name: any first part of them is a fair sample."""
    return sorted(names, key=_rank)


def _rank(text: str) -> tuple[int, str]:
    return zlib.crc32(text.encode()), text
