"""Chat prompts for any tokenizer with a chat template, rendered fast.

The template is run once on sentinel messages; afterwards a prompt is plain string joining. The definition of a task is
part of the prompt only where a caller passes it: by default the adapter alone must carry the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from t2l.errors import DataError
from t2l.tasks.task import Example

_USER, _ANSWER = "\u2460USER\u2460", "\u2461ANSWER\u2461"


@dataclass(frozen=True)
class PromptFormat:
    """The fixed text of a chat around what user and assistant say."""

    opening: str
    """Before the first user message."""
    user_to_assistant: str
    assistant_to_user: str
    answer_end: str
    """What the model writes to end its answer."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "PromptFormat":
        """Read the format off a tokenizer's chat template; a base model without one gets plain newlines."""
        if tokenizer.chat_template is None:
            return cls(str(tokenizer.bos_token or ""), "\n", "\n\n", str(tokenizer.eos_token))
        turn = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
        text = str(tokenizer.apply_chat_template(turn + turn, tokenize=False))
        parts = text.replace(_ANSWER, _USER).split(_USER)
        if len(parts) != 5:
            raise DataError(
                "the tokenizer's chat template drops or repeats messages; give a template that keeps each one"
            )
        opening, _, assistant_to_user, _, answer_end = parts
        prompt = str(tokenizer.apply_chat_template(turn[:1], tokenize=False, add_generation_prompt=True))
        return cls(opening, prompt.split(_USER)[1], assistant_to_user, answer_end.rstrip())

    def prompt(self, user: str, definition: str | None = None, shots: Sequence[Example] = ()) -> str:
        """The text up to where the model answers; a definition stands before the first message of the user."""
        messages = [*(shot.input for shot in shots), user]
        if definition is not None:
            messages[0] = f"{definition}\n\n{messages[0]}"
        past = "".join(
            f"{message.strip()}{self.user_to_assistant}{shot.output}{self.assistant_to_user}"
            for message, shot in zip(messages, shots, strict=False)
        )
        return f"{self.opening}{past}{messages[-1].strip()}{self.user_to_assistant}"

    def answer(self, output: str) -> str:
        return f"{output}{self.answer_end}"
