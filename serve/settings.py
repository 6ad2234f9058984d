"""Settings of the application: `args` in serve/config.yaml; unknown keys are refused by name.

How many replicas there are and what hardware they get is Serve's own part of that file.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from t2l.embedded import CHECKPOINT_DIR
from t2l.storage import fetched
from t2l.text.normalize import MAX_CHARACTERS

SHORT_WAYS = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "grpc_proxy": "",
}
"""Environment of the replicas (serve/config.yaml has it too): what they tell each other (serve/handles.py) goes from
event loop to event loop, a millisecond faster, and not through a machine's http_proxy. So none may hold up its loop:
long work is done in threads."""

COMMON: dict[str, Any] = {
    "ray_actor_options": {
        "num_cpus": 0.1,  # all four fit on a laptop; serve/config.yaml says more
        "runtime_env": {"env_vars": SHORT_WAYS},
    },
    "logging_config": {
        "enable_access_log": False
    },  # /metrics counts requests; a line each would cost more than a token
    "health_check_period_s": 2.0,  # how soon a dead replica is noticed
    "health_check_timeout_s": 20.0,
}
"""Options of every deployment."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineSettings(_Settings):
    """Size of the LLM's engine."""

    rows: int = Field(default=64, ge=1, description="Requests that generate at once.")
    adapter_slots: int = Field(default=64, ge=1, description="Adapters resident on the device.")
    host_cache_mb: int = Field(default=512, ge=1, description="Host memory for adapters behind the slots.")
    max_length: int | None = Field(
        default=None, ge=2, description="Tokens of prompt and answer; None: the base model's limit, at most 4096."
    )
    prefill_tokens: int = Field(default=2048, ge=1, description="Prompt tokens read between two decode steps.")
    compile_layers: bool = Field(
        default=True, description="On a GPU: through compiled layers; a start takes half a minute longer."
    )
    max_waiting: int = Field(default=1024, ge=0, description="Requests that wait for a row; beyond: 429.")


class Limits(_Settings):
    """What one request may ask for; each answers 4xx before any work is done."""

    body_bytes: int = Field(default=1 << 20, ge=1)
    description_characters: int = Field(default=MAX_CHARACTERS, ge=1, le=MAX_CHARACTERS)
    descriptions: int = Field(default=64, ge=1, description="Descriptions in one POST /v1/adapters.")
    max_tokens: int = Field(default=1024, ge=1)
    n: int = Field(default=8, ge=1, description="Choices of one request.")
    stop: int = Field(default=4, ge=1, description="Stop strings of one request.")
    adapters_per_key: int = Field(
        default=10_000, ge=1, description="Known adapters of one key; least recently used out."
    )


class Timeouts(_Settings):
    """Seconds that each hop may take; then 504, or an SSE error event if the answer has begun."""

    encode_s: float = Field(default=30.0, gt=0)
    generate_s: float = Field(default=30.0, gt=0, description="Making an adapter.")
    first_token_s: float = Field(default=120.0, gt=0, description="Waiting in the queue included.")
    next_token_s: float = Field(default=60.0, gt=0)


class Settings(_Settings):
    """Everything that is ours to set."""

    checkpoint: str | None = Field(
        default=None, description="Folder of a T2L checkpoint, or its address (s3://...); None: the shipped one."
    )
    local_dir: str | None = Field(default=None, description="Folder of models, as org/name, searched before the hub.")
    model_name: str | None = Field(default=None, description="The base model's name in the API; None: from its path.")
    engine: EngineSettings = EngineSettings()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()

    @property
    def folder(self) -> Path:
        """Of the checkpoint."""
        return fetched(self.checkpoint) if self.checkpoint else CHECKPOINT_DIR
