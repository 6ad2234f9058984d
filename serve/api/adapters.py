"""Routes of /v1/adapters: descriptions become adapters; list, look up, download, delete."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from serve.api.answers import Adapter, AdapterList, DeletedAdapter, NewAdapters, Seconds
from serve.api.errors import ApiError
from serve.api.json_body import JsonRoute
from serve.api.limits import check_descriptions
from serve.api.requests import AdapterBody, AdapterId
from serve.api.services import Tenant, TheServices
from serve.store import AdapterEntry

router = APIRouter(prefix="/v1/adapters", tags=["adapters"], route_class=JsonRoute)
Id = Annotated[AdapterId, Path()]


@router.post("", operation_id="createAdapters")
async def create(body: AdapterBody, services: TheServices, tenant: Tenant) -> NewAdapters:
    """Make adapters from descriptions. The same description always has the same id."""
    check_descriptions(body, services.limits)
    described = await services.catalog.describe(tenant, body.descriptions, wait=True)
    generate = await services.catalog.load(tenant, described.entries)
    return NewAdapters(
        data=[Adapter.of(entry, services.about.model_name) for entry in described.entries],
        seconds=Seconds(encode=described.encode_seconds, generate=generate),
    )


@router.get("", operation_id="listAdapters")
async def listing(
    services: TheServices,
    tenant: Tenant,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[AdapterId | None, Query(description="The last id of the page before.")] = None,
) -> AdapterList:
    """Adapters of this key, newest first."""
    entries = await services.catalog.listing(tenant)
    start = 0 if after is None else _place(entries, after) + 1
    page = entries[start : start + limit]
    return AdapterList(
        data=[Adapter.of(entry, services.about.model_name) for entry in page],
        has_more=start + limit < len(entries),
    )


@router.get("/{id}", operation_id="getAdapter")
async def get(id: Id, services: TheServices, tenant: Tenant) -> Adapter:
    return Adapter.of(await services.catalog.get(tenant, id), services.about.model_name)


@router.get(
    "/{id}/download",
    operation_id="downloadAdapter",
    response_class=Response,
    responses={200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def download(id: Id, services: TheServices, tenant: Tenant) -> Response:
    """A zip of the PEFT folder, which `peft` and vLLM load."""
    entry = await services.catalog.get(tenant, id)
    archive = await services.backends.peft_zip(entry.ref(tenant), entry.description)
    return Response(
        archive, media_type="application/zip", headers={"Content-Disposition": f'attachment; filename="{id}.zip"'}
    )


@router.delete("/{id}", operation_id="deleteAdapter")
async def delete(id: Id, services: TheServices, tenant: Tenant) -> DeletedAdapter:
    """Forget an adapter, on all replicas. Answers that are being generated with it end as they would have."""
    await services.catalog.delete(tenant, id)
    return DeletedAdapter(id=id)


def _place(entries: Sequence[AdapterEntry], after: str) -> int:
    """Raises ApiError (400) if there is no such entry: to begin anew would repeat what was listed before."""
    for place, entry in enumerate(entries):
        if entry.id == after:
            return place
    raise ApiError(
        400, f"there is no adapter {after!r} any more to list those after: list from the start", param="after"
    )
