"""One-hot codes of known descriptions or task names: the control that knows nothing about words."""

from collections.abc import Sequence

import torch
from torch.nn.functional import one_hot

from t2l.errors import DescriptionError
from t2l.text.encoder import TextFeatures


class OneHotEncoder:
    """A text's place in a fixed list, [N, 1, len(names)], × sqrt(D) as every embedding."""

    def __init__(self, names: Sequence[str]):
        self._place = {name: i for i, name in enumerate(names)}
        self.feature_dim = len(self._place)

    def identity(self) -> str:
        return " ".join(self._place)

    def token_counts(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(1,)] * len(texts)

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        unknown = next((text for text in texts if text not in self._place), None)
        if unknown is not None:
            raise DescriptionError(
                f"'{unknown}' is none of the {self.feature_dim} names that this one-hot encoder knows"
            )
        codes = one_hot(torch.tensor([self._place[text] for text in texts]), self.feature_dim) * self.feature_dim**0.5
        return TextFeatures(codes.float()[:, None], torch.ones(len(texts), 1, dtype=torch.bool))
