"""200 streaming clients at once, each with a description of its own: beside the base model, and beside PEFT.

    python benchmarks/serve_load.py --out benchmarks/results/serve_load_cpu.json

One run: the real application on a local Ray, asked over HTTP. In
turns, all clients ask the base model and then each under its own adapter; every client sends its next question when it
has its answer. Answers have a fixed length (`ignore_eos`), so that both sides write the same number of tokens. First of
all each description is new ("cold"), and what comes out is compared with each adapter's answer alone. An error of any
request ends the benchmark. Last, with the server stopped and all cores its own, PEFT's mixed batch
(benchmarks/peft_mixed.py) writes as many answers in process, without HTTP.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import ray
from harness import finish, head, make_parser
from ray import serve

from serve.app import deployment
from serve.settings import EngineSettings, Settings
from t2l.tasks.universe import universe

PORT = 8017


@dataclass(frozen=True)
class Question:
    description: str
    input: str


@dataclass(frozen=True)
class Answer:
    text: str
    tokens: int
    first_token_s: float
    seconds: float


def questions(clients: int) -> list[Question]:
    """So many held-out descriptions, no two alike, with an input that fits."""
    tasks = universe(None).test
    found = [(task.unseen_descriptions[i], task.test[i].input) for i in range(8) for task in tasks]
    return [Question(*pair) for pair in dict(found).items()][:clients]


async def ask(session: aiohttp.ClientSession, question: Question, adapted: bool, max_tokens: int | None) -> Answer:
    """One streamed chat completion; max_tokens None lets the model end by itself."""
    body: dict[str, Any] = {
        "model": "embedded",
        "messages": [{"role": "user", "content": question.input}],
        "stream": True,
        "temperature": 0,
        "stream_options": {"include_usage": True},
        "max_tokens": max_tokens or 64,
        "ignore_eos": max_tokens is not None,
    }
    if adapted:
        body["task_description"] = question.description
    start, first, text, tokens = time.perf_counter(), 0.0, "", 0
    async with session.post("/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"])
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
            piece = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
            if piece and not text:
                first = time.perf_counter() - start
            text += piece
    return Answer(text, tokens, first, time.perf_counter() - start)


async def load(asked: list[Question], adapted: bool, max_tokens: int | None, turns: int) -> tuple[list[Answer], float]:
    """All clients at once, `turns` questions each, one after another; the answers and the seconds in all."""
    timeout, connector = aiohttp.ClientTimeout(total=600), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{PORT}", timeout=timeout, connector=connector) as session:

        async def client(question: Question) -> list[Answer]:
            return [await ask(session, question, adapted, max_tokens) for _ in range(turns)]

        start = time.perf_counter()
        answers = await asyncio.gather(*(client(question) for question in asked))
        return [answer for row in answers for answer in row], time.perf_counter() - start


def figures(answers: list[Answer], seconds: float) -> dict[str, float]:
    waits = statistics.quantiles([answer.first_token_s for answer in answers], n=100)
    return {
        "tokens_per_s": sum(answer.tokens for answer in answers) / seconds,
        "requests_per_s": len(answers) / seconds,
        "first_token_p50_s": waits[49],
        "first_token_p99_s": waits[98],
        "seconds": seconds,
    }


@contextmanager
def application(settings: Settings) -> Iterator[None]:
    """The real application on a local Ray of its own, on PORT."""
    ray.init("local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": PORT})
    try:
        serve.run(deployment(settings))
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def serve_and_measure(asked: list[Question], arguments: argparse.Namespace) -> dict[str, Any]:
    """Put the application under load, base and adapted in turns."""
    rows = len(asked)
    with application(Settings(engine=EngineSettings(rows=rows, adapter_slots=rows, max_length=256))):
        asyncio.run(load(asked[:8], True, 8, 1))  # warm-up
        cold, cold_s = asyncio.run(load(asked, True, None, 1))
        rounds = []
        for _ in range(arguments.rounds):
            base = figures(*asyncio.run(load(asked, False, arguments.tokens, arguments.turns)))
            adapted = figures(*asyncio.run(load(asked, True, arguments.tokens, arguments.turns)))
            rounds.append({"base": base, "adapted": adapted})
            print(f"base {base['tokens_per_s']:,.0f}  adapted {adapted['tokens_per_s']:,.0f} tokens/s", flush=True)
        return {"cold": figures(cold, cold_s), "cold_answers": [answer.text for answer in cold], "rounds": rounds}


def mixed_up(asked: list[Question], answers: list[str]) -> int:
    """How many answers under load differ from what the same adapter answers alone."""
    from t2l import TextToLora

    t2l = TextToLora.from_pretrained()
    alone = [t2l.run([q.description], [q.input], max_new_tokens=64)[0] for q in asked]
    return sum(answer.strip() != text for answer, text in zip(answers, alone, strict=True))


def peft_mixed(clients: int, tokens: int) -> dict[str, Any]:
    """In a process of its own, with every core."""
    script = Path(__file__).with_name("peft_mixed.py")
    command = [sys.executable, str(script), "--rows", str(clients), "--tokens", str(tokens)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count())}
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def summary(result: dict[str, Any], peft: dict[str, Any], wrong: int) -> dict[str, Any]:
    rounds = result["rounds"]
    middle = {
        side: {key: statistics.median(r[side][key] for r in rounds) for key in rounds[0][side]}
        for side in ("base", "adapted")
    }
    ratios = [r["adapted"]["tokens_per_s"] / r["base"]["tokens_per_s"] for r in rounds]
    return {
        "adapted_over_base": statistics.median(ratios),
        "adapted_over_base_by_round": ratios,
        "adapted_over_peft_mixed_batch": middle["adapted"]["tokens_per_s"] / peft["tokens_per_s"],
        "answers_unlike_alone": wrong,
        **middle,
        "cold": result["cold"],
        "peft_mixed_batch": peft,
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64, help="length of each answer")
    parser.add_argument("--peft-tokens", type=int, default=32, help="length of its answers: it is slow")
    parser.add_argument("--turns", type=int, default=1, help="questions of each client and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    asked = questions(arguments.clients)
    result = head("serve_load", clients=len(asked))
    served = serve_and_measure(asked, arguments)
    wrong = mixed_up(asked, served["cold_answers"])
    peft = peft_mixed(len(asked), arguments.peft_tokens)
    finish(result | summary(served, peft, wrong), arguments.out)


if __name__ == "__main__":
    main()
