"""The frozen base LLM as text encoder: what it makes of a description that it reads as a prompt.

Axes: N texts, T tokens, D features.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from t2l.text.encoder import TextFeatures, encode_in_batches
from t2l.text.normalize import clean_descriptions, scaled_unit


class LlmEncoder:
    """States of a causal LM: the last token of the last layer (``sentence``, the paper's), or of all layers (``tokens``).

    In ``tokens`` mode a token's features are its states after each layer, each scaled to unit RMS, side by side:
    early layers know the word, late ones what it does.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pooling: Literal["sentence", "tokens"]):
        self._model, self._tokenizer, self._pooling = model, tokenizer, pooling
        config = model.config.get_text_config()
        self.feature_dim: int = config.hidden_size * (config.num_hidden_layers if pooling == "tokens" else 1)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """N texts -> states [N, T, layers * hidden] (tokens) or [N, 1, hidden] (sentence), fp32 on the model's device."""
        return encode_in_batches(clean_descriptions(texts), 256, self._encode_batch)

    def _encode_batch(self, texts: list[str]) -> TextFeatures:
        inputs = self._tokenizer(texts, padding=True, padding_side="right", return_tensors="pt").to(self._model.device)
        mask = inputs["attention_mask"].bool()
        states = self._model.model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], output_hidden_states=True
        ).hidden_states
        if self._pooling == "sentence":
            last = mask.sum(1) - 1
            vectors = scaled_unit(states[-1][torch.arange(len(texts), device=mask.device), last])
            return TextFeatures(vectors[:, None], torch.ones(len(texts), 1, dtype=torch.bool, device=mask.device))
        return TextFeatures(torch.cat([scaled_unit(layer) for layer in states[1:]], dim=-1), mask)
