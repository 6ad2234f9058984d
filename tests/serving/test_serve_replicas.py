"""Two replicas of everything: the same answers as from one, also while one of them dies."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import DEPLOYMENTS, Server, ask

from serve.api.peers import LATER_S
from t2l.tasks.universe import universe

TASKS = universe(None).test[:8]
DESCRIPTIONS = [task.unseen_descriptions[4] for task in TASKS]


def answers(server: Server) -> list[str]:
    """To three inputs of each task, all at once."""
    questions = [(task.unseen_descriptions[3], task.test[i].input) for task in TASKS for i in range(3)]
    with ThreadPoolExecutor(24) as pool:
        return list(pool.map(lambda question: ask(server, *question), questions))


def make(server: Server) -> list[str]:
    """Ids."""
    made = server.http.post("/v1/adapters", json={"descriptions": DESCRIPTIONS}).json()["data"]
    return [adapter["id"] for adapter in made]


def download(server: Server, id: str) -> bytes:
    return server.http.get(f"/v1/adapters/{id}/download").raise_for_status().content


@pytest.fixture(scope="module")
def alone(server: Server) -> tuple[list[str], list[str], bytes]:
    """Answers, ids and a download from one replica of everything."""
    ids = make(server)
    return answers(server), ids, download(server, ids[1])


@pytest.fixture(scope="module")
def pair(server: Server, alone: object) -> Iterator[Server]:
    server.scale(2)
    yield server
    server.scale(1)


def test_two_replicas_answer_as_one(pair: Server, alone: tuple[list[str], list[str], bytes]) -> None:
    assert [len(pair.replicas(name)) for name in DEPLOYMENTS] == [2, 2, 2, 2]
    assert answers(pair) == alone[0]


def test_both_gateways_know_what_one_was_told(pair: Server, alone: tuple[list[str], list[str], bytes]) -> None:
    ids = make(pair)
    assert ids == alone[1]
    for _ in range(4):  # whichever replica answers
        assert all(pair.http.get(f"/v1/adapters/{id}").status_code == 200 for id in ids)
    assert {download(pair, ids[1]) for _ in range(4)} == {alone[2]}
    assert pair.http.delete(f"/v1/adapters/{ids[0]}").status_code == 200
    assert {pair.http.get(f"/v1/adapters/{ids[0]}").status_code for _ in range(8)} == {404}


def test_what_is_deleted_before_the_others_were_told_of_it_stays_deleted(pair: Server) -> None:
    for task in TASKS:
        body = {"model": "embedded", "messages": [{"role": "user", "content": task.test[0].input}], "max_tokens": 1}
        body["task_description"] = task.unseen_descriptions[6]
        id = pair.http.post("/v1/chat/completions", json=body).raise_for_status().json()["model"]
        assert pair.http.delete(f"/v1/adapters/{id}").status_code == 200
        time.sleep(2 * LATER_S)
        assert {pair.http.get(f"/v1/adapters/{id}").status_code for _ in range(8)} == {404}


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
