"""A training run on Ray: TorchTrainer starts the workers, DeepSpeed runs in them, the driver shows how far they are.

Our own checkpoints (t2l/train/state.py) rather than Ray's: whole at any number of workers, checked by their sums, and a
damaged newest one falls back to the one before it, where Ray Train's would end the run. Ray's own folder is thus
scratch, one for each attempt, in <run>/ray.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
import ray.train
import ray.train.torch

from t2l.cluster.progress import LiveLine, Status
from t2l.cluster.run import Finished, Outcome, Report, open_run, outcome
from t2l.config import ClusterConfig, RunConfig, parse_config
from t2l.errors import ResourceError, T2LError

_POLL_SECONDS = 0.5


def train_on_ray(config: RunConfig) -> Finished:
    """Train a run to its end on the Ray cluster at hand (a local one is started if there is none).

    Goes on where an earlier run of the same name and settings stopped, and evaluates what came of it. Raises the
    T2LError that a worker raised; ResourceError if the cluster is smaller than the run.
    """
    finished = open_run(config)
    start_ray()
    use_gpu = check_resources(config.cluster)
    with _shown(LiveLine(config.train.steps)) as status:
        if finished:
            status.tell.remote({"note": f"{config.run_dir} is finished: {config.train.steps:,} steps"})
        else:
            _fit(_trainer(config, use_gpu, status))
        done = outcome(config)
        return Finished(done, _evaluate(config, done, use_gpu, status) if config.train.report_inputs else {})


def _trainer(config: RunConfig, use_gpu: bool, status: Any) -> ray.train.torch.TorchTrainer:
    run_dir = str(config.run_dir.absolute())  # workers have folders of their own
    return ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"config": config.model_dump(mode="json"), "run_dir": run_dir, "status": status},
        scaling_config=_scaling(config.cluster, use_gpu),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=_ray_run_config(config),
    )


def _work(arguments: dict[str, Any]) -> None:
    """What Ray Train runs in every worker. Its imports are its own: driver and controller start without them."""
    import torch

    from t2l.cluster.worker import Place, run_worker
    from t2l.train.zero import DeepSpeedEngine

    # Set here, not by Ray's runtime environment: with one, Ray would not use the processes that it has waiting.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    config = parse_config(arguments["config"])
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    assert isinstance(device, torch.device)
    if device.type == "cpu":
        torch.set_num_threads(config.cluster.cpus_per_worker)
    run_dir = Path(arguments["run_dir"])
    place = Place(run_dir, context.get_world_rank(), context.get_world_size(), str(device))
    status = arguments["status"]

    def tell(news: Any) -> None:
        if place.rank == 0:
            status.tell.remote(news)

    def make_engine(module: Any, state: Any) -> DeepSpeedEngine:
        return DeepSpeedEngine(module, config.train, config.cluster.zero_stage, place.device, state)

    run_worker(config, place, make_engine, tell)


def _evaluate(config: RunConfig, done: Outcome, use_gpu: bool, status: Any) -> Report:
    """The report, made on a node that has what a worker has."""

    def evaluate() -> Report:
        from t2l.cluster.report import make_report

        return make_report(config, done, lambda news: status.tell.remote({"phase": news}))

    task = ray.remote(num_cpus=config.cluster.cpus_per_worker, num_gpus=int(use_gpu))(evaluate)
    try:
        return ray.get(task.remote())
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, T2LError) else error) from None


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS or `ray job submit` names, else start one on this machine."""
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)


def check_resources(cluster: ClusterConfig) -> bool:
    """Whether the run uses GPUs. Raises ResourceError if the cluster has fewer CPUs or GPUs than the run needs."""
    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    use_gpu = gpus > 0 if cluster.use_gpu is None else cluster.use_gpu
    if use_gpu and gpus < cluster.num_workers:
        raise ResourceError(
            f"cluster.num_workers is {cluster.num_workers} with one GPU each, but the cluster has {gpus}: "
            "lower it, add GPUs, or set cluster.use_gpu=false"
        )
    if cpus < cluster.num_workers * cluster.cpus_per_worker:
        raise ResourceError(
            f"cluster.num_workers is {cluster.num_workers} with cluster.cpus_per_worker {cluster.cpus_per_worker}, but "
            f"the cluster has {cpus} CPUs: lower either, or add nodes"
        )
    return use_gpu


def _scaling(cluster: ClusterConfig, use_gpu: bool) -> ray.train.ScalingConfig:
    resources = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if use_gpu else {})
    return ray.train.ScalingConfig(num_workers=cluster.num_workers, use_gpu=use_gpu, resources_per_worker=resources)


def _ray_run_config(config: RunConfig) -> ray.train.RunConfig:
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.cluster.start_timeout_s)
    return ray.train.RunConfig(
        name=time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}",
        storage_path=str((config.run_dir / "ray").absolute()),
    )


def _fit(trainer: ray.train.torch.TorchTrainer) -> None:
    """Run, and let a worker's own T2LError out as itself, without Ray's trace around it."""
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if own := _own_error(failure):
                raise own from None
        raise


def _own_error(failure: BaseException | None) -> T2LError | None:
    """The T2LError in a worker's failure, which Ray wraps; None if that was something else."""
    while failure is not None and not isinstance(failure, T2LError):
        failure = getattr(failure, "_base_exc", None)
    return failure


@contextmanager
def _shown(line: LiveLine) -> Iterator[Any]:
    """A status actor, shown by a thread until the block ends."""
    status: Any = ray.remote(num_cpus=0)(Status).remote()
    done = threading.Event()

    def poll() -> None:
        while not done.wait(_POLL_SECONDS):
            line.show(*ray.get(status.read.remote()))

    thread = threading.Thread(target=poll, daemon=True)
    with line:
        thread.start()
        try:
            yield status
        finally:
            done.set()
            thread.join()
            line.show(*ray.get(status.read.remote()))
            ray.kill(status)
