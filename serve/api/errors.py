"""Errors as OpenAI shapes them: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    error: ErrorDetail


class ApiError(HTTPException):
    """A refusal or failure with a status; the message is one sentence for the client."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.param, self.code = param, code


_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}

DOCUMENTED: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "The request is malformed, or asks for more than a limit allows"},
    401: {"model": ErrorBody, "description": "No valid API key"},
    404: {"model": ErrorBody, "description": "No such model, adapter or route"},
    405: {"model": ErrorBody, "description": "The route does not know this method"},
    413: {"model": ErrorBody, "description": "The body is too large"},
    415: {"model": ErrorBody, "description": "The body is not declared as application/json"},
    429: {
        "model": ErrorBody,
        "description": "The queue is full",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait"}},
    },
    # FastAPI documents its own 422 unless this is here; validation answers 400.
    "4XX": {"model": ErrorBody, "description": "Any other refusal"},
    500: {"model": ErrorBody, "description": "A bug in the server"},
    503: {"model": ErrorBody, "description": "A replica died or is not there yet: try again"},
    504: {"model": ErrorBody, "description": "A step took longer than its timeout"},
}
"""Responses that every route may give, for the OpenAPI document."""


def error_body(error: HTTPException) -> ErrorBody:
    kind = _TYPES.get(error.status_code, "server_error" if error.status_code >= 500 else "invalid_request_error")
    param, code = (error.param, error.code) if isinstance(error, ApiError) else (None, None)
    return ErrorBody(error=ErrorDetail(message=error.detail, type=kind, param=param, code=code))


def error_response(error: HTTPException) -> JSONResponse:
    return JSONResponse(error_body(error).model_dump(), error.status_code, error.headers)
