"""Server-sent events, as OpenAI's clients read them."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.types import Send

from serve.api.errors import ApiError, error_body

DONE = b"data: [DONE]\n\n"


def event(data: BaseModel) -> bytes:
    """One event; fields that were not set are left out."""
    return f"data: {data.model_dump_json(exclude_unset=True)}\n\n".encode()


async def event_stream(batches: AsyncGenerator[Iterable[BaseModel], None]) -> AsyncGenerator[bytes, None]:
    """Each batch as one piece of bytes, then [DONE].

    What goes wrong before the first piece is raised, for an ordinary HTTP answer; later on it becomes the last event.
    """
    begun = False
    async with aclosing(batches):
        try:
            async for batch in batches:
                yield b"".join(event(data) for data in batch)
                begun = True
            yield DONE
        except ApiError as error:
            if not begun:
                raise
            yield b"data: " + error_body(error).model_dump_json().encode() + b"\n\n"


class EventStreamResponse(StreamingResponse):
    """Sends an `event_stream` and closes it however the request ends: a client that leaves must free its rows."""

    media_type = "text/event-stream"

    def __init__(self, first: bytes, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(_preceded(first, events), headers={"Cache-Control": "no-store"})
        self._events = events

    @classmethod
    async def begin(cls, events: AsyncGenerator[bytes, None]) -> "EventStreamResponse":
        """Waits for the first piece, so that errors until then have a status of their own."""
        return cls(await anext(events), events)

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self._events):
            await super().stream_response(send)


async def _preceded(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for piece in rest:
        yield piece
