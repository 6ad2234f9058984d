"""What an engine drives and the loop feeds, whatever the objective."""

from abc import ABC, abstractmethod
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from t2l.hypernet.text_to_lora import TextToLoraModel
from t2l.text.encoder import TextFeatures
from t2l.train.losses import Losses


class Batch(Protocol):
    """Part of a worker's step.

    description_index_B: which texts its adapters are made from; always on the CPU.
    """

    @property
    def description_index_B(self) -> Tensor: ...  # noqa: N802

    @property
    def count(self) -> int:
        """How much there is in it, in the steps' unit: tokens or adapters."""
        ...

    def to(self, device: torch.device | str) -> Self: ...


class TrainModule(nn.Module, ABC):
    """The trained `model` and what its adapters are judged on, which is no submodule and thus neither cast, sharded,
    broadcast nor saved.
    """

    model: TextToLoraModel

    @property
    @abstractmethod
    def device(self) -> torch.device: ...

    @abstractmethod
    def forward(self, batch: Any, features: TextFeatures) -> Losses:
        """Losses of one batch; `features` are those of its texts."""
