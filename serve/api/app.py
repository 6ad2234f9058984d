"""The FastAPI application: middleware, routes, errors, and its OpenAPI document."""

from typing import Any

from fastapi import FastAPI, Security
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer

from serve.api import adapters, completions, models, operations
from serve.api.auth import Authentication, KeyRing
from serve.api.error_handlers import add_error_handlers
from serve.api.errors import DOCUMENTED
from serve.api.json_body import BodyLimit
from serve.api.limits import declare_limits
from serve.api.metrics import RequestMetrics
from serve.api.services import Services


def build_app(services: Services, keys: KeyRing) -> FastAPI:
    app = FastAPI(title="t2l", description="Describe a task, get an adapted model.", version="1", responses=DOCUMENTED)
    app.state.services = services
    for module in (completions, models, adapters):
        app.include_router(module.router, dependencies=_document_keys(keys))
    app.include_router(operations.router)
    add_error_handlers(app)
    # The last one added sees a request first: count it, know whose it is, bound it.
    app.add_middleware(BodyLimit, max_bytes=services.limits.body_bytes)
    app.add_middleware(Authentication, keys=keys)
    app.add_middleware(RequestMetrics, metrics=services.metrics)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            declare_limits(app.openapi_schema, services.limits)
        return app.openapi_schema

    app.openapi = openapi
    return app


def _document_keys(keys: KeyRing) -> list[Any]:
    """For the OpenAPI document only: the middleware has let nobody in without a key."""
    return [Security(HTTPBearer(auto_error=False))] if keys else []
