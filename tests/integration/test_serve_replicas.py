"""serve/config.yaml, with two replicas of everything and no GPU: the same answers as from one."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
from serving import Server, ask

from t2l.tasks.universe import universe

CONFIG = Path(__file__).parents[2] / "serve" / "config.yaml"
TASKS = universe(None).test[:8]


@pytest.fixture(scope="module")
def pair(server: Server) -> Iterator[Server]:
    """The application of the file beside the one of the other tests, under a prefix."""
    config = yaml.safe_load(CONFIG.read_text())
    application = config["applications"][0]
    application |= {"name": "pair", "route_prefix": "/pair", "runtime_env": {}}
    application["args"]["engine"] |= {"rows": 8, "adapter_slots": 2, "max_length": None}
    for deployment in application["deployments"]:
        deployment.pop("autoscaling_config", None)
        deployment |= {"num_replicas": 2, "ray_actor_options": {"num_cpus": 0.1}}
    del config["http_options"]  # Serve runs already
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate(config), _blocking=True)
    pair = Server(f"{server.url}/pair", "pair")
    pair.wait_until_ready()
    yield pair
    serve.delete("pair")


def test_two_replicas_answer_as_one(server: Server, pair: Server) -> None:
    questions = [(task.unseen_descriptions[3], task.test[i].input) for task in TASKS for i in range(3)]

    def answers(server: Server) -> list[str]:
        with ThreadPoolExecutor(24) as pool:
            return list(pool.map(lambda pair: ask(server, *pair), questions))

    assert answers(pair) == answers(server)
    assert {name: len(pair.replicas(name)) for name in ("Gateway", "TextEncoder", "HyperNetwork", "LLM")} == {
        "Gateway": 2, "TextEncoder": 2, "HyperNetwork": 2, "LLM": 2,
    }  # fmt: skip


def test_both_gateways_know_what_one_was_told(server: Server, pair: Server) -> None:
    descriptions = [task.unseen_descriptions[4] for task in TASKS]
    made = pair.http.post("/v1/adapters", json={"descriptions": descriptions}).json()["data"]
    ids = [adapter["id"] for adapter in made]
    alone = server.http.post("/v1/adapters", json={"descriptions": descriptions}).json()["data"]
    assert ids == [adapter["id"] for adapter in alone]
    for _ in range(4):  # whichever replica answers
        assert all(pair.http.get(f"/v1/adapters/{id}").status_code == 200 for id in ids)
    assert pair.http.delete(f"/v1/adapters/{ids[0]}").status_code == 200
    assert {pair.http.get(f"/v1/adapters/{ids[0]}").status_code for _ in range(8)} == {404}
    zips = {pair.http.get(f"/v1/adapters/{ids[1]}/download").content for _ in range(4)}
    assert zips == {server.http.get(f"/v1/adapters/{ids[1]}/download").content}


def test_one_of_two_replicas_dies_and_only_its_requests_fail(pair: Server) -> None:
    questions = [(task.unseen_descriptions[5], task.test[i].input) for task in TASKS for i in range(3)]

    def code(question: tuple[str, str]) -> int:
        body = {"model": "embedded", "messages": [{"role": "user", "content": question[1]}]}
        body |= {"task_description": question[0], "max_tokens": 100, "ignore_eos": True}
        return pair.http.post("/v1/chat/completions", json=body).status_code

    with ThreadPoolExecutor(24) as pool:
        codes = [pool.submit(code, question) for question in questions]
        time.sleep(1.5)
        pair.kill("LLM", 1)
        found = [future.result() for future in codes]
    assert set(found) <= {200, 503} and found.count(200) >= 8, found
    assert code(questions[0]) == 200  # at once: the other replica lives
