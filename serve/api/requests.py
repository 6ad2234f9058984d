"""Request bodies of the API. Numeric limits that the settings hold are in serve/api/limits.py."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from serve.protocol import ADAPTER_ID

T = TypeVar("T")
_List = Annotated[list[T], Field(fail_fast=True)]
"""Of which the first wrong item is told of: a body has room for half a million of them, which would take seconds."""

MIN_SEED, MAX_SEED = -(2**63), 2**63 - 1
_Zero = Annotated[float, Field(ge=0, le=0)]
_EmptyList = Annotated[list[Any], Field(max_length=0)]
_EmptyObject = Annotated[dict[str, Any], Field(max_length=0)]
_NotEmpty = Annotated[str, Field(min_length=1)]
_Words = Annotated[str, Field(min_length=1, pattern=r"\S")]

AdapterId = Annotated[str, Field(pattern=f"^{ADAPTER_ID.pattern}$", examples=["t2l-" + "0" * 32])]


class _Body(BaseModel):
    """Strict types; what is not listed is refused by name, since leaving it out silently could change the answer."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Body):
    include_usage: bool | None = Field(default=None, description="End with a chunk that holds the usage counts.")
    include_obfuscation: bool | None = Field(default=None, description="Accepted; has no effect.")


class _Accepted(_Body):
    """Parameters of OpenAI's that concern its own books: any value, no effect."""

    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class _Neutral(_Body):
    """Parameters of OpenAI's that would change the answer: only the value that asks for nothing is accepted."""

    frequency_penalty: _Zero | None = None
    presence_penalty: _Zero | None = None
    logit_bias: _EmptyObject | None = None


class GenerationBody(_Accepted, _Neutral):
    """What chats and completions have in common."""

    model: _Words = Field(description="The base model's name, or the id of an adapter of it.")
    task_description: _Words | None = Field(
        default=None,
        description="What the model shall do with its input; the adapter is made on the fly. With the base model only.",
    )
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, description="Default 0: the most probable answer.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Default 1.")
    seed: int | None = Field(
        default=None, ge=MIN_SEED, le=MAX_SEED, description="Choice i is drawn with seed + i; default: unpredictable."
    )
    stop: _NotEmpty | Annotated[_List[_NotEmpty], Field(min_length=1)] | None = Field(
        default=None, description="Strings before which the answer ends."
    )
    n: int | None = Field(default=None, ge=1, description="Choices; default 1.")
    stream: bool | None = Field(default=None, description="Server-sent events instead of one answer.")
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = Field(default=None, description="Do not end before max_tokens: for benchmarks.")

    @property
    def choices(self) -> int:
        """Choices a prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class TextPart(_Body):
    type: Literal["text"]
    text: str


class _NeutralInMessage(_Body):
    """What a client's own objects hold besides: an answer goes back into the history as it came."""

    refusal: None = None
    audio: None = None
    annotations: _EmptyList | None = None
    tool_calls: _EmptyList | None = None
    function_call: None = None


class Message(_NeutralInMessage):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | _List[TextPart]
    name: str | None = Field(default=None, description="Accepted; has no effect.")

    def for_template(self) -> dict[str, str]:
        """As chat templates know it: 'developer' is OpenAI's newer word for 'system'."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class PlainTextFormat(_Body):
    type: Literal["text"]


class _NeutralInChat(_Body):
    logprobs: Literal[False] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    response_format: PlainTextFormat | None = None
    modalities: Annotated[_List[Literal["text"]], Field(min_length=1)] | None = None
    tools: _EmptyList | None = None
    tool_choice: Literal["none", "auto"] | None = None
    functions: _EmptyList | None = None
    function_call: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: None = None
    prediction: None = None
    audio: None = None
    web_search_options: None = None


class ChatBody(GenerationBody, _NeutralInChat):
    """POST /v1/chat/completions."""

    messages: _List[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="Newer name of max_tokens.")


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: _NotEmpty | Annotated[_List[_NotEmpty], Field(min_length=1)] = Field(
        description="Raw text; several are answered independently, prompt by prompt."
    )
    logprobs: None = None
    echo: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


class AdapterBody(_Body):
    """POST /v1/adapters."""

    descriptions: _List[_Words] = Field(min_length=1, description="What each adapter shall do.")


_CLASSES = (_Neutral, _NeutralInChat, _NeutralInMessage)
NEUTRAL = frozenset(name for known in _CLASSES for name in known.model_fields) | {"echo", "best_of", "suffix"}
"""Parameters that are refused as unsupported unless they ask for nothing."""
