"""Routes of /v1/chat/completions and /v1/completions, as OpenAI's, for the base model and its adapters."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import APIRouter, Response

from serve.api.answers import ChatChunk, ChatCompletion, TextCompletion
from serve.api.errors import ApiError
from serve.api.generation import Generation
from serve.api.json_body import JsonRoute
from serve.api.limits import check_generation
from serve.api.replies import ChatReply, Reply, TextReply
from serve.api.requests import ChatBody, CompletionBody, GenerationBody
from serve.api.services import Services, Tenant, TheServices
from serve.api.sse import EventStreamResponse, event_stream
from serve.protocol import GenerateRequest, Sampling
from serve.store import AdapterEntry

T = TypeVar("T")
S = TypeVar("S")
Prompts = list[tuple[list[int], int]]
"""Token ids of each, and how many more there may be."""

router = APIRouter(prefix="/v1", tags=["completions"], route_class=JsonRoute)
COMPLETION_TOKENS = 16
"""OpenAI's default of max_tokens for completions; a chat may use all the room there is."""


def _or_events(whole: type, chunk: type) -> dict[int | str, dict[str, Any]]:
    events = {"type": "string", "description": f"Events `data: {chunk.__name__}`, then `data: [DONE]`"}
    return {200: {"model": whole, "content": {"text/event-stream": {"schema": events}}}}


@router.post("/chat/completions", operation_id="chat", responses=_or_events(ChatCompletion, ChatChunk))
async def chat(body: ChatBody, services: TheServices, tenant: Tenant) -> Response:
    """Answer a conversation, with the base model or an adapter of it."""
    check_generation(body, services.limits)

    async def prompts() -> Prompts:
        prompt = await services.prompts.chat(body.messages)
        asked = body.max_completion_tokens or body.max_tokens
        return [(prompt, services.prompts.max_tokens(prompt, asked, services.limits.max_tokens))]

    return await _answer(body, ChatReply, prompts(), services, tenant)


@router.post("/completions", operation_id="complete", responses=_or_events(TextCompletion, TextCompletion))
async def complete(body: CompletionBody, services: TheServices, tenant: Tenant) -> Response:
    """Continue raw text, with the base model or an adapter of it."""
    check_generation(body, services.limits)

    async def prompts() -> Prompts:
        found = [await services.prompts.text(text) for text in body.prompts]
        most = services.limits.max_tokens if body.max_tokens else COMPLETION_TOKENS
        return [(prompt, services.prompts.max_tokens(prompt, body.max_tokens, most)) for prompt in found]

    return await _answer(body, TextReply, prompts(), services, tenant)


async def _adapter(body: GenerationBody, services: Services, tenant: str) -> AdapterEntry | None:
    """The adapter that the request names or describes; None: the base model alone. Raises ApiError."""
    base, task = services.about.model_name, body.task_description
    if body.model == base:
        if task is None:
            return None
        return (await services.catalog.describe(tenant, [task], wait=False)).entries[0]
    services.catalog.check_id(body.model)
    if task is not None:
        raise ApiError(400, f"task_description goes with the base model {base!r}, not with an adapter", param="model")
    return await services.catalog.get(tenant, body.model)


async def _answer(
    body: GenerationBody,
    kind: type[Reply],
    read: Coroutine[Any, Any, Prompts],
    services: Services,
    tenant: str,
) -> Response:
    """read: gives the prompts. Choices are numbered prompt by prompt, as OpenAI does."""
    start = time.perf_counter()
    prompts, adapter = await side_by_side(read, _adapter(body, services, tenant))
    reply = kind(services.about.model_name, adapter)
    ref = None if adapter is None else adapter.ref(tenant)
    requests = [
        GenerateRequest(f"{reply.id}-{number}-{choice}", prompt, _sampling(body, max_tokens, choice), ref)
        for number, (prompt, max_tokens) in enumerate(prompts)
        for choice in range(body.choices)
    ]
    generation = Generation(requests, sum(len(prompt) for prompt, _ in prompts), services.metrics, start)
    if body.stream:
        chunks = reply.chunks(generation.batches(services.backends), generation.usage, body.wants_usage)
        return await EventStreamResponse.begin(event_stream(chunks))
    answers = await generation.whole(services.backends)
    whole = reply.whole(answers, generation.usage)
    return Response(whole.model_dump_json(exclude_unset=True), media_type="application/json")


async def side_by_side(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, S]) -> tuple[T, S]:
    """What both give. If the first one raises, that is what the client hears, and the second is cancelled."""
    beside = asyncio.create_task(second)
    try:
        return await first, await beside
    except BaseException:
        beside.cancel()
        await asyncio.gather(beside, return_exceptions=True)
        raise


def _sampling(body: GenerationBody, max_tokens: int, choice: int) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=body.temperature or 0.0,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=None if body.seed is None else body.seed + choice,
        stop=body.stops,
        ignore_eos=bool(body.ignore_eos),
    )
