"""A training run in this process, on one device: the same worker with a plain torch engine, no Ray, no DeepSpeed."""

from collections.abc import Mapping
from typing import Any

import torch

from t2l.cluster.place import Place
from t2l.cluster.progress import LiveLine, Status
from t2l.cluster.report import make_report
from t2l.cluster.run import Finished, complete, open_run, store_of
from t2l.cluster.validate import Validator
from t2l.cluster.worker import run_worker
from t2l.config import RunConfig
from t2l.errors import ResourceError
from t2l.files import sole_user
from t2l.train.engine import TorchEngine
from t2l.train.module import TrainModule
from t2l.train.state import State


def train_alone(config: RunConfig) -> Finished:
    """Train a run to its end and evaluate it; training waits for validations.

    Raises ResourceError if it asks for several workers, or for a GPU where there is none, or if another process trains
    it.
    """
    if config.cluster.min_workers > 1:
        raise ResourceError(f"cluster.num_workers is {config.cluster.num_workers}: without Ray there is one worker")
    if config.cluster.use_gpu and not torch.cuda.is_available():
        raise ResourceError("cluster.use_gpu is true, but this machine has no GPU: set it to false")
    with sole_user(config.run_dir):
        return _train(config)


def _train(config: RunConfig) -> Finished:
    finished = open_run(config)
    use_gpu = torch.cuda.is_available() if config.cluster.use_gpu is None else config.cluster.use_gpu
    place = Place(config.run_dir, device="cuda" if use_gpu else "cpu")
    status = Status()
    with LiveLine(config.train.steps) as line:

        def tell(news: Mapping[str, Any]) -> None:
            status.tell(news)
            line.show(*status.read())

        def make_engine(module: TrainModule, state: State | None) -> TorchEngine:
            return TorchEngine(module, config.train, place.device, state)

        validate = Validator(store_of(config), place.device, tell)
        if finished:
            tell({"note": f"{config.run_dir} is finished: {config.train.steps:,} steps"})
        else:
            run_worker(config, place, make_engine, validate, tell)
        done = complete(config, validate)
        if not config.train.report_inputs:
            return Finished(done, [])
        return Finished(done, make_report(config, done, lambda news: tell({"phase": news})))
