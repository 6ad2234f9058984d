"""Adapters as plain vectors: what moves between processes and devices, each in one copy.

Legend: n adapters, P parameters of one, l layers, r rank, i in_features, o out_features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from t2l.errors import SpecMismatchError
from t2l.lora.spec import LoraSpec
from t2l.lora.weights import LoraWeights


@dataclass(frozen=True)
class FlatLayout:
    """Where in a vector [P] the weights of a spec's adapters lie: layer by layer, module by module, A before B.

    B lies transposed, [r, o]: a decoding row's single token then meets it as fast on a CPU as it meets A.
    """

    spec: LoraSpec

    @property
    def size(self) -> int:
        """P."""
        return self.spec.num_parameters

    def flatten(self, weights: LoraWeights) -> Tensor:
        """A copy of n adapters as rows [n, P]. Raises SpecMismatchError for another spec."""
        weights.spec.check_matches(self.spec, "the adapter", "the layout")
        parts = [part.flatten(2) for name in weights.A for part in (weights.A[name], weights.B[name].mT)]
        return torch.cat(parts, dim=2).flatten(1)

    def unflatten(self, rows_N_P: Tensor) -> LoraWeights:
        """n rows [n, P] as adapters that are views of them. Raises SpecMismatchError for another P."""
        self.check(rows_N_P)
        spec = self.spec
        sizes = [spec.rank * width for module in spec.modules for width in (module.in_features, module.out_features)]
        parts = iter(rows_N_P.unflatten(1, (spec.num_layers, -1)).split(sizes, dim=2))
        A, B = {}, {}
        for name in spec.module_names:
            A[name] = next(parts).unflatten(2, (spec.rank, -1))
            B[name] = next(parts).unflatten(2, (spec.rank, -1)).mT
        return LoraWeights(spec, A, B)

    def check(self, flat_P: Tensor) -> None:
        """Raise SpecMismatchError unless the last axis holds P weights."""
        if flat_P.shape[-1] != self.size:
            raise SpecMismatchError(
                f"a flat adapter of {flat_P.shape[-1]} weights does not fit a model whose adapters have {self.size}: "
                "make it with this model's checkpoint"
            )
