"""Request bodies: bounded, declared as JSON, and JSON by the letter."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.api.errors import ApiError, error_response


class BodyLimit:
    """ASGI middleware: 413 by Content-Length, or as soon as more has arrived. (FastAPI's own answers in plain text.)"""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes
        self._error = ApiError(413, f"the body is larger than the limit of {max_bytes} bytes: send less")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        # 18 digits are more than any limit, and few enough for int().
        if not declared.isdecimal() or int(declared[:18]) > self._max_bytes:
            await error_response(self._error)(scope, receive, send)
            return
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise self._error
            return message

        await self._app(scope, counted, send)


class JsonRoute(APIRoute):
    """A route whose body, if it has one, must be JSON as RFC 8259 has it: see `_JsonRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, has_body = super().get_route_handler(), self.body_field is not None

        async def strict(request: Request) -> Response:
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if has_body and kind != "application/json":
                raise ApiError(415, "the body must be JSON: send Content-Type: application/json")
            return await handle(_JsonRequest(request.scope, request.receive))

        return strict


class _JsonRequest(Request):
    async def json(self) -> Any:
        """Refuses what Python's own parser lets through: NaN, Infinity, lone surrogates; and nesting beyond 200."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise ApiError(400, f"the body is not valid JSON: {error}") from error
