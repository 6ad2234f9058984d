"""What the page asks of the API, over HTTP only; a failure is one sentence. Knows nothing of how the page looks."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai

MAX_TOKENS = 256
REFRESH_S = 0.03
"""The page is told of new text this often, not once a token."""
RETRY_S = 1.0


class PageError(Exception):
    """Why the API did not do it, as one sentence for the reader of the page."""


@dataclass(frozen=True)
class Adapter:
    """What the API says of an adapter."""

    id: str
    description: str
    parent: str
    """The base model's name."""
    nearness: float | None
    """None if the checkpoint cannot tell."""
    warning: str | None
    seconds: float | None = None
    """Time that it took to make; None: it was there before."""


@dataclass
class Answer:
    """What has come so far; a failure may follow some text."""

    text: str = ""
    failure: str | None = None
    ended: bool = False


class ApiClient:
    """One API, asked with one key."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self._api = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key or "none", max_retries=0)

    def wait_until_ready(self) -> None:
        """Returns once all parts of the API answer. Raises PageError if it refuses the key."""
        while (status := self._status()) != httpx.codes.OK:
            if status == httpx.codes.UNAUTHORIZED:
                raise PageError(f"the API at {self.url} refuses the key: set T2L_API_KEY or give --api-key")
            time.sleep(RETRY_S)

    def _status(self) -> int | None:
        """Of /ready; None if nothing answers there yet."""
        try:
            return httpx.get(f"{self.url}/ready", headers=self._api.auth_headers).status_code
        except httpx.TransportError:
            return None

    async def adapters(self) -> list[Adapter]:
        """The newest thousand of those made before, newest first. Raises PageError."""
        with self._failures():
            response = await self._api.get("/adapters?limit=1000", cast_to=httpx.Response)
        return [_adapter(fields) for fields in response.json()["data"]]

    async def make(self, description: str) -> Adapter:
        """Raises PageError."""
        with self._failures():
            body = {"descriptions": [description]}
            made = (await self._api.post("/adapters", cast_to=httpx.Response, body=body)).json()
        seconds = made["seconds"]
        return _adapter(made["data"][0], seconds["encode"] + seconds["generate"] if seconds["encode"] else None)

    async def archive(self, id: str) -> bytes:
        """The zip of an adapter's PEFT folder. Raises PageError."""
        with self._failures():
            return (await self._api.get(f"/adapters/{id}/download", cast_to=httpx.Response)).content

    async def ask(self, adapter: Adapter, text: str) -> AsyncGenerator[tuple[Answer, Answer], None]:
        """The base model's and the adapted one's greedy answers, both at once, as they grow; the last pair is whole."""
        base, adapted = Answer(), Answer()
        asked = {
            asyncio.create_task(self._fill(base, adapter.parent, text)),
            asyncio.create_task(self._fill(adapted, adapter.id, text)),
        }
        try:
            pending = asked
            while pending:
                _, pending = await asyncio.wait(pending, timeout=REFRESH_S)
                yield base, adapted
            await asyncio.gather(*asked)  # a bug in there must not pass for an empty answer
        finally:
            for task in asked:
                task.cancel()

    async def _fill(self, answer: Answer, model: str, text: str) -> None:
        try:
            with self._failures():
                stream = await self._api.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": text}],
                    max_tokens=MAX_TOKENS,
                    temperature=0,
                    stream=True,
                )
                async with stream:
                    async for chunk in stream:
                        answer.text += chunk.choices[0].delta.content or ""
        except PageError as failure:
            answer.failure = str(failure)
        answer.ended = True

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (openai.APIConnectionError, httpx.TransportError):
            raise PageError(f"The API at {self.url} does not answer: start it with make serve and try again.") from None
        except openai.APIError as error:
            raise PageError(_why(error)) from None


def sentence(words: str) -> str:
    """The API's words, which begin in lower case and end without a full stop."""
    return words[:1].upper() + words[1:].rstrip(".") + "."


def _why(error: openai.APIError) -> str:
    if isinstance(error.body, dict) and "message" in error.body:
        return sentence(error.body["message"])
    # The proxy in front of the API, which says nothing that a reader could use.
    status = f" with status {error.status_code}" if isinstance(error, openai.APIStatusError) else ""
    return f"The API failed{status}: try again, or look at its log."


def _adapter(fields: dict[str, Any], seconds: float | None = None) -> Adapter:
    return Adapter(
        fields["id"], fields["description"], fields["parent"], fields["nearness"], fields["warning"], seconds
    )
