"""Several encoders read side by side: their tokens stand in one sequence, each in its own block of features.

Axes: N texts, T tokens, D features.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from t2l.text.encoder import TextFeatures, TokenEncoder, Tokens


class JointEncoder(TokenEncoder):
    """Tokens of every encoder, one after another; features [.., sum of dims], zero outside the encoder's own block.

    One linear layer on top is then one projection an encoder.
    """

    def __init__(self, encoders: Sequence[TokenEncoder]):
        self._encoders = tuple(encoders)
        self.feature_dim = sum(encoder.feature_dim for encoder in encoders)

    def identity(self) -> str:
        return " ".join(encoder.identity() for encoder in self._encoders)

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        counts = [encoder.token_counts(texts) for encoder in self._encoders]
        return [sum(row, start=()) for row in zip(*counts, strict=True)]

    @property
    def limits(self) -> tuple[int, ...]:
        return sum((encoder.limits for encoder in self._encoders), start=())

    @property
    def device(self) -> torch.device:
        return self._encoders[0].device

    def tokenize(self, texts: Sequence[str], multiple: int = 1) -> Tokens:
        """The encoders' names, each after its encoder's number."""
        each = [encoder.tokenize(texts, multiple) for encoder in self._encoders]
        return {f"{number}.{name}": tensor for number, own in enumerate(each) for name, tensor in own.items()}

    def read(self, tokens: Tokens) -> TextFeatures:
        states, masks, before = [], [], 0
        for number, encoder in enumerate(self._encoders):
            start = f"{number}."
            own = {name.removeprefix(start): tensor for name, tensor in tokens.items() if name.startswith(start)}
            features = encoder.read(own)
            after = self.feature_dim - before - encoder.feature_dim
            states.append(pad(features.states_N_T_D, (before, after)))
            masks.append(features.mask_N_T)
            before += encoder.feature_dim
        return TextFeatures(torch.cat(states, dim=1), torch.cat(masks, dim=1))
