"""The application under test on the test session's Ray, and what breaks it."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import openai
import psutil
import ray
from ray import serve

from serve.app import deployment
from serve.settings import Settings


@dataclass(frozen=True)
class Server:
    """A running application: where it listens, and its replicas."""

    url: str
    app: str = "t2l"

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    @property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60)

    def replicas(self, name: str) -> list[str]:
        """Names of the actors of a deployment."""
        prefix = f"SERVE_REPLICA::{self.app}#{name}#"
        actors = ray.util.list_named_actors(all_namespaces=True)
        return [actor["name"] for actor in actors if actor["name"].startswith(prefix)]

    def kill(self, name: str, number: int | None = None) -> None:
        """Kill replicas of a deployment, all or so many, as a crash would."""
        for actor in self.replicas(name)[:number]:
            ray.kill(ray.get_actor(actor, namespace="serve"), no_restart=True)

    @contextmanager
    def stalled(self, name: str) -> Iterator[None]:
        """The deployment's processes stand still meanwhile."""
        title = f"ServeReplica:{self.app}:{name}"
        processes = [p for p in psutil.process_iter(["cmdline"]) if title in " ".join(p.info["cmdline"] or [])]
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

    def wait_until_ready(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while self.http.get("/ready").status_code != 200:
            assert time.monotonic() < end, "the application is not ready"
            time.sleep(0.2)


@contextmanager
def running(settings: Settings) -> Iterator[Server]:
    """Start the application on a free port of the Ray that is initialised; stop Serve in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"port": port})
    server = Server(f"http://127.0.0.1:{port}")
    serve.run(deployment(settings), name=server.app)
    server.wait_until_ready()
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
