"""What tells tokenizers apart: caches of what they made must not outlive a change of them."""

from transformers import PreTrainedTokenizerBase


def tokenizer_json(tokenizer: PreTrainedTokenizerBase) -> str:
    """All that decides what tokens a text has."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return repr((type(tokenizer).__name__, tokenizer.init_kwargs, sorted(tokenizer.get_vocab().items())))
    backend.no_padding()  # as left by the last call; the next one sets it anew
    backend.no_truncation()
    return backend.to_str()
