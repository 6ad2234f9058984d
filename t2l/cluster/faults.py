"""What becomes of a worker's failure: what would only come again ends the run, else the workers are started again."""

from typing import Any

import ray.train

from t2l.errors import T2LError

_BUGS = (TypeError, ValueError, AttributeError, LookupError, AssertionError, ImportError, NameError)


class FaultWatch(ray.train.UserCallback):
    """Runs in Ray Train's controller, before it decides whether to start the workers again; `status` hears of it.

    Errors of ours (settings, data, a full disk, a loss that is no number) and bugs would only come again: raised here,
    they end the run whatever `cluster.max_failures` says. Deaths and broken connections are left to it.
    """

    def __init__(self, status: Any) -> None:
        self._status = status

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for failure in worker_exceptions.values():
            if own := own_error(failure):
                raise own
            if isinstance(cause_of(failure), _BUGS):
                raise failure
        # Those that were waiting for a worker that died fail as well: the first words of each tell which is which.
        said = "; ".join(f"worker {rank}: {_first_words(failure)}" for rank, failure in worker_exceptions.items())
        self._status.tell.remote({"note": f"{said}: going on from the newest checkpoint", "phase": "starting again"})


def own_error(failure: BaseException) -> T2LError | None:
    """The T2LError in a failure; None if that was something else."""
    cause = cause_of(failure)
    return cause if isinstance(cause, T2LError) else None


def cause_of(failure: BaseException) -> BaseException:
    """What a worker raised, without what Ray Train wraps it in."""
    while inner := getattr(failure, "_base_exc", None):
        failure = inner
    return failure


def _first_words(failure: BaseException) -> str:
    return str(cause_of(failure)).strip().partition("\n")[0].rstrip(".")
