"""The files that clusters are made from: Ray's launcher, KubeRay, the image.

Checked by what would read them, where that is at hand. KubeRay's own schema (1.2 MB) is not, so the fields that we may
use are named here, after https://docs.ray.io/en/master/kuberay/references/api.html.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import ray
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from serve.settings import SHORT_WAYS
from t2l.cluster import encode
from t2l.cluster.sweep import check_concurrency
from t2l.cluster.train import _encode_ahead, _note_late_validations, check_resources
from t2l.config import ClusterConfig, RunConfig, load_config
from t2l.errors import ResourceError

ROOT = Path(__file__).resolve().parents[2]
RAY = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]  # type: ignore[index]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KUBERAY_FIELDS = {
    "RayJob": "entrypoint rayClusterSpec backoffLimit shutdownAfterJobFinishes ttlSecondsAfterFinished runtimeEnvYAML",
    "RayService": "serveConfigV2 rayClusterConfig upgradeStrategy serveService",
    "cluster": "rayVersion authOptions enableInTreeAutoscaling autoscalerOptions headGroupSpec workerGroupSpecs",
    "headGroupSpec": "rayStartParams template serviceType",
    "workerGroupSpec": "groupName replicas minReplicas maxReplicas rayStartParams template",
}


def launcher() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def manifest(kind: str) -> dict[str, Any]:
    [document] = yaml.safe_load_all((ROOT / "deploy" / f"{kind.lower()}.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("ray.io/v1", kind)
    return document


def ray_cluster(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["rayClusterSpec" if document["kind"] == "RayJob" else "rayClusterConfig"]


def groups(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = ray_cluster(document)
    yield from [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


# ---- Ray's cluster launcher


def test_ray_accepts_the_launchers_file() -> None:
    validate_config(prepare_config(launcher()))
    with pytest.raises(Exception, match="max_workerz"):
        validate_config(prepare_config(launcher() | {"max_workerz": 1}))


def test_workers_have_gpus_come_on_demand_and_may_be_spot() -> None:
    types = launcher()["available_node_types"]
    head = types.pop(launcher()["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert all(kind["resources"]["GPU"] and kind["min_workers"] == 0 < kind["max_workers"] for kind in types.values())
    assert types["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert types["gpu_spot"]["node_config"]["InstanceType"] == types["gpu"]["node_config"]["InstanceType"]


def test_its_command_is_a_run_that_waits_for_nodes() -> None:
    comment = "".join(line[1:].rstrip("\\\n") for line in (ROOT / "cluster.yaml").open() if line.startswith("#"))
    command = re.search(r"-- +python (\S+) --config (\S+) (.+?) +ray down", comment)
    assert command is not None and (ROOT / command[1]).is_file()
    run = load_config(ROOT / command[2], command[3].split())
    assert check_resources(run.cluster) is True
    gpus = sum(
        kind["resources"].get("GPU", 0) * kind.get("max_workers", 0)
        for kind in launcher()["available_node_types"].values()
    )
    assert run.cluster.max_workers <= gpus
    with pytest.raises(ResourceError, match=r"set cluster\.use_gpu"):
        check_resources(ClusterConfig(autoscaled=True))


def test_nodes_that_are_still_to_come_are_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"memory": 1.0})  # of a head that takes no work
    run = RunConfig(cluster=ClusterConfig(autoscaled=True, use_gpu=True, num_workers=(2, 8)))
    pools: list[int] = []
    monkeypatch.setattr(encode, "encode_ahead", lambda config, folder, num_actors, *_: pools.append(num_actors))
    _encode_ahead(run, status=None)
    assert pools == [8]
    assert check_concurrency({"a": run}, None) == 1, "Ray Tune takes 0 for any number"
    assert check_concurrency({"a": run}, 3) == 3


@pytest.mark.parametrize(("gpus", "noted"), [(1, True), (2, True), (3, False)])
def test_validations_that_must_wait_are_said(monkeypatch: pytest.MonkeyPatch, gpus: int, noted: bool) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": float(gpus)})
    status, cluster = MagicMock(), ClusterConfig(num_workers=(1, 2))
    _note_late_validations(RunConfig(cluster=cluster), status)
    notes = [call.args[0]["note"] for call in status.tell.remote.call_args_list]
    assert [f"all {gpus} GPUs: validations then wait" in note and "2 checkpoints" in note for note in notes] == [
        True
    ] * noted


def test_trials_that_the_cluster_cannot_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    run = RunConfig(cluster=ClusterConfig(num_workers=(1, 4)))
    assert check_concurrency({"a": run}, None) == 1, "with fewer workers, it fits"
    with pytest.raises(ResourceError, match="2 trials at a time were asked for, but the cluster holds 1"):
        check_concurrency({"a": run}, 2)


def test_every_node_asks_for_the_token() -> None:
    config = launcher()
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    for side in ("head", "worker"):
        [start] = [line for line in config[f"{side}_start_ray_commands"] if "ray start" in line]
        assert start.startswith("export RAY_AUTH_MODE=token;")


# ---- KubeRay


@pytest.mark.parametrize("kind", ["RayJob", "RayService"])
def test_manifests_have_kuberays_fields_and_rays_validator_accepts_their_clusters(kind: str) -> None:
    document = manifest(kind)
    cluster = ray_cluster(document)
    assert document["spec"].keys() <= set(KUBERAY_FIELDS[kind].split())
    assert cluster.keys() <= set(KUBERAY_FIELDS["cluster"].split())
    assert cluster["headGroupSpec"].keys() <= set(KUBERAY_FIELDS["headGroupSpec"].split())
    assert all(group.keys() <= set(KUBERAY_FIELDS["workerGroupSpec"].split()) for group in cluster["workerGroupSpecs"])
    assert cluster["authOptions"] == {"mode": "token"}
    named = {"metadata": document["metadata"] | {"namespace": "default"}, "spec": cluster}
    config = _derive_autoscaling_config_from_ray_cr(named)
    kinds = config["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert kinds["gpu"]["resources"]["GPU"] >= 1 and kinds["gpu"]["min_workers"] >= 1


@pytest.mark.parametrize("kind", ["RayJob", "RayService"])
def test_pods_are_whole(kind: str) -> None:
    for group in groups(manifest(kind)):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        for variable in container.get("env", []):
            assert variable["valueFrom"]["secretKeyRef"].keys() >= {"name", "key"}


def test_the_job_is_one_that_runs_and_fits() -> None:
    document = manifest("RayJob")
    python, script, option, config, *overrides = shlex.split(document["spec"]["entrypoint"])
    assert (python, option) == ("python", "--config")
    run = load_config(_in_checkout(config), overrides)
    assert _in_checkout(script).is_file()
    [group] = ray_cluster(document)["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    [mount] = [m for m in container["volumeMounts"] if m["name"] == "storage"]
    assert run.output_dir.startswith(mount["mountPath"])
    limits = container["resources"]["limits"]
    assert run.cluster.num_workers == group["replicas"] * int(limits["nvidia.com/gpu"])
    assert run.cluster.num_workers * run.cluster.cpus_per_worker <= group["replicas"] * int(limits["cpu"])


def test_the_service_serves_serve_config() -> None:
    config = yaml.safe_load(manifest("RayService")["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(config)
    expected = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    assert config == expected
    assert expected["applications"][0]["runtime_env"]["env_vars"] == SHORT_WAYS, "keys come from the secret"
    for group in groups(manifest("RayService")):
        [container] = group["template"]["spec"]["containers"]
        assert "T2L_API_KEYS" in {variable["name"] for variable in container["env"]}


def _in_checkout(path: str) -> Path:
    return ROOT / Path(path).relative_to(_workdir())


# ---- the image


def _workdir() -> str:
    return re.findall(r"^WORKDIR (\S+)$", DOCKERFILE, re.MULTILINE)[-1]


def test_one_image_and_one_version_of_ray_everywhere() -> None:
    images = {launcher()["docker"]["image"]}
    for kind in ("RayJob", "RayService"):
        assert ray_cluster(manifest(kind))["rayVersion"] == RAY
        images |= {group["template"]["spec"]["containers"][0]["image"] for group in groups(manifest(kind))}
    [image] = images
    assert f"docker build -t {image} ." in DOCKERFILE
    assert f"RAY_IMAGE=rayproject/ray:{RAY}-py311-gpu" in DOCKERFILE


def test_the_dockerfile_copies_what_is_there_and_travels() -> None:
    sources = [
        source
        for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)
        for source in [word for word in line.split() if not word.startswith("--")][:-1]
    ]
    assert {"t2l", "jobs", "serve", "tune"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)
    travels = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == travels
