"""Layers that read the same tensor (q, k and v; gate and up): without padding, one product for the As of all of them.

What is saved is reading their input, and drawing dropout for it, once for each; and, for single tokens, launches.

Legend: N adapters, R rank, M layers that read together, I in_features, O out_features of one, S of all, T tokens, P
parts of I.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Pair = tuple[Tensor, Tensor]
"""A_NRI and B_NOR of one layer."""


class Segments(NamedTuple):
    """In packed rows: the number of each token's adapter, in order; and where each one's tokens start, and the end.

    Both int32. start_N1 None: nobody asks for gradients, nor for dropout.
    """

    adapter_T: Tensor
    start_N1: Tensor | None = None


_READ_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""By the names that transformers gives them within one parent, in the order of their calls."""


class ReadTogether:
    """For layers 0 to M - 1 of one parent. The first to be called computes for all, as long as all get that tensor."""

    def __init__(self) -> None:
        self.install((), None)

    def install(self, pairs: Sequence[Pair], segments: Segments | None) -> None:
        """pairs: A_NRI and B_NOR of each layer, or none. segments None: for rows that are not packed."""
        self.pairs, self.segments = tuple(pairs), segments
        self._A_N_MR_I: Tensor | None = None
        self._x: Tensor | None = None
        self._of_each: tuple[Tensor, ...] = ()
        if pairs and segments is not None and segments.start_N1 is not None:
            self._A_N_MR_I = torch.cat([A_NRI for A_NRI, _ in pairs], 1) if len(pairs) > 1 else pairs[0][0]

    def down(self, layer: int, x_1_T_I: Tensor, scaling: float, p: float) -> Tensor:
        """[T, R]: s A dropout(x) of one layer, in packed rows. p: of dropout, which is one and the same for all."""
        return self._once(layer, x_1_T_I, lambda: self._down(x_1_T_I, scaling, p).chunk(len(self.pairs), -1))

    def prompt_down(self, layer: int, x_1_T_I: Tensor) -> Tensor:
        """[P, T, R]: parts of A x of one layer, in packed rows, without gradients."""
        return self._once(layer, x_1_T_I, lambda: self._prompt_down(x_1_T_I).chunk(len(self.pairs), -1))

    def change(self, layer: int, x: Tensor, scaling: float) -> Tensor:
        """[N, O]: s B (A x) of one layer, for a single token of each row, x [N, ..., I], without gradients."""
        return self._once(layer, x, lambda: self._change(x.reshape(len(x), -1), scaling))

    def fits(self) -> bool:
        """Whether `change` can be asked for."""
        from t2l.kernels.row_lora import fits  # Triton is not there where kernels are not usable

        # Not by truth: torch.compile (2.11) cannot look into that of a tuple.
        return len(self.pairs) > 0 and fits([A_NRI for A_NRI, _ in self.pairs], [B_NOR for _, B_NOR in self.pairs])

    def _once(self, layer: int, x: Tensor, compute: Callable[[], tuple[Tensor, ...]]) -> Tensor:
        if len(self.pairs) == 1:
            return compute()[0]
        if self._x is not x:
            self._x, self._of_each = x, compute()
        found = self._of_each[layer]
        if layer == len(self.pairs) - 1:
            self._x, self._of_each = None, ()
        return found

    def _down(self, x_1_T_I: Tensor, scaling: float, p: float) -> Tensor:
        from t2l.kernels.packed_lora import packed_down

        assert self.segments is not None and self._A_N_MR_I is not None
        adapter_T, start_N1 = self.segments
        assert start_N1 is not None
        return packed_down(x_1_T_I[0], self._A_N_MR_I, adapter_T, start_N1, scaling, p)

    def _prompt_down(self, x_1_T_I: Tensor) -> Tensor:
        from t2l.kernels.prompt_lora import prompt_down

        assert self.segments is not None
        return prompt_down(x_1_T_I[0], [A_NRI for A_NRI, _ in self.pairs], self.segments.adapter_T)

    def _change(self, x_N_I: Tensor, scaling: float) -> tuple[Tensor, ...]:
        from t2l.kernels.row_lora import row_lora

        change_N_S = row_lora(x_N_I, [A_NRI for A_NRI, _ in self.pairs], [B_NOR for _, B_NOR in self.pairs], scaling)
        return change_N_S.split([B_NOR.shape[1] for _, B_NOR in self.pairs], 1)


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
