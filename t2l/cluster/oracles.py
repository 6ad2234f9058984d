"""A library of oracles: a LoRA for each of many tasks, trained over a Ray cluster or in this process.

Workers write each finished adapter at once as a PEFT folder; the driver then records it in the manifest. A library that
is started again goes on with the tasks that the manifest lacks, with any number of workers.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from t2l.cluster.own_errors import own_errors
from t2l.cluster.progress import LiveLine, duration
from t2l.config import RunConfig
from t2l.data.steps import is_finite
from t2l.errors import ConfigError, DataError, ResourceError
from t2l.files import sole_user
from t2l.lora.apply import PerRowLora
from t2l.lora.library import MANIFEST_FILE, Library, LibraryEntry, Manifest
from t2l.lora.peft_io import save_peft
from t2l.tasks.task import Task
from t2l.train.base import base_path, build_spec, load_base
from t2l.train.lora import num_train, train_loras
from t2l.train.lora_settings import OracleTraining

_LIMITS = ("max_prompt_tokens", "max_response_tokens")
_GENERATED_IN_DIGEST = 128
"""Of examples that are drawn afresh without end; one rule makes them all."""
_NAMED = 10
"""Tasks in a message about many."""


@dataclass(frozen=True)
class LibraryJob:
    """What to train, on what, and where to; `run` says which base model, which shape of adapter, how long a row.

    Raises ConfigError for numbers below 1.
    """

    folder: Path
    run: RunConfig
    training: OracleTraining
    at_once: int = 24
    cpus_per_worker: int = 1

    def __post_init__(self) -> None:
        if self.at_once < 1 or self.cpus_per_worker < 1:
            raise ConfigError(
                f"at_once is {self.at_once} and cpus_per_worker {self.cpus_per_worker}: both must be at least 1"
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that an adapter depends on besides its task, by name."""
        lora = {f"lora.{name}": value for name, value in self.run.lora.model_dump(mode="json").items()}
        limits = {f"data.{name}": getattr(self.run.data, name) for name in _LIMITS}
        return {**asdict(self.training), **lora, **limits, "base.dtype": self.run.base.dtype}


@dataclass(frozen=True)
class News:
    """From one worker after one round: what it has finished and how many adapters it goes on with."""

    worker: int
    finished: tuple[LibraryEntry, ...]
    in_training: int


def train_library(job: LibraryJob, tasks: Sequence[Task], use_ray: bool = True) -> Library:
    """Train what the library lacks of these tasks, shown as one line, and return the library.

    Tasks with too few examples are left out, and named. Raises ConfigError if the folder holds adapters of other
    settings or examples, DataError if there are no tasks, if all have too few examples or two would share a folder,
    ResourceError if another process trains it, and whatever T2LError a worker raises.
    """
    if not tasks:
        raise DataError("there are no tasks to train adapters for: choose another split, or more tasks")
    job = replace(job, folder=job.folder.absolute())  # workers have folders of their own
    with sole_user(job.folder):
        return _train(job, tasks, use_ray)


def _train(job: LibraryJob, tasks: Sequence[Task], use_ray: bool) -> Library:
    manifest = open_manifest(job)
    _check_names([*(entry.task for entry in manifest.adapters), *(task.name for task in tasks)])
    check_examples(job.folder, manifest, tasks)
    known = {entry.task for entry in manifest.adapters}
    tasks, notes = trainable(tasks, known, job.training)
    left = [task for task in tasks if task.name not in known]
    left.sort(key=lambda task: len(task.train[0].input))  # alike in length: little padding
    with LiveLine(0) as line:
        line.show({}, notes)
        progress = _Progress(line, len(tasks), len(tasks) - len(left))
        train = _on_ray if use_ray else _in_process
        for news in train(job, left) if left else ():
            if news.finished:
                manifest = replace(manifest, adapters=manifest.adapters + news.finished)
                manifest.write(job.folder)
            progress.add(news)
    return Library.open(job.folder)


def open_manifest(job: LibraryJob) -> Manifest:
    """The folder's manifest, or an empty one. Raises ConfigError naming each setting in which it differs."""
    wanted = Manifest(base_path(job.run.base), job.settings)
    if not (job.folder / MANIFEST_FILE).exists():
        return wanted
    found = _with_limits(Manifest.read(job.folder))
    before, now = {"base": found.base, **found.settings}, {"base": wanted.base, **wanted.settings}
    changed = [f"{key} {before.get(key)}, not {now[key]}" for key in now if before.get(key) != now[key]]
    if changed:
        raise ConfigError(f"{job.folder} holds adapters trained with {'; '.join(changed)}: choose another folder")
    return found


def check_examples(folder: Path, manifest: Manifest, tasks: Sequence[Task]) -> None:
    """Raises ConfigError naming the tasks whose adapters were trained on other examples than they have now."""
    trained_on = {entry.task: entry.examples for entry in manifest.adapters if entry.examples}
    both = [task for task in tasks if task.name in trained_on]
    if changed := [task.name for task in both if examples_digest(task) != trained_on[task.name]]:
        raise ConfigError(
            f"{folder} holds adapters that were trained on other examples of {_named(changed)}: choose another folder, "
            "or go back to those examples"
        )


def trainable(tasks: Sequence[Task], known: Set[str], training: OracleTraining) -> tuple[list[Task], list[str]]:
    """The tasks that have an adapter, or examples enough for one, and a note that names the others.

    Raises DataError if there are only others.
    """
    few = {task.name: len(task.train) for task in tasks if task.name not in known and not num_train(task, training)}
    if not few:
        return list(tasks), []
    found = _named([f"{name} ({number})" for name, number in few.items()])
    why = f"have no more training examples than validation takes ({training.validation_examples})"
    if len(few) == len(tasks):
        raise DataError(f"all tasks {why}: {found}: give them more, or lower validation_examples")
    return [task for task in tasks if task.name not in few], [f"left out, as they {why}: {found}"]


def _named(tasks: Sequence[str]) -> str:
    others = len(tasks) - _NAMED
    return ", ".join(tasks[:_NAMED]) + (f" and {others:,} others" if others > 0 else "")


def examples_digest(task: Task) -> str:
    """Of what its adapter is trained on; of generated examples, the first few."""
    number = len(task.train) if is_finite(task) else _GENERATED_IN_DIGEST
    digest = hashlib.sha256()
    for example in islice(task.train, number):
        digest.update(repr((example.input, example.output)).encode())
    return f"{len(task.train)}-{digest.hexdigest()[:16]}"


def _with_limits(manifest: Manifest) -> Manifest:
    """Libraries made before had one limit, max_tokens, for prompts and answers alike."""
    limits = dict.fromkeys((f"data.{name}" for name in _LIMITS), manifest.settings.get("max_tokens"))
    return replace(manifest, settings={**limits, **manifest.settings})


def adapter_folder(task: str) -> str:
    """Where a task's adapter lies in its library."""
    return "adapters/" + re.sub(r"[^\w.+-]", "-", task)


def _check_names(tasks: Sequence[str]) -> None:
    by_folder: dict[str, str] = {}
    for task in tasks:
        if (other := by_folder.setdefault(adapter_folder(task), task)) != task:
            raise DataError(f"tasks '{other}' and '{task}' would share the folder {adapter_folder(task)}: rename one")


def _train_share(job: LibraryJob, tasks: Sequence[Task], device: str, worker: int = 0) -> Iterator[News]:
    """What one worker does."""
    model, tokenizer = load_base(job.run.base, device)
    base = PerRowLora(model, build_spec(job.run.lora, model.config))
    for round_ in train_loras(base, tokenizer, tasks, job.training, job.at_once, job.run.data):
        entries: list[LibraryEntry] = []
        for done in round_.finished:
            folder, ends = adapter_folder(done.task.name), (done.steps, done.validation_loss, done.stopped_early)
            save_peft(done.weights, 0, job.folder / folder, base_path(job.run.base), overwrite=True)
            seconds, examples = round(done.seconds, 1), examples_digest(done.task)
            entries.append(LibraryEntry(done.task.name, folder, *ends, seconds, examples))
        yield News(worker, tuple(entries), round_.in_training)


def _in_process(job: LibraryJob, tasks: Sequence[Task]) -> Iterator[News]:
    return _train_share(job, tasks, "cuda" if torch.cuda.is_available() else "cpu")


def _on_ray(job: LibraryJob, tasks: Sequence[Task]) -> Iterator[News]:
    """As many workers as the cluster holds, with a GPU each if there is one; each takes its share of the tasks."""
    import ray

    from t2l.cluster.train import start_ray

    start_ray()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    use_gpu = any(node.get("GPU", 0) >= 1 for node in nodes)
    workers = min(room_for_workers(nodes, job, use_gpu), len(tasks))
    # A retry would train finished tasks again; a new start does not.
    options = {"num_cpus": job.cpus_per_worker, "num_gpus": int(use_gpu), "num_returns": "streaming", "max_retries": 0}
    work: Any = ray.remote(**options)(_work)
    streams = [work.remote(job, tasks[n::workers], "cuda" if use_gpu else "cpu", n) for n in range(workers)]
    try:
        while streams:
            stream: Any = ray.wait(streams, num_returns=1)[0][0]
            try:
                with own_errors():
                    news: Any = ray.get(next(stream))
            except StopIteration:
                streams.remove(stream)
            else:
                yield news
    finally:
        for stream in streams:
            ray.cancel(stream, force=True)


def room_for_workers(nodes: Sequence[Mapping[str, float]], job: LibraryJob, use_gpu: bool) -> int:
    """How many workers these nodes hold; each takes its CPUs, and its GPU, from one of them.

    Raises ResourceError if none fits, and none will come.
    """
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    fit = [of // job.cpus_per_worker for of in cpus]
    most = sum(map(min, fit, gpus) if use_gpu else fit)
    if most < 1 and not job.run.cluster.autoscaled:
        largest = max((n for n, gpu in zip(cpus, gpus, strict=True) if gpu or not use_gpu), default=0)
        beside = " beside its GPU" if use_gpu else ""
        raise ResourceError(
            f"cpus_per_worker is {job.cpus_per_worker}, but the largest node has {largest} CPUs{beside}: "
            "lower it, or add nodes"
        )
    return max(1, most)


def _work(job: LibraryJob, tasks: Sequence[Task], device: str, worker: int) -> Iterator[News]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if device == "cpu":
        torch.set_num_threads(job.cpus_per_worker)
    yield from _train_share(job, tasks, device, worker)


class _Progress:
    """The line of a library: adapters done, in training, adapters a minute, time left."""

    def __init__(self, line: LiveLine, total: int, done: int) -> None:
        self._line, self._total, self._before, self._done = line, total, done, done
        self._in_training: Mapping[int, int] = {}
        self._start = time.monotonic()
        self._show()

    def add(self, news: News) -> None:
        self._done += len(news.finished)
        self._in_training = {**self._in_training, news.worker: news.in_training}
        self._show()

    def _show(self) -> None:
        parts = [f"{self._done:,}/{self._total:,} adapters", f"{sum(self._in_training.values())} in training"]
        if made := self._done - self._before:
            seconds = time.monotonic() - self._start
            parts.append(f"{made / seconds * 60:.1f} a minute")
            parts.append(f"{duration(seconds / made * (self._total - self._done))} left")
        self._line.show({"phase": "  ".join(parts)}, [])
