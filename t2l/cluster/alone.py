"""A training run in this process, on one device, with neither Ray nor DeepSpeed: the same worker, a plain torch engine."""

import torch

from t2l.cluster.progress import LiveLine, Status
from t2l.cluster.run import Outcome, open_run, outcome
from t2l.cluster.worker import Place, run_worker
from t2l.config import RunConfig
from t2l.errors import ResourceError
from t2l.train.engine import TorchEngine


def train_alone(config: RunConfig) -> Outcome:
    """Train a run to its end. Raises ResourceError if it asks for several workers, or for a GPU where there is none."""
    if config.cluster.num_workers > 1:
        raise ResourceError(f"cluster.num_workers is {config.cluster.num_workers}: without Ray there is one worker")
    if config.cluster.use_gpu and not torch.cuda.is_available():
        raise ResourceError("cluster.use_gpu is true, but this machine has no GPU: set it to false")
    finished = open_run(config)
    if finished:
        return finished
    use_gpu = torch.cuda.is_available() if config.cluster.use_gpu is None else config.cluster.use_gpu
    place = Place(device="cuda" if use_gpu else "cpu")
    status = Status()
    with LiveLine(config.train.steps) as line:

        def tell(news) -> None:
            status.tell(news)
            line.show(*status.read())

        run_worker(config, place, lambda module, state: TorchEngine(module, config.train, place.device, state), tell)
    return outcome(config)
