"""The application under test on the test session's Ray, and what breaks it."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil
import ray
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

APP = "t2l"
CONFIG = Path(__file__).parents[1] / "serve" / "config.yaml"
_PATIENCE_S = 240  # a loaded machine starts slowly
DEPLOYMENTS = ("Gateway", "TextEncoder", "HyperNetwork", "LLM")


@dataclass(frozen=True)
class Server:
    """The running application of serve/config.yaml: where it listens, and its replicas."""

    url: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def scale(self, replicas: int) -> None:
        """Deploy serve/config.yaml with so many replicas of everything, or change their number.

        Small for tests: few rows and fewer slots, so that requests queue and evict; no GPUs.
        """
        config = yaml.safe_load(CONFIG.read_text())
        del config["http_options"]  # Serve runs already
        application = config["applications"][0] | {"runtime_env": {}}
        application["args"]["engine"] |= {"rows": 16, "adapter_slots": 4, "host_cache_mb": 8, "max_length": None}
        application["args"]["limits"] |= {"max_tokens": 400}
        application["args"]["timeouts"] |= {"encode_s": 15.0}
        for deployment in application["deployments"]:
            deployment.pop("autoscaling_config", None)
            deployment |= {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0.1}}
        schema = ServeDeploySchema.model_validate(config | {"applications": [application]})
        client = _get_global_client()
        assert client is not None
        client.deploy_apps(schema, _blocking=False)  # it would wait for a minute at most
        self.wait_until_ready()
        self._wait(lambda: self._running() == dict.fromkeys(DEPLOYMENTS, replicas), _PATIENCE_S)

    def _running(self) -> dict[str, int]:
        """Replicas that are up, by deployment."""
        deployments = serve.status().applications[APP].deployments
        return {
            name: sum(count for state, count in found.replica_states.items() if state == "RUNNING")
            for name, found in deployments.items()
        }

    def replicas(self, name: str) -> list[str]:
        """Names of the actors of a deployment."""
        prefix = f"SERVE_REPLICA::{APP}#{name}#"
        actors: list[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)  # type: ignore[assignment]
        return [actor["name"] for actor in actors if actor["name"].startswith(prefix)]

    def kill(self, name: str, number: int | None = None) -> None:
        """Kill replicas of a deployment, all or so many, as a crash would."""
        for actor in self.replicas(name)[:number]:
            ray.kill(ray.get_actor(actor, namespace="serve"), no_restart=True)

    @contextmanager
    def stalled(self, name: str) -> Iterator[None]:
        """The deployment's processes stand still meanwhile."""
        title = f"ServeReplica:{APP}:{name}"
        own = psutil.Process().children(recursive=True)  # there may be other applications on this machine
        processes = [process for process in own if title in " ".join(process.cmdline())]
        assert processes, f"no process is called {title}"
        for process in processes:
            os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process.pid, signal.SIGCONT)

    def metric(self, name: str) -> float:
        """Sum of a metric over all replicas and labels."""
        lines = self.http.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def wait_until_ready(self, seconds: float = _PATIENCE_S) -> None:
        self._wait(self._is_ready, seconds)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/ready", timeout=5).status_code == 200
        except httpx.TransportError:  # Serve holds requests back while it has no replica
            return False

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"the application is not as expected after {seconds} s"
            time.sleep(0.2)


@contextmanager
def running() -> Iterator[Server]:
    """The application on a free port of the Ray that is initialised; Serve is stopped in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"port": port})
    server = Server(f"http://127.0.0.1:{port}")
    server.scale(1)
    yield server
    serve.shutdown()


def ask(server: Server, description: str | None, text: str, max_tokens: int = 32) -> str:
    """A greedy answer, under the adapter of a description or from the base model."""
    reply = server.client.chat.completions.create(
        model="embedded",
        messages=[{"role": "user", "content": text}],
        max_tokens=max_tokens,
        temperature=0,
        extra_body={} if description is None else {"task_description": description},
    )
    return reply.choices[0].message.content or ""
