"""Limits of the settings: checked before any work is done, and declared in the OpenAPI document."""

from typing import Any

from serve.api.errors import ApiError
from serve.api.requests import MAX_SEED, MIN_SEED, AdapterBody, ChatBody, CompletionBody, GenerationBody
from serve.settings import Limits


def check_generation(body: GenerationBody, limits: Limits) -> None:
    """Raises ApiError (400) naming the first parameter beyond its limit."""
    _at_most("max_tokens", body.max_tokens, limits.max_tokens)
    _at_most("stop", len(body.stops), limits.stop, "stop strings")
    _at_most("n", body.choices, limits.n)
    if isinstance(body, ChatBody):
        _at_most("max_completion_tokens", body.max_completion_tokens, limits.max_tokens)
    if isinstance(body, CompletionBody):
        _at_most("prompt", len(body.prompts) * body.choices, limits.n, "choices, n for each prompt")
    if body.task_description is not None:
        _at_most("task_description", len(body.task_description), limits.description_characters, "characters")


def check_descriptions(body: AdapterBody, limits: Limits) -> None:
    """Raises ApiError (400) if there are too many descriptions, or one is too long."""
    _at_most("descriptions", len(body.descriptions), limits.descriptions, "texts")
    for text in body.descriptions:
        _at_most("descriptions", len(text), limits.description_characters, "characters")


def declare_limits(document: dict[str, Any], limits: Limits) -> None:
    """Put the limits into an OpenAPI document, where clients can read them."""
    numbers = {"n": limits.n, "max_tokens": limits.max_tokens, "max_completion_tokens": limits.max_tokens}
    items = {"stop": limits.stop, "prompt": limits.n, "descriptions": limits.descriptions}
    lengths = {"task_description": limits.description_characters, "descriptions": limits.description_characters}
    for body in (ChatBody, CompletionBody, AdapterBody):
        for name, field in document["components"]["schemas"][body.__name__]["properties"].items():
            for schema in field.get("anyOf", [field]):
                if schema.get("type") == "integer" and name in numbers:
                    schema["maximum"] = numbers[name]
                if schema.get("type") == "integer" and name == "seed":
                    schema |= {"minimum": MIN_SEED, "maximum": MAX_SEED}  # FastAPI writes floats, which are rounded
                if schema.get("type") == "array" and name in items:
                    schema["maxItems"] = items[name]
                    if name in lengths:
                        schema["items"]["maxLength"] = lengths[name]
                if schema.get("type") == "string" and name in lengths:
                    schema["maxLength"] = lengths[name]


def _at_most(name: str, value: int | None, limit: int, unit: str = "") -> None:
    if value is not None and value > limit:
        raise ApiError(400, f"{name} is {value} {unit}".rstrip() + f"; the limit is {limit}: ask for less", param=name)
