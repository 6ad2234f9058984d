"""What one visitor of the page has made and asked."""

from dataclasses import dataclass, field
from typing import Any

from serve.ui.client import Adapter, Answer

Chat = list[dict[str, Any]]
"""Messages as gr.Chatbot takes them."""


@dataclass
class Session:
    """What one visitor has: adapters by id, which of them is chosen, and a chat with each."""

    adapters: dict[str, Adapter] = field(default_factory=dict)
    chosen: str | None = None
    chats: dict[str, tuple[Chat, Chat]] = field(default_factory=dict)

    @property
    def adapter(self) -> Adapter | None:
        return None if self.chosen is None else self.adapters[self.chosen]

    @property
    def chat(self) -> tuple[Chat, Chat]:
        """With the base model, and with the chosen adapter."""
        return ([], []) if self.chosen is None else self.chats.get(self.chosen, ([], []))

    def add(self, adapter: Adapter) -> None:
        """Choose a new adapter, or one that was made again."""
        self.adapters.pop(adapter.id, None)
        self.adapters = {adapter.id: adapter} | self.adapters
        self.chosen = adapter.id

    def leave(self, base: Chat, adapted: Chat) -> None:
        """Keep the chat with the chosen adapter for when it is chosen again."""
        if self.chosen is not None:
            self.chats[self.chosen] = base, adapted


def messages(answer: Answer) -> Chat:
    """An answer as it stands: dots before its first word, its failure as a message of its own."""
    text = answer.text if answer.text or answer.ended else "…"
    failure = "" if answer.failure is None else f"⚠ {answer.failure}"
    return [{"role": "assistant", "content": said} for said in (text, failure) if said]
