"""What an evaluation shall measure: every method that its checkpoints and libraries allow, under every wording, on
every split. Plain data that crosses process boundaries; evaluators (t2l/cluster/evaluators.py) build the rest from it.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from t2l.checkpoint import CheckpointInfo, read_info, weights_sha256
from t2l.config import AnyDataConfig, BaseConfig, BenchmarksConfig, DataConfig
from t2l.data.suite import build_suite
from t2l.embedded import CHECKPOINT_DIR
from t2l.errors import ConfigError
from t2l.evaluation.methods import LIBRARY, METHODS, PROMPTS, REFINED, TRAINED, Method
from t2l.evaluation.questions import Question, num_questions, questions, refuse_code
from t2l.evaluation.records import Head
from t2l.lora.library import MANIFEST_FILE, Library
from t2l.tasks.benchmarks.suite import benchmarks
from t2l.tasks.freehand import free_hand_tasks
from t2l.tasks.task import Task
from t2l.text_to_lora import find_checkpoint

_EXTRA_TASKS = 40
BENCHMARKS = "benchmarks"
"""The split of them."""


@dataclass(frozen=True)
class Scope:
    """Which tasks and how many of their inputs; run_code: answers that are code may be run."""

    data: AnyDataConfig
    inputs: int = 20
    seen_tasks: int = 60
    benchmarks: BenchmarksConfig | None = None
    run_code: bool = False

    @property
    def splits(self) -> dict[str, tuple[Task, ...]]:
        """All there are, by name."""
        return _splits(self)


@dataclass(frozen=True)
class Aim:
    """One record to be made.

    source: the folder that the adapters come from, "" for prompts alone; source_sha256: of it, the base model and the
    data; tasks: names of those asked about.
    """

    head: Head
    source: str
    source_sha256: str
    scope: Scope
    tasks: tuple[str, ...]

    @property
    def method(self) -> Method:
        return METHODS[self.head.method]

    @property
    def data(self) -> DataConfig:
        """What limits prompts and answers."""
        benchmarks = self.scope.benchmarks
        return benchmarks if benchmarks is not None and self.head.split == BENCHMARKS else self.scope.data

    def questions(self, tasks: Sequence[str]) -> list[Question]:
        """About some of the tasks."""
        split = self.scope.splits[self.head.split]
        return questions(self.method, self.head.wording, split, self.scope.inputs, set(tasks), self.scope.run_code)

    @property
    def num_questions(self) -> int:
        asked = set(self.tasks)
        split = self.scope.splits[self.head.split]
        wording, inputs = self.head.wording, self.scope.inputs
        return sum(num_questions(wording, task, inputs) for task in split if task.name in asked)


@dataclass(frozen=True)
class _Origin:
    """Where adapters come from: an Aim's `source` and `source_sha256`, and what its records say of it."""

    source: str
    sha256: str
    about: dict[str, Any]

    @classmethod
    def of(cls, source: Path | None, info: CheckpointInfo, made_by: str = "", **about: Any) -> "_Origin":
        """info: says which base model and data; made_by: what tells the source's adapters from others."""
        what = f"{info.config.base.model_dump_json()} {info.config.data.model_dump_json()} {made_by}"
        return cls(str(source or ""), hashlib.sha256(what.encode()).hexdigest(), about)


@dataclass(frozen=True)
class Request:
    """What to evaluate. splits, methods: names to keep to; None: all there are, of methods the slow ones if `slow`.

    benchmarks: a further split. run_code: answers that are code may be run.
    """

    checkpoints: tuple[Path | str, ...] = (CHECKPOINT_DIR,)
    libraries: tuple[Path, ...] = ()
    splits: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None
    inputs: int = 20
    seen_tasks: int = 60
    slow: bool = False
    benchmarks: BenchmarksConfig | None = None
    run_code: bool = False

    def scope_of(self, info: CheckpointInfo) -> Scope:
        """The tasks of a checkpoint's own data, and the benchmarks."""
        return Scope(info.config.data, self.inputs, self.seen_tasks, self.benchmarks, self.run_code)


def base_of(request: Request) -> BaseConfig:
    """The one base model of a request. Raises ConfigError if its checkpoints are for several."""
    first, *others = [read_info(find_checkpoint(folder)).config.base for folder in request.checkpoints]
    if other := next((base for base in others if base != first), None):
        raise ConfigError(
            f"the checkpoints are for base models {first} and {other}: evaluate those of each by themselves"
        )
    return first


def aims_of(request: Request) -> list[Aim]:
    """Everything to measure, what shares an adapter source side by side.

    Prompts alone and libraries are asked about the tasks of the first checkpoint's data. Raises ConfigError for an
    unknown split or method, if two sources cannot be told apart in the records, for tasks that run code unasked, or if
    there is nothing to measure.
    """
    if unknown := [name for name in request.methods or () if name not in METHODS]:
        raise ConfigError(f"there is no method '{unknown[0]}': choose from {', '.join(METHODS)}")
    _refuse_code_of_benchmarks(request)
    checkpoints = [find_checkpoint(folder) for folder in request.checkpoints]
    first = read_info(checkpoints[0])
    alone = _Origin.of(None, first)
    aims = [aim for method in PROMPTS for aim in _aims(request, method, request.scope_of(first), alone)]
    for folder in request.libraries:
        aims += _library_aims(request, first, folder)
    for folder in checkpoints:
        aims += _checkpoint_aims(request, folder)
    if not aims:
        methods, splits = (", ".join(names or ["all"]) for names in (request.methods, request.splits))
        raise ConfigError(f"the sources have nothing to measure: methods {methods}; splits {splits}")
    heads = Counter(aim.head for aim in aims)
    if twice := next((head for head in heads if heads[head] > 1), None):
        raise ConfigError(f"two sources are called '{twice.name}' and were made alike: evaluate them into two files")
    return aims


def _refuse_code_of_benchmarks(request: Request) -> None:
    """As for any task, but before data sets are fetched."""
    asked = request.benchmarks
    if asked is not None and not request.run_code and BENCHMARKS in (request.splits or (BENCHMARKS,)):
        known = benchmarks()
        refuse_code({name: known[name].metric for name in asked.names or known if name in known})


def _checkpoint_aims(request: Request, folder: Path) -> list[Aim]:
    info = read_info(folder)
    scope = request.scope_of(info)
    about = _about(info, len(build_suite(info.config.data).train))
    origin = _Origin.of(folder, info, weights_sha256(folder), **about)
    names = set(info.names) if info.config.condition == "one_hot" else None
    aims = list(_aims(request, TRAINED[info.config.condition], scope, origin, names))
    if info.config.condition == "description":
        aims += _aims(request, REFINED, scope, origin)
    return aims


def _library_aims(request: Request, info: CheckpointInfo, folder: Path) -> list[Aim]:
    """info: of a checkpoint for the same base model, whose data it is asked about."""
    library, scope = Library.open(folder.absolute()), request.scope_of(info)
    training = known_training_tasks(library, scope)
    asked = {task.name for tasks in scope.splits.values() for task in tasks}
    if not training and asked.isdisjoint(library.tasks):
        raise ConfigError(
            f"the library {folder} holds adapters of none of the tasks of the splits, but of {len(library.tasks)} such "
            f"as '{library.tasks[0]}': make one with jobs/train_oracles.py, or name its sub-folders after tasks"
        )
    weights = library.weights(library.tasks[:1])
    about = {"name": folder.name, "rank": weights.spec.rank, "adapter_parameters": weights.spec.num_parameters}
    origin = _Origin.of(library.folder, info, _made_by(library), **about)
    aims: list[Aim] = []
    # Without adapters of training tasks there is nothing to average or to choose from, only oracles.
    for method in LIBRARY if training else LIBRARY[:1]:
        names = set(library.tasks) if method.name == "oracle" else None
        aims += _aims(request, method, scope, origin, names)
    return aims


def _made_by(library: Library) -> str:
    """Its manifest, which tells how each adapter was trained; of other people's, the tasks' names."""
    manifest = library.folder / MANIFEST_FILE
    return manifest.read_text(encoding="utf-8") if manifest.exists() else "\n".join(library.tasks)


def known_training_tasks(library: Library, scope: Scope) -> list[Task]:
    """The training tasks that a library has adapters of."""
    names = set(library.tasks)
    return [task for task in build_suite(scope.data).train if task.name in names]


def _aims(
    request: Request,
    method: Method,
    scope: Scope,
    origin: _Origin,
    names: set[str] | None = None,
) -> Iterator[Aim]:
    """One method under each of its wordings on each split that has tasks for it. names: keep to these tasks."""
    wanted = request.slow or not method.slow if request.methods is None else method.name in request.methods
    if not wanted:
        return
    for split in request.splits or scope.splits:
        if split not in scope.splits:
            raise ConfigError(f"there is no split '{split}': choose from {', '.join(scope.splits)}")
        tasks = scope.splits[split]
        known = [task for task in tasks if names is None or task.name in names]
        if not scope.run_code:
            refuse_code({task.name: task.metric for task in known})
        for wording in method.wordings:
            kept = tuple(task.name for task in known if method.applies_to(task, wording))
            if kept and not (wording == "shuffled" and _num_worded(tasks) < 2):
                head = Head(method=method.name, wording=wording, split=split, **origin.about)
                yield Aim(head, origin.source, _sha256_on(split, scope, origin), scope, kept)


def _sha256_on(split: str, scope: Scope, origin: _Origin) -> str:
    """Of what is measured there: a benchmark's prompts and descriptions are settings of its own."""
    if split != BENCHMARKS or scope.benchmarks is None:
        return origin.sha256
    return hashlib.sha256(f"{origin.sha256} {scope.benchmarks.model_dump_json()}".encode()).hexdigest()


def _num_worded(tasks: Sequence[Task]) -> int:
    """Tasks that have a wording to shuffle in."""
    return sum(len(task.unseen_descriptions) > 0 for task in tasks)


def _about(info: CheckpointInfo, num_train_tasks: int) -> dict[str, Any]:
    """What the records say of a checkpoint."""
    config = info.config
    return {
        "name": config.name,
        "variant": config.hypernet.variant,
        "objective": config.train.objective,
        "encoder": _encoder_name(info),
        "condition": config.condition,
        "seed": config.seed,
        "num_train_tasks": num_train_tasks,
        "num_descriptions": config.data.num_descriptions,
        "latent_size": config.hypernet.latent_size,
        "head_input_size": config.hypernet.head_input_size,
        "rank": info.spec.rank,
        "hypernet_parameters": info.num_parameters,
        "adapter_parameters": info.spec.num_parameters,
        "training_steps": config.train.steps,
    }


def _encoder_name(info: CheckpointInfo) -> str | None:
    """Such as "minilm" or "llm+reader"; None where no text is read."""
    config = info.config
    if info.names:
        return "one_hot" if config.condition == "one_hot" else None
    kinds = [config.encoder.model if kind == "sentence" else kind for kind in config.encoder.kinds]
    return "+".join(kinds if config.reader is None else [*kinds, "reader"])


@cache
def _splits(scope: Scope) -> dict[str, tuple[Task, ...]]:
    suite = build_suite(scope.data)
    splits = {"held_out": suite.test, "seen": suite.train[: scope.seen_tasks]}
    splits |= {name: tasks[:_EXTRA_TASKS] for name, tasks in suite.extra.items()}
    splits |= {"free_hand": free_hand_tasks()} if scope.data.suite == "universe" else {}
    return splits | ({BENCHMARKS: build_suite(scope.benchmarks).test} if scope.benchmarks is not None else {})
