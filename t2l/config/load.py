"""From YAML and overrides to settings, with errors that name the key at fault."""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from t2l.config.model import PretrainConfig
from t2l.config.run import RunConfig
from t2l.errors import ConfigError

_CHOOSERS = {"data": "suite", "train": "objective"}
"""Settings whose class one of their own settings chooses."""


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """A run from a YAML file (None: all defaults) and overrides such as ``train.lr=1e-3``, whose values are YAML.

    Raises ConfigError that names the key at fault; for an unknown one, with the nearest known key.
    """
    return parse_config({} if path is None else _read(path), overrides)


def parse_config(settings: dict[str, Any], overrides: Sequence[str] = ()) -> RunConfig:
    """Check plain settings, once overridden. Raises ConfigError naming every key at fault."""
    for override in overrides:
        _override(settings, override)
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_complaint(detail, RunConfig) for detail in error.errors())) from None


def load_pretrain_config(overrides: Sequence[str]) -> PretrainConfig:
    """Settings of the base model's pretraining from overrides such as ``minutes=5``."""
    settings: dict[str, Any] = {}
    for override in overrides:
        _override(settings, override)
    try:
        return PretrainConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_complaint(detail, PretrainConfig) for detail in error.errors())) from None


def _read(path: Path) -> dict[str, Any]:
    """An empty file, or one of comments alone, holds no settings."""
    if not path.is_file():
        raise ConfigError(f"config file {path} is a folder" if path.is_dir() else f"config file {path} does not exist")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {path} is no text in UTF-8 ({error}): save it as such") from None
    settings = _yaml(text, f"config file {path}")
    if not isinstance(settings, dict | None):
        raise ConfigError(f"config file {path} holds no settings, but {type(settings).__name__}: write key: value")
    return settings or {}


def _yaml(text: str, name: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-01
        problem, mark = getattr(error, "problem", error), getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name} is no valid YAML ({problem}{place}): check brackets, quotes and indents") from None


def _override(settings: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' is no override: write it as key=value, such as train.lr=1e-3")
    _put(settings, key.split("."), _yaml(value, f"the value in '{override}'"))


def _put(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = settings.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"'{'.'.join(keys)}' cannot be set: '{key}' is a single value")
        settings = inner
    settings[keys[-1]] = value


def _complaint(detail: Any, schema: type[BaseModel]) -> str:
    chooser, tags = _chooser(detail["loc"])
    key = ".".join(str(part) for part in detail["loc"] if part not in tags)
    if detail["type"] == "union_tag_invalid":
        return f"setting '{key}.{chooser}' is {detail['ctx']['tag']!r}: choose from {', '.join(tags)}"
    if detail["type"] == "union_tag_not_found":
        return f"setting '{key}' is {detail['input']!r}: write {key}.{chooser}=... with one of {', '.join(tags)}"
    if detail["type"] == "too_short":
        return f"setting '{key}' is {detail['input']!r}: give at least {detail['ctx']['min_length']}"
    if detail["type"] == "missing":
        return f"setting '{key}' is missing: give it, as {key}=..."
    if detail["type"] != "extra_forbidden":
        return f"setting '{key}' is {detail['input']!r}: {detail['msg']}"
    known = list(dict.fromkeys(_keys(schema)))
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, 1) or [k for k in known if k.rpartition(".")[2] == last]
    if key in known:
        family, chosen = detail["loc"][0], detail["loc"][-2]
        return f"setting '{key}' is no setting of {chooser} '{chosen}': set {family}.{chooser}, or leave it out"
    return f"unknown setting '{key}'" + (f"; did you mean '{near[0]}'?" if near else "")


def _chooser(place: Sequence[int | str]) -> tuple[str, list[str]]:
    """What chooses the class of the settings at a place, and what it may be; an empty list where nothing does."""
    chooser = _CHOOSERS.get(str(place[0]), "") if place else ""
    classes = _options(RunConfig.model_fields[str(place[0])].annotation) if chooser else ()
    return chooser, [known.model_fields[chooser].default for known in classes]


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of every setting."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for option in _options(field.annotation):
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield from _keys(option, f"{prefix}{name}.")


def _options(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows: the parts of a union, without what Annotated adds."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from _options(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from _options(part)
    else:
        yield annotation
