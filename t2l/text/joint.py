"""Several encoders read side by side: their tokens stand in one sequence, each in its own block of features.

Axes: N texts, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from t2l.text.encoder import TextEncoder, TextFeatures


class JointEncoder:
    """Tokens of every encoder, one after another; features [.., sum of dims], zero outside the encoder's own block.

    One linear layer on top is then one projection an encoder.
    """

    def __init__(self, encoders: Sequence[TextEncoder]):
        self._encoders = tuple(encoders)
        self.feature_dim = sum(encoder.feature_dim for encoder in encoders)

    def identity(self) -> str:
        return " ".join(encoder.identity() for encoder in self._encoders)

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        counts = [encoder.token_counts(texts) for encoder in self._encoders]
        return [sum(row, start=()) for row in zip(*counts, strict=True)]

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        states, masks, before = [], [], 0
        for encoder in self._encoders:
            features = encoder.encode(texts)
            after = self.feature_dim - before - encoder.feature_dim
            states.append(pad(features.states_N_T_D, (before, after)))
            masks.append(features.mask_N_T)
            before += encoder.feature_dim
        return TextFeatures(torch.cat(states, dim=1), torch.cat(masks, dim=1))
