"""Carries an evaluation out: in this process, or by actors on a Ray cluster, one for each GPU or CPU.

An evaluator loads the frozen base once and takes one item after another: one method under one wording, and some tasks
of one split, answered in batches with an adapter a row. Records are written as they are complete, so that a stopped
evaluation goes on where it stopped.
"""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from t2l.cluster.aims import Aim, Request, aims_of, base_of
from t2l.cluster.own_errors import own_errors
from t2l.cluster.sources import FrozenBase, Source, open_source
from t2l.config import BaseConfig
from t2l.evaluation.records import Record, ResultFile, TaskScore

_ROWS = 1024
"""Questions of an item, about: what one batch takes on a GPU."""

Tell = Callable[[str], None]
"""Called with what was done last and how much that is of all."""


@dataclass(frozen=True)
class Item:
    """Some tasks of one aim: what an evaluator does at a time. place: of the aim in the list of all."""

    place: int
    aim: Aim
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Graded:
    """What came of an item; seconds: that it took."""

    item: Item
    tasks: dict[str, TaskScore]
    seconds: float


class Evaluator:
    """Holds the frozen base and the adapter source that was used last."""

    def __init__(self, base: BaseConfig, device: str | None = None) -> None:
        self._base = FrozenBase(base, device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._folder, self._source = "", None

    def ready(self) -> None:
        """Returns when it is."""

    def grade(self, item: Item) -> Graded:
        """Answer and grade all questions of an item."""
        start = time.perf_counter()
        source = self._source_of(item.aim)
        tasks = source.evaluation(item.aim).grade(item.aim.questions(item.tasks))
        for name, error in source.errors(item.aim, item.tasks).items():
            tasks[name].by_scorer["reconstruction_error"] = error
        return Graded(item, tasks, time.perf_counter() - start)

    def _source_of(self, aim: Aim) -> Source:
        if self._source is None or self._folder != aim.source:
            self._folder, self._source = aim.source, open_source(aim, self._base)
        return self._source


Carry = Callable[[BaseConfig, Sequence[Item]], Iterator[Graded]]
"""Grades items, in any order."""


def alone(base: BaseConfig, items: Sequence[Item], device: str | None = None) -> Iterator[Graded]:
    """One after another in this process."""
    if not items:
        return
    evaluator = Evaluator(base, device)
    yield from map(evaluator.grade, items)


def on_ray(base: BaseConfig, items: Sequence[Item]) -> Iterator[Graded]:
    """By actors, one for each GPU of the cluster at hand, or for each CPU if it has none; each starts when there is
    room for it. Raises the T2LError that an evaluator raised.
    """
    import ray

    from t2l.cluster.train import start_ray

    start_ray()
    total = ray.cluster_resources()
    gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
    # Items do not depend on each other or on time: an actor that dies begins its item anew in another process.
    remote: Any = ray.remote(num_cpus=1, num_gpus=int(gpus > 0), max_restarts=2, max_task_retries=2)(Evaluator)
    actors = [remote.remote(base) for _ in range(min(gpus or cpus, len(items)))]
    waiting, left = list(reversed(items)), len(items)
    busy = {actor.ready.remote(): actor for actor in actors}
    try:
        while left:
            [done], _ = ray.wait(list(busy))
            with own_errors():
                actor, graded = busy.pop(done), ray.get(done)
            if waiting:
                busy[actor.grade.remote(waiting.pop())] = actor
            if graded is not None:
                left -= 1
                yield graded
    finally:
        for actor in actors:
            ray.kill(actor)


def evaluate(
    request: Request,
    results: ResultFile,
    carry: Carry,
    path: Path | None = None,
    tell: Tell = lambda news: None,
) -> list[Record]:
    """Measure what a request asks for and `results` lacks, and add it; with a path, written after each record.

    What something else under the same name scored gives way. Returns the records of all that was asked for.
    """
    if torch.cuda.is_available():
        results.machine["gpu"] = torch.cuda.get_device_name()
    known, asked = set(map(_key, results.records)), aims_of(request)
    aims = [aim for aim in asked if _key(aim) not in known]
    items = [item for place, aim in enumerate(aims) for item in _items(place, aim)]
    found: dict[int, Graded] = {}
    before = time.perf_counter()
    for done, graded in enumerate(carry(base_of(request), items), 1):
        place, aim = graded.item.place, graded.item.aim
        if place in found:
            old = found[place]
            graded = Graded(old.item, old.tasks | graded.tasks, old.seconds + graded.seconds)
        found[place] = graded
        tell(f"{done} of {len(items)} done, {label(aim)}")
        if len(graded.tasks) == len(aim.tasks):
            tasks = {name: graded.tasks[name] for name in aim.tasks}
            record = Record.of(aim.head, tasks, found.pop(place).seconds, aim.source_sha256)
            kept = [r for r in results.records if r.head != aim.head or r.source_sha256 == aim.source_sha256]
            results.records = [*kept, record]
            results.seconds += time.perf_counter() - before
            before = time.perf_counter()
            if path is not None:
                results.write(path)
    wanted = set(map(_key, asked))
    return [record for record in results.records if _key(record) in wanted]


def _key(measured: Aim | Record) -> Hashable:
    return measured.head, measured.source_sha256, measured.num_questions


def _items(place: int, aim: Aim) -> Iterator[Item]:
    """Whole tasks, about _ROWS questions."""
    number = max(1, _ROWS // aim.scope.inputs)
    for start in range(0, len(aim.tasks), number):
        yield Item(place, aim, aim.tasks[start : start + number])


def label(aim: Aim) -> str:
    """Such as "held_out: t2l embedded, unseen wording"."""
    name = f" {aim.head.name}" if aim.head.name else ""
    wording = f", {aim.head.wording} wording" if aim.head.wording else ""
    return f"{aim.head.split}: {aim.head.method}{name}{wording}"
