"""A training run on Ray: TorchTrainer starts the workers, DeepSpeed runs in them, the driver shows how far they are.

Our own checkpoints (t2l/train/state.py) rather than Ray's: whole at any number of workers, checked by their sums, and a
damaged newest one falls back to the one before it, where Ray Train's would end the run. Ray Train is told of those that
are to be validated, does not copy them, and validates them one after another in tasks of their own.

A validation takes no CPU from the count, so that it also runs where workers hold all of them. With GPUs it asks for a
whole one, lest it run a worker out of memory: where the workers hold all, validations wait until these are done, which
Ray Train lets go before it waits for validations. The trainer is done when they all are.

Workers that die (a kill, a lost node) are started again from the newest sound checkpoint, see faults.py. Elastic ones
are started again, at their new number, whenever the cluster has room for more of them.
"""

import logging
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray
import ray.train
import ray.train.torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from t2l.cluster.faults import FaultWatch, own_error
from t2l.cluster.own_errors import own_errors
from t2l.cluster.progress import LiveLine, Status
from t2l.cluster.run import Finished, Outcome, Report, complete, open_run
from t2l.config import ClusterConfig, RunConfig, parse_config
from t2l.data.sampler import check_shares
from t2l.errors import ResourceError
from t2l.files import sole_user
from t2l.hub import environment
from t2l.train.validations import Validate

_POLL_SECONDS = 0.5
_RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Where Ray Train keeps which checkpoints it heard of. It refuses to start if one is gone, as pruned ones are."""

T = TypeVar("T")


def train_on_ray(config: RunConfig) -> Finished:
    """Train a run to its end on the Ray cluster at hand (a local one is started if there is none).

    Goes on where an earlier run of the same name and settings stopped, and evaluates what came of it. Raises the
    T2LError that a worker raised; ResourceError if the cluster is smaller than the run, or another process trains it.
    """
    with sole_user(config.run_dir):
        return _train(config)


def _train(config: RunConfig) -> Finished:
    finished = open_run(config)
    start_ray()
    use_gpu = check_resources(config.cluster)
    with shown(LiveLine(config.train.steps)) as status:
        if finished:
            status.tell.remote({"note": f"{config.run_dir} is finished: {config.train.steps:,} steps"})
        else:
            if use_gpu:
                _note_late_validations(config, status)
                _encode_ahead(config, status)
            fit(make_trainer(config, use_gpu, status))
        done = complete(config, validate_in_task(config, use_gpu, status))
        return Finished(done, _evaluate(config, done, use_gpu, status) if config.train.report_inputs else [])


def make_trainer(
    config: RunConfig, use_gpu: bool, status: Any, callbacks: Sequence[ray.train.UserCallback] = ()
) -> ray.train.torch.TorchTrainer:
    """What trains and validates a run whose folder `open_run` made; `complete` is for when it is done.

    use_gpu: as `check_resources` says. status: a Status actor. callbacks: Ray Train's; each validation is reported to
    them as {"step": ...} when its checkpoint is there.
    """
    check_shares(config.train, config.cluster.max_workers)  # now, not when the run has grown to them
    run_dir = str(_resolved(config))  # workers have folders of their own
    validate = _validation(config, use_gpu, status)
    return ray.train.torch.TorchTrainer(
        _work,
        train_loop_config={"config": config.model_dump(mode="json"), "run_dir": run_dir, "status": status},
        scaling_config=_scaling(config.cluster, use_gpu),
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=_ray_run_config(config, [FaultWatch(status), *callbacks]),
        validation_config=ray.train.ValidationConfig(
            lambda checkpoint, **about: validate(about["step"]),
            ray_remote_kwargs={"num_cpus": 0, "num_gpus": int(use_gpu)},
        ),
    )


def _encode_ahead(config: RunConfig, status: Any) -> None:
    """Before the workers take the GPUs."""
    from t2l.cluster.encode import encode_ahead

    gpus = int(ray.cluster_resources().get("GPU", 0)) or config.cluster.max_workers  # which are still to come
    encode_ahead(config, _resolved(config), gpus, True, lambda news: status.tell.remote(news))


def _note_late_validations(config: RunConfig, status: Any) -> None:
    train, gpus = config.train, int(ray.cluster_resources().get("GPU", 0))
    number = math.ceil(train.steps / train.eval_every) if train.validation_inputs else 0
    if number and gpus <= config.cluster.max_workers and not config.cluster.autoscaled:
        note = (
            f"the workers may take all {gpus} GPUs: validations then wait until training is over, and {number} "
            "checkpoints are kept for them; with a GPU more, they run meanwhile"
        )
        status.tell.remote({"note": note})


def fit(trainer: ray.train.torch.TorchTrainer) -> None:
    """Run a trainer, and let a worker's own T2LError out as itself, without Ray's trace around it."""
    try:
        trainer.fit()
    except ray.train.ControllerError as error:  # as which the controller passes on what FaultWatch raises
        raise own_error(error.controller_failure) or error from None


def validate_in_task(config: RunConfig, use_gpu: bool, status: Any) -> Validate:
    """Validates a checkpoint of a run in a Ray task and waits for it; raises the T2LError that this raised."""
    validate = _validation(config, use_gpu, status)

    def wait(step: int) -> None:
        status.tell.remote({"phase": f"validating step {step:,}"})
        _result_of(lambda: validate(step), 0, use_gpu)

    return wait


def _work(arguments: dict[str, Any]) -> None:
    """What Ray Train runs in every worker. Its imports are its own: driver and controller start without them."""
    import torch

    from t2l.cluster.place import Place
    from t2l.cluster.worker import run_worker
    from t2l.train.state import CheckpointStore
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
    store = CheckpointStore(run_dir, config.train.keep_checkpoints)
    status = arguments["status"]

    def tell(news: Any) -> None:
        if place.rank == 0:
            status.tell.remote(news)

    def make_engine(module: Any, state: Any) -> DeepSpeedEngine:
        return DeepSpeedEngine(module, config.train, config.cluster.zero_stage, place.device, state)

    def validate(step: int) -> None:
        """All workers report, the first one the checkpoint that it has written; then training goes on."""
        first = place.rank == 0
        ray.train.report(
            {"step": step},
            ray.train.Checkpoint(store.path(step)) if first else None,
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.NO_UPLOAD,
            validation=first and ray.train.ValidationTaskConfig({"step": step}),
        )

    run_worker(config, place, make_engine, validate, tell)


def _validation(config: RunConfig, use_gpu: bool, status: Any) -> Callable[[int], dict[str, float]]:
    """A function to send to a node, which validates the checkpoint of a step there and gives its scores."""
    run_dir = _resolved(config)

    def validate(step: int) -> dict[str, float]:
        import torch

        from t2l.cluster.validate import Validator
        from t2l.train.state import CheckpointStore

        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        torch.set_num_threads(config.cluster.cpus_per_worker)
        store = CheckpointStore(run_dir, config.train.keep_checkpoints, config.run_url)
        return Validator(store, "cuda" if use_gpu else "cpu", lambda news: status.tell.remote(news))(step).scores

    return validate


def _evaluate(config: RunConfig, done: Outcome, use_gpu: bool, status: Any) -> Report:
    """The report, made on a node that has what a worker has."""

    def evaluate() -> Report:
        from t2l.cluster.report import make_report

        return make_report(config, done, lambda news: status.tell.remote({"phase": news}))

    return _result_of(evaluate, config.cluster.cpus_per_worker, use_gpu)


def _result_of(work: Callable[[], T], num_cpus: int, use_gpu: bool) -> T:
    """Done by a Ray task; raises the T2LError that it raised, without Ray's trace around it."""
    task: Any = ray.remote(num_cpus=num_cpus, num_gpus=int(use_gpu))(work)
    with own_errors():
        return ray.get(task.remote())


def start_ray() -> None:
    """Join the cluster that RAY_ADDRESS or `ray job submit` names, else start one on this machine."""
    if not ray.is_initialized():
        ray.init(
            os.environ.get("RAY_ADDRESS", "local"),  # not whatever a stopped cluster left a note of
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
            runtime_env={"env_vars": environment()} if environment() else None,  # else it would start new processes
        )


def check_resources(cluster: ClusterConfig) -> bool:
    """Whether the run uses GPUs. Raises ResourceError if the cluster has fewer CPUs or GPUs than the run needs."""
    if cluster.autoscaled:
        if cluster.use_gpu is None:
            raise ResourceError(
                "cluster.autoscaled is true, but not whether nodes with GPUs will come: set cluster.use_gpu"
            )
        return cluster.use_gpu
    total = ray.cluster_resources()
    cpus, gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    use_gpu = gpus > 0 if cluster.use_gpu is None else cluster.use_gpu
    if use_gpu and gpus < cluster.min_workers:
        raise ResourceError(
            f"cluster.num_workers is {cluster.min_workers} with one GPU each, but the cluster has {gpus}: "
            "lower it, add GPUs, or set cluster.use_gpu=false"
        )
    if cpus < cluster.min_workers * cluster.cpus_per_worker:
        raise ResourceError(
            f"cluster.num_workers is {cluster.min_workers} with cluster.cpus_per_worker {cluster.cpus_per_worker}, but "
            f"the cluster has {cpus} CPUs: lower either, or add nodes"
        )
    return use_gpu


def _scaling(cluster: ClusterConfig, use_gpu: bool) -> ray.train.ScalingConfig:
    resources = {"CPU": float(cluster.cpus_per_worker)} | ({"GPU": 1.0} if use_gpu else {})
    return ray.train.ScalingConfig(num_workers=cluster.num_workers, use_gpu=use_gpu, resources_per_worker=resources)


def _ray_run_config(config: RunConfig, callbacks: Sequence[ray.train.UserCallback]) -> ray.train.RunConfig:
    """Ray Train's folder is the run's, as it must hold the checkpoints that Ray Train hears of."""
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(config.cluster.start_timeout_s)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(_POLL_SECONDS))  # how soon it hears of them
    run_dir = _resolved(config)
    (run_dir / _RAY_SNAPSHOT).unlink(missing_ok=True)
    return ray.train.RunConfig(
        name=run_dir.name,
        storage_path=str(run_dir.parent),
        callbacks=list(callbacks),
        failure_config=ray.train.FailureConfig(max_failures=config.cluster.max_failures),
    )


def _resolved(config: RunConfig) -> Path:
    """The run's folder as Ray Train spells it."""
    return config.run_dir.resolve()


@contextmanager
def shown(line: LiveLine) -> Iterator[Any]:
    """A status actor, shown by a thread until the block ends."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # others may be lost
    status: Any = ray.remote(num_cpus=0)(Status).options(scheduling_strategy=here).remote()
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
