"""Response bodies of the API. OpenAI's fields are spelled as OpenAI spells them; `t2l` is our addition."""

from typing import Literal

from pydantic import BaseModel

from serve.protocol import FinishReason
from serve.store import AdapterEntry


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AdapterNote(BaseModel):
    """The adapter that an answer was generated under."""

    adapter: str
    nearness: float | None
    """Similarity of its description to the nearest that T2L was trained on."""
    warning: str | None

    @classmethod
    def of(cls, entry: AdapterEntry) -> "AdapterNote":
        return cls(adapter=entry.id, nearness=entry.nearness, warning=entry.warning)


class _Answer(BaseModel):
    id: str
    created: int
    model: str
    """The adapter's id where one was used: a `model` for further requests."""
    t2l: AdapterNote | None = None
    """With an adapter only; in a stream, in the first chunk only."""


class ChatMessage(BaseModel):
    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    index: int
    message: ChatMessage
    logprobs: None
    finish_reason: FinishReason


class ChatCompletion(_Answer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(BaseModel):
    role: Literal["assistant"] | None = None
    """In the first chunk of a choice."""
    content: str | None = None


class ChatChunkChoice(BaseModel):
    index: int
    delta: ChatDelta
    logprobs: None
    finish_reason: FinishReason | None


class ChatChunk(_Answer):
    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: Usage | None = None
    """In the last chunk, which has no choices, if asked for."""


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: None
    finish_reason: FinishReason | None


class TextCompletion(_Answer):
    """Whole, or a chunk of a stream."""

    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: Usage | None = None


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["t2l"] = "t2l"
    parent: str | None
    """The base model's name, if this is an adapter."""


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


class Adapter(BaseModel):
    id: str
    object: Literal["adapter"] = "adapter"
    description: str
    nearness: float | None
    warning: str | None
    created: int
    parent: str

    @classmethod
    def of(cls, entry: AdapterEntry, parent: str) -> "Adapter":
        return cls(
            id=entry.id,
            description=entry.description,
            nearness=entry.nearness,
            warning=entry.warning,
            created=entry.created,
            parent=parent,
        )


class AdapterList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Adapter]
    has_more: bool
    """Ask again with `after` set to the last id."""


class Seconds(BaseModel):
    """Time taken; 0 for what was known already."""

    encode: float
    generate: float


class NewAdapters(BaseModel):
    object: Literal["list"] = "list"
    data: list[Adapter]
    """In the order of the descriptions."""
    seconds: Seconds


class DeletedAdapter(BaseModel):
    id: str
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True


class Status(BaseModel):
    status: Literal["ok"] = "ok"
