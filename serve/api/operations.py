"""Routes for those who run the server: /health, /ready, /metrics."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from serve.api.answers import Status
from serve.api.metrics import merged_metrics
from serve.api.services import TheServices

router = APIRouter(tags=["operations"])


@router.get("/health", operation_id="health")
async def health() -> Status:
    """This process is alive. Needs no key."""
    return Status()


@router.get("/ready", operation_id="ready")
async def ready(services: TheServices) -> Status:
    """Text encoder, hypernetwork and LLM answer; 503 or 504 otherwise."""
    await services.backends.check()
    return Status()


@router.get("/metrics", operation_id="metrics", response_class=PlainTextResponse)
async def metrics(services: TheServices) -> PlainTextResponse:
    """Figures of all replicas that answer, in Prometheus' text format."""
    gateway, others = await asyncio.gather(services.peers.metrics(), services.backends.metrics())
    return PlainTextResponse(merged_metrics({"Gateway": gateway, **others}), media_type=CONTENT_TYPE_LATEST)
