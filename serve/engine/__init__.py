"""What the LLM deployment needs of an engine; another one is another class with these methods.

Axes: P parameters of an adapter.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from serve.protocol import Sampling


@dataclass(frozen=True, eq=False)
class EngineRequest:
    """One answer to generate, under an adapter or as the base model would.

    adapter: flat weights [P] (t2l.lora.flat) on the host, with a key that no other weights have.
    """

    id: str
    prompt_ids: list[int]
    sampling: Sampling
    adapter_key: str | None = None
    adapter: Tensor | None = None

    def __post_init__(self) -> None:
        assert (self.adapter is None) == (self.adapter_key is None), "an adapter and its key come together"


@dataclass(frozen=True)
class EngineStats:
    """The state of this moment, and counters since the start (slot_hits and all after it)."""

    running: int
    waiting: int
    rows: int
    free_rows: int
    adapter_slots: int
    resident: int
    slot_hits: int
    slot_misses: int
    slot_evictions: int
    generated_tokens: int
    prompt_tokens: int


class Engine(Protocol):
    """Answers requests in the background and hands their deltas to a callback. All methods are thread-safe."""

    def submit(self, request: EngineRequest) -> None:
        """Queue a request. Raises BusyError if the queue is full, EngineError if the engine is dead.

        Also raises DataError for a prompt that leaves no room for an answer, SpecMismatchError for an adapter of
        another size.
        """
        ...

    def check_room(self) -> None:
        """Raises what `submit` would raise now whatever the request: BusyError, EngineError."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request without a further delta (one that is just being delivered excepted); unknown ids are ignored.

        Its row is free after the step that runs now.
        """
        ...

    def stats(self) -> EngineStats: ...

    def check(self) -> None:
        """Raises EngineError if the engine is dead."""
        ...

    def close(self) -> None:
        """Stop for good; requests in flight get no further delta."""
        ...
