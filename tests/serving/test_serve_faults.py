"""What breaks stays small: replicas die, clients leave, an encoder stalls; the service goes on."""

import asyncio
import hashlib
import json
import time

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam
from serving import Server, ask

from t2l.tasks.universe import universe

TASKS = universe(None).test
DESCRIPTION = TASKS[0].unseen_descriptions[0]
BACKENDS = ("TextEncoder", "HyperNetwork", "LLM")
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": TASKS[0].test[0].input}]


def answer(server: Server) -> str:
    return ask(server, DESCRIPTION, TASKS[0].test[0].input)


def make(server: Server) -> tuple[str, str]:
    """Id and hash of the downloaded folder."""
    id = server.http.post("/v1/adapters", json={"descriptions": [DESCRIPTION]}).json()["data"][0]["id"]
    content = server.http.get(f"/v1/adapters/{id}/download")
    assert content.status_code == 200
    return id, hashlib.sha256(content.content).hexdigest()


def test_idle_replicas_are_replaced_and_make_the_same_adapters(server: Server) -> None:
    before, said = make(server), answer(server)
    for name in BACKENDS:
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


def test_killed_under_load_nothing_hangs_or_breaks(server: Server) -> None:
    descriptions = [task.unseen_descriptions[1] for task in TASKS[:24]]

    async def code(http: httpx.AsyncClient, number: int) -> int:
        body = {"model": "embedded", "messages": QUESTION, "task_description": descriptions[number % 24]}
        return (await http.post("/v1/chat/completions", json=body)).status_code

    async def load() -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=90) as http:
            calls = [asyncio.create_task(code(http, number)) for number in range(48)]
            for name in BACKENDS:
                await asyncio.sleep(0.2)
                await asyncio.to_thread(server.kill, name)
            return list(await asyncio.gather(*calls))

    codes = asyncio.run(load())
    assert set(codes) <= {200, 503, 504}, codes  # 504: nobody came back in time
    server.wait_until_ready()
    assert answer(server)


def test_clients_that_leave_free_their_rows_and_disturb_nobody(server: Server) -> None:
    descriptions = [task.unseen_descriptions[2] for task in TASKS[:50]]
    body = {"model": "embedded", "messages": QUESTION, "stream": True, "max_tokens": 48, "ignore_eos": True}

    async def read(http: httpx.AsyncClient, description: str, leave: bool) -> str:
        """The streamed text, or its beginning."""
        text = ""
        async with http.stream("POST", "/v1/chat/completions", json={**body, "task_description": description}) as reply:
            async for line in reply.aiter_lines():
                if line.startswith("data: {"):
                    choices = json.loads(line[6:])["choices"]
                    text += "".join(choice["delta"].get("content") or "" for choice in choices)
                if leave and text:
                    break
        return text

    async def load(leavers: int) -> list[str]:
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=server.url, timeout=120, limits=limits) as http:
            return list(await asyncio.gather(*(read(http, d, i < leavers) for i, d in enumerate(descriptions))))

    undisturbed, disturbed = asyncio.run(load(0)), asyncio.run(load(25))
    assert disturbed[25:] == undisturbed[25:]
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
