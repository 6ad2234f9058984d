"""A training run in this process, on one device: the same worker with a plain torch engine, no Ray, no DeepSpeed."""

from collections.abc import Mapping
from typing import Any

import torch

from t2l.cluster.progress import LiveLine, Status
from t2l.cluster.report import make_report
from t2l.cluster.run import Finished, open_run, outcome
from t2l.cluster.worker import Place, run_worker
from t2l.config import RunConfig
from t2l.errors import ResourceError
from t2l.train.engine import TorchEngine


def train_alone(config: RunConfig) -> Finished:
    """Train a run to its end and evaluate it.

    Raises ResourceError if it asks for several workers, or for a GPU where there is none.
    """
    if config.cluster.num_workers > 1:
        raise ResourceError(f"cluster.num_workers is {config.cluster.num_workers}: without Ray there is one worker")
    if config.cluster.use_gpu and not torch.cuda.is_available():
        raise ResourceError("cluster.use_gpu is true, but this machine has no GPU: set it to false")
    finished = open_run(config)
    use_gpu = torch.cuda.is_available() if config.cluster.use_gpu is None else config.cluster.use_gpu
    place = Place(config.run_dir, device="cuda" if use_gpu else "cpu")
    status = Status()
    with LiveLine(config.train.steps) as line:

        def tell(news: Mapping[str, Any]) -> None:
            status.tell(news)
            line.show(*status.read())

        if finished:
            tell({"note": f"{config.run_dir} is finished: {config.train.steps:,} steps"})
        else:
            run_worker(
                config, place, lambda module, state: TorchEngine(module, config.train, place.device, state), tell
            )
        done = outcome(config)
        if not config.train.report_inputs:
            return Finished(done, {})
        return Finished(done, make_report(config, done, lambda news: tell({"phase": news})))
