"""How long a sequence a model can take in."""

from transformers import PreTrainedConfig


def positions(config: PreTrainedConfig) -> int | None:
    """Tokens of the longest one, prompt and answer; None if the model does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)
