"""What the Gateway must know of the model that it fronts."""

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """Enough to tokenise prompts and to name adapters, without loading any weights."""

    model_name: str
    """The base model's name in the API."""
    hypernet_sha256: str
    base: str
    """Fingerprint of the base model; with the hypernetwork's sum it makes adapter ids (serve/protocol.py)."""
    tokenizer_path: str
    max_length: int
    """Tokens of prompt and answer together that the engine has room for."""
