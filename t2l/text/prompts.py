"""Chat prompts for any tokenizer with a chat template, rendered fast.

The template is run once on sentinel messages; afterwards a prompt is plain string joining. The definition of a task is
part of the prompt only where a caller passes it: by default the adapter alone must carry the task. It stands in the
user's first message, as some models (Gemma, Mistral) have no role for it. Prompts are whole: they begin with the
begin-of-text token where the template has one, so tokenize them with add_special_tokens=False.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from t2l.errors import DataError
from t2l.tasks.task import Example

TEMPLATE_SETTINGS = {"enable_thinking": False}
"""What every use of a chat template passes: models that can think aloud (Qwen 3) shall answer at once."""

_USER, _ANSWER = "\u2460USER\u2460", "\u2461ANSWER\u2461"


@dataclass(frozen=True)
class PromptFormat:
    """The fixed text of a chat around what user and assistant say."""

    opening: str
    """Before the first user message."""
    user_to_past: str
    """Before an answer that has been given. Templates differ: a space more, a thought less."""
    assistant_to_user: str
    user_to_assistant: str
    """Before the answer to write."""
    answer_end: str
    """What the model writes to end its answer: one token."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "PromptFormat":
        """Read the format off a tokenizer's chat template; a base model without one gets plain newlines."""
        if tokenizer.chat_template is None:
            return cls(str(tokenizer.bos_token or ""), "\n", "\n\n", "\n", _end(tokenizer, ""))
        turn = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
        parts = _render(tokenizer, turn + turn).replace(_ANSWER, _USER).split(_USER)
        if len(parts) != 5:
            raise DataError(
                "the tokenizer's chat template drops or repeats messages; give a template that keeps each one"
            )
        opening, user_to_past, assistant_to_user, _, after = parts
        user_to_assistant = _render(tokenizer, turn[:1], to_answer=True).split(_USER)[1]
        return cls(opening, user_to_past, assistant_to_user, user_to_assistant, _end(tokenizer, after))

    def prompt(self, user: str, definition: str | None = None, shots: Sequence[Example] = ()) -> str:
        """The text up to where the model answers; a definition stands before the first message of the user."""
        messages = [*(shot.input for shot in shots), user]
        if definition is not None:
            messages[0] = f"{definition}\n\n{messages[0]}"
        past = "".join(
            f"{message.strip()}{self.user_to_past}{shot.output}{self.assistant_to_user}"
            for message, shot in zip(messages, shots, strict=False)
        )
        return f"{self.opening}{past}{messages[-1].strip()}{self.user_to_assistant}"

    def answer(self, output: str) -> str:
        return f"{output}{self.answer_end}"


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], to_answer: bool = False) -> str:
    settings: dict[str, Any] = TEMPLATE_SETTINGS
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=to_answer, **settings))


def _end(tokenizer: PreTrainedTokenizerBase, after: str) -> str:
    """The marker after an answer; where that is no token of its own, generation could not stop at it: the end token."""
    marker = after.strip()
    if marker in tokenizer.get_added_vocab():  # type: ignore[operator]
        return marker
    if tokenizer.eos_token is None:
        raise DataError("the tokenizer has no end token, so no answer could end: set its eos_token")
    return str(tokenizer.eos_token)
