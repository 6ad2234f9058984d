"""What passes between the deployments: plain, picklable values.

Axes: E task embedding.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from t2l.errors import T2LError
from t2l.text.normalize import clean_description

ADAPTER_ID = re.compile(r"t2l-[0-9a-f]{32}")
FinishReason = Literal["stop", "length"]


class BusyError(T2LError):
    """The queue is full: try again later (HTTP 429)."""


class EngineError(T2LError):
    """The engine's thread has died; the replica must be replaced."""


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn; temperature 0 is greedy, and `seed` None draws one."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, eq=False)
class Embedding:
    """What TextEncoder says of a description: its task embedding [E], and its similarity to what T2L was trained on."""

    vector_E: np.ndarray
    nearness: float | None
    """None where the checkpoint has no index of its training descriptions."""
    far: bool
    """Nearness is below the calibrated threshold: the adapter may not do what the text says."""


@dataclass(frozen=True, eq=False)
class AdapterRef:
    """An adapter by its owner and id, with the embedding that makes it again where it is lacking."""

    tenant: str
    id: str
    embedding_E: np.ndarray

    @property
    def key(self) -> str:
        """Name in the caches: tenants share no entry, so that none can tell what another one uses."""
        return f"{self.tenant}:{self.id}"


@dataclass(frozen=True, eq=False)
class GenerateRequest:
    """One answer to generate; adapter None: the base model's own."""

    id: str
    prompt_ids: list[int]
    sampling: Sampling
    adapter: AdapterRef | None


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of one answer. The last delta has a finish reason, or an error."""

    text: str
    tokens: int
    """How many tokens were generated since the delta before."""
    finish_reason: FinishReason | None = None
    error: str | None = None

    @property
    def is_last(self) -> bool:
        return self.finish_reason is not None or self.error is not None


def adapter_id(description: str, hypernet_sha256: str, base: str) -> str:
    """The same description, hypernetwork and base model give the same id everywhere, always.

    Raises DescriptionError for an empty or over-long description.
    """
    parts = "\0".join((clean_description(description), hypernet_sha256, base))
    return "t2l-" + hashlib.sha256(parts.encode()).hexdigest()[:32]
