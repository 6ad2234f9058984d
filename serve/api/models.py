"""Routes of /v1/models: the base model, and this key's adapters as models of their own."""

import time
from typing import Annotated

from fastapi import APIRouter, Path

from serve.api.answers import Model, ModelList
from serve.api.json_body import JsonRoute
from serve.api.services import Tenant, TheServices
from serve.store import AdapterEntry

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=JsonRoute)
_STARTED = int(time.time())


@router.get("", operation_id="listModels")
async def listing(services: TheServices, tenant: Tenant) -> ModelList:
    parent = services.about.model_name
    return ModelList(data=[_base(parent), *(_adapter(e, parent) for e in await services.catalog.listing(tenant))])


# A base model's name may hold slashes, as on the hub.
@router.get("/{model:path}", operation_id="getModel")
async def get(model: Annotated[str, Path(min_length=1)], services: TheServices, tenant: Tenant) -> Model:
    parent = services.about.model_name
    if model == parent:
        return _base(parent)
    services.catalog.check_id(model)
    return _adapter(await services.catalog.get(tenant, model), parent)


def _base(name: str) -> Model:
    return Model(id=name, created=_STARTED, parent=None)


def _adapter(entry: AdapterEntry, parent: str) -> Model:
    return Model(id=entry.id, created=entry.created, parent=parent)
