"""Errors of ours that were raised in another process of the cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

from t2l.errors import T2LError


@contextmanager
def own_errors() -> Iterator[None]:
    """Lets a T2LError out that a Ray task or actor raised as itself, and any other without the trace of this side."""
    from ray.exceptions import RayTaskError

    try:
        yield
    except RayTaskError as error:
        raise (error.cause if isinstance(error.cause, T2LError) else error) from None
