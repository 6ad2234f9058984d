"""Layers that read the same tensor (q, k and v; gate and up), in packed rows: one product for the As of all of them.

What is saved is reading their input, and drawing dropout for it, once for each.

Legend: N adapters, R rank, M layers that read together, I in_features, T tokens.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Segments(NamedTuple):
    """In packed rows: the number of each token's adapter, in order; and where each one's tokens start, and the end.

    Both int32. start_N1 None: nobody asks for gradients, nor for dropout, and every layer reads by itself.
    """

    adapter_T: Tensor
    start_N1: Tensor | None = None


_READ_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""By the names that transformers gives them within one parent, in the order of their calls."""


class ReadTogether:
    """For layers 0 to M - 1 of one parent. The first to be called computes for all, as long as all get that tensor."""

    def __init__(self) -> None:
        self.segments: Segments | None = None
        self._A_N_MR_I: Tensor | None = None
        self._layers = 0
        self._x: Tensor | None = None
        self._h_T_R_of_each: tuple[Tensor, ...] = ()

    def install(self, A_NRI_of_each: Sequence[Tensor], segments: Segments | None) -> None:
        """segments None: for rows that are not packed, which need nothing of this."""
        self.segments, self._A_N_MR_I, self._x, self._h_T_R_of_each = segments, None, None, ()
        if segments is not None and segments.start_N1 is not None and A_NRI_of_each:
            self._layers = len(A_NRI_of_each)
            self._A_N_MR_I = torch.cat(list(A_NRI_of_each), 1) if self._layers > 1 else A_NRI_of_each[0]

    def down(self, layer: int, x_1_T_I: Tensor, scaling: float, p: float) -> Tensor:
        """[T, R]: s A dropout(x) of one layer. p: of dropout, which is one and the same for all."""
        if self._layers == 1:
            return self._all(x_1_T_I, scaling, p)
        if self._x is not x_1_T_I:
            self._x, self._h_T_R_of_each = x_1_T_I, self._all(x_1_T_I, scaling, p).chunk(self._layers, 1)
        h_T_R = self._h_T_R_of_each[layer]
        if layer == self._layers - 1:
            self._x, self._h_T_R_of_each = None, ()
        return h_T_R

    def _all(self, x_1_T_I: Tensor, scaling: float, p: float) -> Tensor:
        from t2l.kernels.packed_lora import packed_down  # Triton is not there where kernels are not usable

        assert self.segments is not None and self._A_N_MR_I is not None
        adapter_T, start_N1 = self.segments
        assert start_N1 is not None
        return packed_down(x_1_T_I[0], self._A_N_MR_I, adapter_T, start_N1, scaling, p)


def reading_together(keys: Iterable[str]) -> list[list[str]]:
    """Layers by their names in the model, in groups of those that read together, in the order of their calls."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for key in keys:
        parent, _, name = key.rpartition(".")
        family = next((names for names in _READ_TOGETHER if name in names), (name,))
        groups.setdefault((parent, *family), []).append(key)
    return [
        sorted(group, key=lambda key: family.index(key.rpartition(".")[2])) for (_, *family), group in groups.items()
    ]
