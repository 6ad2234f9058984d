"""Makes everything that the app refuses or fails at leave in OpenAI's shape."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from serve.api.errors import ApiError, error_response
from serve.api.requests import NEUTRAL

logger = logging.getLogger("ray.serve")
MAX_NAME = 100
"""Characters; an unknown parameter's name may be as long as a body."""


def invalid_request(error: RequestValidationError) -> ApiError:
    """One thing that is wrong, the innermost, with its place; the value that the client sent is not repeated."""
    first = max(error.errors(), key=lambda one: len(one["loc"]))
    source, *place = first["loc"]
    # Pydantic also names the member of a union that it tried: "str", "constrained-str", "list[TextPart]".
    name = ".".join(str(part) for part in place if not str(part).endswith(("str", "]")))[:MAX_NAME]
    if source == "path":
        return ApiError(404, f"no such {name}: an id has the form t2l- and 32 hexadecimal digits", param=name)
    if first["type"] == "extra_forbidden" or not NEUTRAL.isdisjoint(place):
        return ApiError(400, f"parameter {name!r} is not supported: leave it out", param=name)
    return ApiError(400, f"{name or 'the body'}: {first['msg']}", param=name or None)


def add_error_handlers(app: FastAPI) -> None:
    """Everything that the app refuses or fails at leaves in OpenAI's shape."""

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        path = getattr(request.scope.get("route"), "path_format", None)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and path is not None:
            # Starlette names only the methods of the first route that has this path.
            error.headers = {"Allow": ", ".join(method.upper() for method in app.openapi()["paths"][path])}
        return error_response(error)

    async def on_validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(invalid_request(error))

    async def on_bug(_: Request, error: Exception) -> JSONResponse:
        logger.error("unexpected error", exc_info=error)
        return error_response(ApiError(500, HTTPStatus.INTERNAL_SERVER_ERROR.phrase))

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_bug)
