"""API keys: who asks, and whether the server may be public at all."""

import hashlib
import hmac
import ipaddress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.api.errors import ApiError, error_response
from t2l.errors import ConfigError

OPEN_PATHS = ("/health",)
"""Answered without a key: what a load balancer asks."""


class KeyRing:
    """The keys' sha256 digests (hex). Without keys there is one tenant, "", and everybody is that one."""

    def __init__(self, digests: tuple[str, ...]) -> None:
        self._digests = digests

    def __bool__(self) -> bool:
        return bool(self._digests)

    def tenant(self, authorization: str) -> str | None:
        """The tenant of an Authorization header, or None if it names no key of ours.

        Every digest is compared, in constant time, so that the time taken tells nothing about the keys.
        """
        if not self._digests:
            return ""
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode("latin-1")).hexdigest()  # headers are latin-1: the bytes as sent
        matches = [known for known in self._digests if hmac.compare_digest(known, digest)]
        return digest[:16] if matches and scheme.lower() == "bearer" else None


class Authentication:
    """ASGI middleware: 401 before anything else is looked at; otherwise `request.state.tenant`."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        tenant = self._keys.tenant(Headers(scope=scope).get("authorization", ""))
        if tenant is None:
            error = ApiError(
                401,
                "this server needs an API key: send it as 'Authorization: Bearer <key>'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await error_response(error)(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "tenant": tenant}
        await self._app(scope, receive, send)


def check_bind(host: str, keys: KeyRing) -> None:
    """Raises ConfigError if the server would listen on a public address without keys."""
    if not keys and not _is_loopback(host):
        raise ConfigError(
            f"refusing to listen on {host} without API keys: "
            "set T2L_API_KEYS=key1,key2 in the server's environment, or listen on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name may lead anywhere
        return False
