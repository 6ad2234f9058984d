"""How deployments call each other."""

from ray.serve.handle import DeploymentHandle

LARGEST = 1 << 20
"""Bytes of what goes by value. Serve refuses messages over 4 MiB, and from here on the object store is no slower."""


def by_value(handle: DeploymentHandle) -> DeploymentHandle:
    """One whose messages go straight over gRPC, not through Ray's object store: half the time of a call.

    For messages up to LARGEST alone. What is called so ends with the request that calls it, even in a task of its own,
    unless that has a context of its own too.
    RAY_SERVE_USE_GRPC_BY_DEFAULT does the same for all handles that are made where it is set.
    """
    return handle.options(_by_reference=False)
