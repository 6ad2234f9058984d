"""Decoder layers through torch.compile: their many small kernels (norms, rotary positions, activations) become few."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch._dynamo import config as dynamo_config
from torch.fx.experimental import _config as fx_config


class CompiledLayers:
    """Layers of one class that run compiled where they are asked to, all by the same code, for batches of any shape.

    Elsewhere, with a cache that grows, each would be compiled anew for every layer and use.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._forwards = [(layer, torch.compile(layer.forward, dynamic=True)) for layer in layers]

    @contextmanager
    def running(self) -> Iterator[None]:
        """In this context they are compiled."""
        for layer, forward in self._forwards:
            layer.forward = forward
        try:
            # That there are as many rows as, say, ranks is chance, and nothing to compile for. Training and evaluation,
            # with gradients and without, a first layer and the others are each compiled apart: more than 8 in all.
            with (
                fx_config.patch(use_duck_shape=False),  # pyright: ignore[reportAttributeAccessIssue]
                dynamo_config.patch(recompile_limit=64),
            ):
                yield
        finally:
            for layer, _ in self._forwards:
                del layer.forward  # the instance's; the class has its own
