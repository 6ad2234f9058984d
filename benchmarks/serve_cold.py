"""From a new description to its first token: embedding, generation, transfer, first token; medians over descriptions.

    python benchmarks/serve_cold.py --out benchmarks/results/serve_cold_cpu.json

The real application on a local Ray, quiet, on a GPU if there is one. Each description is asked twice over, in two forms
that no replica has seen: part by part, through the deployments' own handles, and as a client does, over HTTP.

embedding   TextEncoder.embed, as the Gateway calls it
reading     of which by its own clock: tokens, encoder, nearness
generation  the hypernetwork's forward pass, by its own clock
transfer    all else until the LLM's replica has the adapter: two hops of Ray and a copy
first_token LLM.generate under an adapter that it holds, to its first piece of text
of_base     the same without an adapter
http        POST /v1/chat/completions with the description, streaming, to the first piece of text
http_base   the same question to the base model
above_base  what the description costs: http - http_base, of one question
"""

import argparse
import asyncio
import statistics
import time
from typing import Any

import aiohttp
import torch
from harness import finish, head, make_parser
from ray import serve
from ray.serve.handle import DeploymentHandle
from serve_load import PORT, Question, application, ask, questions
from transformers import AutoTokenizer

from serve.handles import by_value
from serve.protocol import AdapterRef, GenerateRequest, Sampling
from serve.settings import Settings
from t2l.embedded import BASE_DIR

Times = dict[str, float]


async def parts(handles: dict[str, DeploymentHandle], question: Question, prompt_ids: list[int]) -> Times:
    """Milliseconds of each part, for one new description."""
    read_before = await seconds_inside(handles["TextEncoder"], "t2l_encode")
    start = time.perf_counter()
    embedding = (await handles["TextEncoder"].embed.remote([question.description]))[0]
    embedded = time.perf_counter()
    reading = await seconds_inside(handles["TextEncoder"], "t2l_encode") - read_before
    before = await seconds_inside(handles["HyperNetwork"], "t2l_adapter_generation")
    adapter = AdapterRef("benchmark", question.description, embedding.vector_E)
    loaded = await handles["LLM"].load.remote([adapter])
    generation = await seconds_inside(handles["HyperNetwork"], "t2l_adapter_generation") - before
    seconds = {
        "embedding": embedded - start,
        "reading": reading,
        "generation": generation,
        "transfer": loaded - generation,
        "first_token": await first_token(handles["LLM"], prompt_ids, adapter),
        "of_base": await first_token(handles["LLM"], prompt_ids, None),
    }
    return {name: value * 1e3 for name, value in seconds.items()}


async def first_token(llm: DeploymentHandle, prompt_ids: list[int], adapter: AdapterRef | None) -> float:
    """Seconds until it has come."""
    asked = time.perf_counter()
    request = GenerateRequest(str(asked), prompt_ids, Sampling(max_tokens=1), adapter)
    async for _ in llm.options(stream=True).generate.remote(request):  # type: ignore[union-attr]
        break
    return time.perf_counter() - asked


async def seconds_inside(handle: DeploymentHandle, metric: str) -> float:
    """What a deployment's histogram has added up so far."""
    lines = (await handle.metrics.remote()).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{metric}_seconds_sum"))


async def measure(asked: list[Question], prompt_ids: list[int]) -> list[Times]:
    names = ("TextEncoder", "HyperNetwork", "LLM")
    handles = {name: by_value(serve.get_deployment_handle(name, "default")) for name in names}
    found = []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{PORT}") as session:
        for question in asked:
            times = await parts(handles, question, prompt_ids)
            http_base = (await ask(session, question, False, None)).first_token_s * 1e3
            anew = Question(f"{question.description} Now.", question.input)
            http = (await ask(session, anew, True, None)).first_token_s * 1e3
            found.append({**times, "http": http, "http_base": http_base, "above_base": http - http_base})
    return found


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    asked = questions(arguments.descriptions + 5)
    prompt = [{"role": "user", "content": asked[0].input}]
    ids = AutoTokenizer.from_pretrained(BASE_DIR).apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]  # type: ignore[index]
    with application(Settings()):
        times = asyncio.run(measure(asked, list(ids)))[5:]  # the first ones warm up
    middle = {name: statistics.median(row[name] for row in times) for name in times[0]}
    return {
        "descriptions": len(times),
        "milliseconds": middle,
        "generation_and_transfer_ms": statistics.median(row["generation"] + row["transfer"] for row in times),
    }


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--descriptions", type=int, default=40)
    arguments = parser.parse_args()
    result = head("serve_cold", "cuda" if torch.cuda.is_available() else "cpu")
    finish(result | run(arguments), arguments.out)


if __name__ == "__main__":
    main()
