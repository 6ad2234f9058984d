"""What breaks stays small: replicas die, clients leave, an encoder stalls; the service goes on."""

import asyncio
import hashlib
import time

import httpx
import openai
import pytest
from serving import Server

from t2l.tasks.universe import universe

TASKS = universe(None).test
DESCRIPTION = TASKS[0].unseen_descriptions[0]
QUESTION = [{"role": "user", "content": TASKS[0].test[0].input}]


def answer(server: Server, description: str = DESCRIPTION) -> str:
    reply = server.client.chat.completions.create(
        model="embedded", messages=QUESTION, extra_body={"task_description": description}, max_tokens=32
    )
    return reply.choices[0].message.content or ""


def make(server: Server, description: str = DESCRIPTION) -> tuple[str, str]:
    """Id and hash of the downloaded folder."""
    id = server.http.post("/v1/adapters", json={"descriptions": [description]}).json()["data"][0]["id"]
    content = server.http.get(f"/v1/adapters/{id}/download")
    assert content.status_code == 200
    return id, hashlib.sha256(content.content).hexdigest()


@pytest.mark.parametrize("name", ["TextEncoder", "HyperNetwork", "LLM"])
def test_idle_replica_is_replaced_and_makes_the_same_adapters(server: Server, name: str) -> None:
    before, said = make(server), answer(server)
    server.kill(name)
    server.wait_until_ready()
    assert make(server) == before
    assert answer(server) == said


def test_stream_of_a_killed_replica_ends_with_an_error_and_the_next_one_works(server: Server) -> None:
    said = answer(server)
    stream = server.client.chat.completions.create(
        model="embedded", messages=QUESTION, stream=True, max_tokens=400, extra_body={"ignore_eos": True}
    )
    next(stream)
    server.kill("LLM")
    with pytest.raises(openai.APIError):
        for _ in stream:
            pass
    server.wait_until_ready()
    assert answer(server) == said


@pytest.mark.parametrize("name", ["TextEncoder", "HyperNetwork", "LLM"])
def test_killed_under_load_only_requests_in_flight_may_fail(server: Server, name: str) -> None:
    descriptions = [task.unseen_descriptions[1] for task in TASKS[:24]]

    async def ask(http: httpx.AsyncClient, number: int) -> int:
        body = {"model": "embedded", "messages": QUESTION, "task_description": descriptions[number % 24]}
        return (await http.post("/v1/chat/completions", json=body)).status_code

    async def load() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            calls = [asyncio.create_task(ask(http, number)) for number in range(48)]
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.kill, name)
            return list(await asyncio.gather(*calls))

    codes = asyncio.run(load())
    assert set(codes) <= {200, 503}, codes
    server.wait_until_ready()
    assert answer(server)


def test_clients_that_leave_free_their_rows_and_disturb_nobody(server: Server) -> None:
    descriptions = [task.unseen_descriptions[2] for task in TASKS[:50]]
    body = {"model": "embedded", "messages": QUESTION, "stream": True, "max_tokens": 48, "ignore_eos": True}

    async def ask(http: httpx.AsyncClient, description: str, leave: bool) -> str:
        text = ""
        async with http.stream("POST", "/v1/chat/completions", json={**body, "task_description": description}) as reply:
            async for line in reply.aiter_lines():
                text += line
                if leave and '"content"' in line:
                    return text
        return text

    async def load(leavers: int) -> list[str]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as http:
            return list(await asyncio.gather(*(ask(http, d, i < leavers) for i, d in enumerate(descriptions))))

    def contents(answers: list[str]) -> list[str]:
        import json

        return [
            "".join(
                choice["delta"].get("content") or ""
                for part in text.split("data: ")
                if part.startswith("{")
                for choice in json.loads(part)["choices"]
            )
            for text in answers
        ]

    undisturbed, disturbed = asyncio.run(load(0)), asyncio.run(load(25))
    assert contents(disturbed)[25:] == contents(undisturbed)[25:]
    end = time.monotonic() + 10
    while server.metric("t2l_requests_running") or server.metric("t2l_queue_length"):
        assert time.monotonic() < end, "rows of clients that left are still taken"
        time.sleep(0.1)


def test_stalled_encoder_gives_504(server: Server) -> None:
    with server.stalled("TextEncoder"):
        reply = server.http.post("/v1/adapters", json={"descriptions": ["Say something new about the words."]})
    assert reply.status_code == 504
    assert "timeout" in reply.text
    server.wait_until_ready()
    assert answer(server)
