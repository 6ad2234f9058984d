"""From messages and texts to token ids, within the room that the engine has."""

import asyncio

from jinja2 import TemplateError
from transformers import AutoTokenizer

from serve.api.about import About
from serve.api.errors import ApiError
from serve.api.requests import Message
from t2l.text.prompts import TEMPLATE_SETTINGS


class Prompts:
    """The base model's tokenizer. Work is done in threads: a long prompt must not hold up other clients' streams."""

    def __init__(self, about: About) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(about.tokenizer_path)
        self._max_length = about.max_length

    async def chat(self, messages: list[Message]) -> list[int]:
        """Raises ApiError (400) where the chat template refuses the messages."""
        return await asyncio.to_thread(self._chat, messages)

    async def text(self, text: str) -> list[int]:
        """Raw text, with the special tokens that the tokenizer puts before a text."""
        return await asyncio.to_thread(self._encode, text, True)

    def max_tokens(self, prompt: list[int], asked: int | None, most: int) -> int:
        """Tokens that the answer may have: those asked for, or the room that is left; `most` at most.

        Raises ApiError (400) if prompt and answer together are longer than the engine's rows.
        """
        room = self._max_length - len(prompt)
        if room < (asked or 1):
            answer = f" and max_tokens is {asked}" if asked else ""
            raise ApiError(
                400,
                f"the prompt has {len(prompt)} tokens{answer}; together they may have {self._max_length}: shorten it",
                code="context_length_exceeded",
            )
        return min(asked or room, most)

    def _chat(self, messages: list[Message]) -> list[int]:
        if self._tokenizer.chat_template is None:
            raise ApiError(400, "the base model has no chat template: use /v1/completions")
        turns = [message.for_template() for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, **TEMPLATE_SETTINGS
            )
        except TemplateError as error:
            raise ApiError(
                400, f"the model's chat template refuses these messages: {error}", param="messages"
            ) from error
        return self._encode(str(text), False)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=add_special_tokens).input_ids
        if not ids:
            raise ApiError(400, "the prompt is empty: write something", param="prompt")
        return ids
