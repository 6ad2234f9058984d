"""t2l: describe a task, get a LoRA that does it.

from t2l import TextToLora

adapters = TextToLora.from_pretrained().generate(["Sort the words, longest first."])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2l.text_to_lora import TextToLora

__all__ = ["TextToLora"]


def __getattr__(name: str) -> Any:
    """Import torch and transformers, which takes seconds, only for those who ask for the model."""
    if name == "TextToLora":
        from t2l.text_to_lora import TextToLora

        return TextToLora
    raise AttributeError(f"module 't2l' has no attribute {name!r}")
