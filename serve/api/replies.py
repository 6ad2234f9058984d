"""Answers in OpenAI's two shapes, whole or in chunks."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from pydantic import BaseModel

from serve.api.answers import (
    AdapterNote,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    TextChoice,
    TextCompletion,
    Usage,
)
from serve.api.generation import Finished, Numbered
from serve.protocol import Delta
from serve.store import AdapterEntry


class Reply(ABC):
    """One answer to one HTTP request; fields that are left unset are not sent."""

    PREFIX: str

    def __init__(self, model_name: str, adapter: AdapterEntry | None) -> None:
        self.id = f"{self.PREFIX}-{uuid.uuid4().hex}"
        self._common: dict[str, Any] = {
            "id": self.id,
            "created": int(time.time()),
            "model": model_name if adapter is None else adapter.id,
        }
        self._note: dict[str, Any] = {} if adapter is None else {"t2l": AdapterNote.of(adapter)}

    @abstractmethod
    def whole(self, answers: Sequence[Finished], usage: Usage) -> BaseModel: ...

    @abstractmethod
    def _chunk(self, index: int, delta: Delta, is_first: bool, rest: dict[str, Any]) -> BaseModel:
        """Something new of one choice; is_first: of this choice."""

    @abstractmethod
    def _usage_chunk(self, usage: Usage) -> BaseModel: ...

    async def chunks(
        self, batches: AsyncGenerator[list[Numbered], None], usage: Usage, wants_usage: bool
    ) -> AsyncGenerator[list[BaseModel], None]:
        """usage: complete once the batches have ended."""
        rest = self._common | self._note | ({"usage": None} if wants_usage else {})
        begun: set[int] = set()
        async with aclosing(batches):
            async for batch in batches:
                chunks = []
                for index, delta in batch:
                    chunks.append(self._chunk(index, delta, index not in begun, rest))
                    begun.add(index)
                    rest.pop("t2l", None)
                yield chunks
        if wants_usage:
            yield [self._usage_chunk(usage)]


class ChatReply(Reply):
    PREFIX = "chatcmpl"

    def whole(self, answers: Sequence[Finished], usage: Usage) -> ChatCompletion:
        choices = [
            ChatChoice(
                index=index,
                message=ChatMessage(role="assistant", content=answer.text),
                logprobs=None,
                finish_reason=answer.finish_reason,
            )
            for index, answer in enumerate(answers)
        ]
        return ChatCompletion(object="chat.completion", choices=choices, usage=usage, **self._common, **self._note)

    def _chunk(self, index: int, delta: Delta, is_first: bool, rest: dict[str, Any]) -> ChatChunk:
        new = ChatDelta(role="assistant", content=delta.text) if is_first else ChatDelta(content=delta.text)
        choice = ChatChunkChoice(index=index, delta=new, logprobs=None, finish_reason=delta.finish_reason)
        return ChatChunk(object="chat.completion.chunk", choices=[choice], **rest)

    def _usage_chunk(self, usage: Usage) -> ChatChunk:
        return ChatChunk(object="chat.completion.chunk", choices=[], usage=usage, **self._common)


class TextReply(Reply):
    PREFIX = "cmpl"

    def whole(self, answers: Sequence[Finished], usage: Usage) -> TextCompletion:
        choices = [
            TextChoice(index=index, text=answer.text, logprobs=None, finish_reason=answer.finish_reason)
            for index, answer in enumerate(answers)
        ]
        return TextCompletion(object="text_completion", choices=choices, usage=usage, **self._common, **self._note)

    def _chunk(self, index: int, delta: Delta, is_first: bool, rest: dict[str, Any]) -> TextCompletion:
        choice = TextChoice(index=index, text=delta.text, logprobs=None, finish_reason=delta.finish_reason)
        return TextCompletion(object="text_completion", choices=[choice], **rest)

    def _usage_chunk(self, usage: Usage) -> TextCompletion:
        return TextCompletion(object="text_completion", choices=[], usage=usage, **self._common)
