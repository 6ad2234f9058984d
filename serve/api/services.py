"""What the routes work with; one of each in a Gateway replica, found by their type in a route's arguments."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from serve.api.about import About
from serve.api.backends import Backends
from serve.api.catalog import Catalog
from serve.api.metrics import GatewayMetrics
from serve.api.peers import Peers
from serve.api.prompts import Prompts
from serve.settings import Limits


@dataclass(frozen=True)
class Services:
    about: About
    limits: Limits
    prompts: Prompts
    catalog: Catalog
    peers: Peers
    backends: Backends
    metrics: GatewayMetrics


async def _services(request: Request) -> Services:
    return request.app.state.services


async def _tenant(request: Request) -> str:
    return request.state.tenant


TheServices = Annotated[Services, Depends(_services)]
Tenant = Annotated[str, Depends(_tenant)]
