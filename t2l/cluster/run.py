"""A run's folder: the config it was started with, whether it may go on, and what it came to."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from t2l.cluster.metrics import Metrics
from t2l.cluster.trackers import Trackers, log_validations
from t2l.config import RunConfig, dump_config, load_config
from t2l.config.settings import flat
from t2l.errors import CheckpointError, ConfigError, ResourceError
from t2l.files import write_text
from t2l.storage import reaching
from t2l.train.state import CheckpointStore
from t2l.train.validations import Validate, Validation

if TYPE_CHECKING:
    from t2l.evaluation.records import Record

CONFIG_FILE = "config.yaml"
_MAY_CHANGE = (
    "output_dir",
    "cache_dir",
    "cluster.",
    "data.loader_workers",
    "data.run_code",
    "train.log_every",
    "train.report_inputs",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "tracking.",
)
"""Settings that change nothing about what is learnt."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: after which step, and the checkpoint to use."""

    run_dir: Path
    step: int
    checkpoint: Path


Report = list["Record"]
"""What the checkpoint to use scores; empty if no report was asked for."""


@dataclass(frozen=True)
class Finished:
    """A run that has ended and been evaluated."""

    outcome: Outcome
    report: Report


def open_run(config: RunConfig) -> bool:
    """Make or check the run's folder; whether the run is finished already.

    Raises ConfigError where the folder holds a run with other settings that has been trained; of one that failed
    before, nothing is left.
    """
    store, path = store_of(config), config.run_dir / CONFIG_FILE
    with reaching(config.run_url):
        store.copy.pull()
    if path.exists() and _has_begun(store) and (changed := sorted(differing_keys(load_config(path), config))):
        raise ConfigError(
            f"{config.run_url or config.run_dir} holds a run with other settings ({', '.join(changed)}): give this run "
            f"another name=, or delete {f'that and its copy {config.run_dir}' if config.run_url else 'that folder'} to "
            "start afresh"
        )
    write_text(path, dump_config(config))
    with reaching(config.run_url):
        store.copy.push(CONFIG_FILE)
    return max(store.steps(), default=0) >= config.train.steps and store.newest() == store.steps()[-1]


def _has_begun(store: CheckpointStore) -> bool:
    return bool(store.steps() or store.validations.read() or Metrics(store.run_dir).read())


def complete(config: RunConfig, validate: Validate) -> Outcome:
    """The outcome of a run that has come to its end, once all its validations have.

    Those that a kill or an error has left out are made up for. One process calls this, when no worker runs any more.
    """
    store = store_of(config)
    store.recover()
    for step in store.due():
        validate(step)
    if late := Metrics(config.run_dir).add_validations():
        _track(config, late)
    store.prune()
    store.copy.push()
    return outcome(config)


def _track(config: RunConfig, late: Sequence[Validation]) -> None:
    try:
        trackers = Trackers(config, config.run_dir, warnings.warn)
    except ResourceError as error:  # workers may have packages that this process lacks, and the run is trained
        warnings.warn(str(error), stacklevel=2)
        return
    log_validations(late, trackers)
    trackers.close()


def outcome(config: RunConfig) -> Outcome:
    """The outcome of a completed run; its paths are absolute."""
    store = store_of(config)
    step, checkpoint = store.newest(), store.best()
    if step is None or checkpoint is None:
        raise CheckpointError(f"{config.run_dir} has no sound checkpoint left: delete it and train again")
    return Outcome(config.run_dir.absolute(), step, checkpoint.absolute())


def store_of(config: RunConfig) -> CheckpointStore:
    return CheckpointStore(config.run_dir, config.train.keep_checkpoints, config.run_url)


def differing_keys(old: RunConfig, new: RunConfig) -> Iterator[str]:
    """Dotted names of settings that differ and matter."""
    before, after = dict(flat(old)), dict(flat(new))
    for key in before.keys() | after.keys():
        if before.get(key) != after.get(key) and not key.startswith(_MAY_CHANGE):
            yield key
