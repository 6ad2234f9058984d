"""What all settings share: frozen, and unknown fields are refused."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def flat(settings: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names of all settings and their values."""
    for name, value in settings:
        if isinstance(value, BaseModel):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
