"""Embeddings of task descriptions -> LoRA weights (Text-to-LoRA, https://arxiv.org/abs/2506.06105).

Legend: n tasks (adapters), e task embedding, l layers, r rank, i in_features, o out_features.
All layers, sides and ranks are batched; the only loop is over target modules, whose heads differ in shape.
"""

import json
from typing import cast

import torch
from torch import Tensor, nn

from t2l.config import HypernetConfig
from t2l.errors import DataError, SpecMismatchError
from t2l.hypernet.blocks import Trunk
from t2l.hypernet.heads import HEADS, OutputUnits
from t2l.hypernet.init import bias_hyperinit_
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights


class HyperNetwork(nn.Module):
    """One forward pass from [n, e] to n adapters of `spec`.

    offset: one adapter to start from and to add to; by default a fresh LoRA, which changes nothing (B is 0).
    The state dict holds the spec too; loading it under another one (another order of modules, say) raises
    SpecMismatchError.
    """

    def __init__(
        self, spec: LoraSpec, config: HypernetConfig, embedding_dim: int, offset: LoraWeights | None = None
    ) -> None:
        super().__init__()
        self.spec, self.config, self.embedding_dim = spec, config, embedding_dim
        head_class = HEADS[config.variant]
        self.trunk = Trunk(spec, config, embedding_dim, per_side=head_class.per_side, per_rank=head_class.per_rank)
        self.heads = nn.ModuleDict({m.name: head_class(m, spec.rank, config.head_input_size) for m in spec.modules})
        self.units = nn.ModuleDict({m.name: OutputUnits(m, spec.num_layers, spec.rank) for m in spec.modules})
        bias_hyperinit_(self, offset)

    def forward(self, embedding_N_E: Tensor, *, normalised: bool = False) -> LoraWeights:
        """Embeddings [n, e] -> n adapters, on the parameters' device and in their dtype.

        normalised: leave out scale and shift. With a z-score set, these are the z-scores that a
        reconstruction loss compares with `normalise(target)`.
        Raises SpecMismatchError if the embedding's shape is not [n, embedding_dim].
        """
        if embedding_N_E.ndim != 2 or embedding_N_E.shape[1] != self.embedding_dim:
            raise SpecMismatchError(
                f"embedding has shape {list(embedding_N_E.shape)} but this hypernetwork takes "
                f"[n, {self.embedding_dim}]: use the text encoder it was trained with, one row a description"
            )
        embedding_N_E = embedding_N_E.to(self.trunk.layer_table.weight)
        hidden = self.trunk(embedding_N_E, halved=not normalised)  # [n, l, modules, ..., h]
        A: dict[str, Tensor] = {}
        B: dict[str, Tensor] = {}
        for name, x in zip(self.spec.module_names, hidden.unbind(2), strict=True):
            A[name], B_rows = self.heads[name](x, None if normalised else self.units[name])
            B[name] = B_rows.mT
        return LoraWeights(self.spec, A, B)

    def normalise(self, weights: LoraWeights) -> LoraWeights:
        """(weights - shift) / scale, 0 where scale is 0: what `forward(normalised=True)` should yield."""
        self.spec.check_matches(weights.spec, "the hypernetwork", "the weights")
        A: dict[str, Tensor] = {}
        B: dict[str, Tensor] = {}
        for name in self.spec.module_names:
            A[name], B_rows = self._units(name).inverse(weights.A[name], weights.B[name].mT)
            B[name] = B_rows.mT
        return LoraWeights(self.spec, A, B)

    def set_offset(self, offset: LoraWeights) -> None:
        """Let the output be `offset` (one adapter) + head output; replaces offset, init or z-score."""
        self._set_units(shift=offset, scale=offset.map(torch.ones_like))

    def set_zscore(self, mean: LoraWeights, std: LoraWeights) -> None:
        """Let the output be head output * std + mean, per weight; replaces offset, init or z-score.

        For reconstruction, before training. Raises DataError if a value is not finite or a std is negative.
        """
        if not all(bool(t.isfinite().all()) for t in (*mean.tensors(), *std.tensors())):
            raise DataError("mean or std of the z-score is not finite everywhere: check the adapters behind them")
        if any(bool((t < 0).any()) for t in std.tensors()):
            raise DataError("std of the z-score has negative values: pass standard deviations")
        self._set_units(shift=mean, scale=std)

    @torch.no_grad()
    def _set_units(self, shift: LoraWeights, scale: LoraWeights) -> None:
        for weights in (shift, scale):
            self.spec.check_matches(weights.spec, "the hypernetwork", "the given weights")
            if len(weights) != 1:
                raise SpecMismatchError(f"expected weights of one adapter but got {len(weights)}: select one")
        for name in self.spec.module_names:
            units = self._units(name)
            units.A_shift.copy_(shift.A[name][0])
            units.B_shift.copy_(shift.B[name][0].mT)
            units.A_scale.copy_(scale.A[name][0])
            units.B_scale.copy_(scale.B[name][0].mT)

    def _units(self, name: str) -> OutputUnits:
        return cast(OutputUnits, self.units[name])

    def get_extra_state(self) -> Tensor:
        """The spec as JSON bytes [length], a tensor so that safetensors can hold it."""
        return torch.tensor(list(json.dumps(self.spec.to_dict()).encode()), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Check the spec of a state dict against ours. Raises SpecMismatchError naming both sides."""
        stored = LoraSpec.from_dict(json.loads(bytes(state.tolist())))
        stored.check_matches(self.spec, "the checkpoint", "this hypernetwork")
