"""Settings as YAML, each with what it is for beside it."""

import math
from collections.abc import Iterator
from typing import Any

import yaml
from pydantic import BaseModel


def dump_config(config: BaseModel) -> str:
    """YAML that `load_config` reads back as an equal config."""
    return "".join(_lines(config, indent=""))


def _lines(settings: BaseModel, indent: str) -> Iterator[str]:
    plain = settings.model_dump(mode="json")
    for name, value in settings:
        about = type(settings).model_fields[name].description
        comment = f"  # {about}" if about else ""
        if isinstance(value, BaseModel):
            yield f"{indent}{name}:{comment}\n"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_in_a_line(plain[name])}{comment}\n"


def _in_a_line(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=math.inf)
    return text.removesuffix("...\n").strip()
