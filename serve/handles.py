"""How deployments call each other."""

from ray.serve.handle import DeploymentHandle


def by_value(handle: DeploymentHandle) -> DeploymentHandle:
    """One whose messages go straight over gRPC, not through Ray's object store: half the time of a call.

    RAY_SERVE_USE_GRPC_BY_DEFAULT does so for handles that are made where it is set, but not for those that `serve run`
    makes in its own process and gives to the replicas.
    """
    return handle.options(_by_reference=False)
