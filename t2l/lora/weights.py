"""LoraWeights: the A and B of n adapters of one spec, stacked over adapters and layers.

Legend: n adapters, l layers, r rank, i in_features, o out_features.
Per target module: A_NLRI [n, l, r, i], B_NLOR [n, l, o, r]; the change of a weight is scaling * B A.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from t2l.errors import CheckpointError, SpecMismatchError
from t2l.lora.spec import LoraSpec, TargetModule

PEFT_PREFIX = "base_model.model."


@dataclass(eq=False)
class LoraWeights:
    """n adapters. `A` and `B` map module names, in the spec's order, to [n, l, r, i] and [n, l, o, r].

    Raises SpecMismatchError when names or shapes differ from the spec. Arithmetic acts on A and on B, each by
    itself (as upstream's "average LoRA" does), not on the products B A; n = 1 broadcasts.
    """

    spec: LoraSpec
    A: dict[str, Tensor]
    B: dict[str, Tensor]

    def __post_init__(self) -> None:
        names = self.spec.module_names
        if tuple(self.A) != names or tuple(self.B) != names:
            raise SpecMismatchError(
                f"the spec has modules {list(names)}, in this order, but A has {list(self.A)} and B has {list(self.B)}"
            )
        n = self.A[names[0]].shape[0]
        for module in self.spec.modules:
            A_shape, B_shape = _shapes(self.spec, module, n)
            _check_shape("A", module, self.A[module.name], A_shape)
            _check_shape("B", module, self.B[module.name], B_shape)

    def __len__(self) -> int:
        """Number of adapters n."""
        return self.A[self.spec.modules[0].name].shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.A[self.spec.modules[0].name].dtype

    @property
    def device(self) -> torch.device:
        return self.A[self.spec.modules[0].name].device

    def tensors(self) -> Iterator[Tensor]:
        """All A in module order, then all B."""
        yield from self.A.values()
        yield from self.B.values()

    # ---- makers

    @classmethod
    def zeros(
        cls, spec: LoraSpec, n: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> Self:
        """n adapters with A = B = 0."""
        shapes = {module.name: _shapes(spec, module, n) for module in spec.modules}
        A = {name: torch.zeros(A_shape, dtype=dtype, device=device) for name, (A_shape, _) in shapes.items()}
        B = {name: torch.zeros(B_shape, dtype=dtype, device=device) for name, (_, B_shape) in shapes.items()}
        return cls(spec, A, B)

    @classmethod
    def init(
        cls,
        spec: LoraSpec,
        n: int,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Self:
        """n fresh adapters as PEFT makes them: B zero, A Kaiming uniform with a = sqrt(5).

        That is U(-1/sqrt(i), 1/sqrt(i)). The generator must live on `device`.
        """
        weights = cls.zeros(spec, n, dtype, device)
        for module in spec.modules:
            bound = 1 / math.sqrt(module.in_features)
            weights.A[module.name].uniform_(-bound, bound, generator=generator)
        return weights

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """The adapters of all parts, one after another. Raises SpecMismatchError if their specs differ."""
        if not parts:
            raise SpecMismatchError("cannot concatenate an empty list of LoraWeights")
        spec = parts[0].spec
        for number, part in enumerate(parts[1:], start=1):
            part.spec.check_matches(spec, f"part {number}", "part 0")
        A = {name: torch.cat([part.A[name] for part in parts]) for name in spec.module_names}
        B = {name: torch.cat([part.B[name] for part in parts]) for name in spec.module_names}
        return cls(spec, A, B)

    # ---- views and moves

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor; it must keep the layer and weight axes."""
        A = {name: function(tensor) for name, tensor in self.A.items()}
        B = {name: function(tensor) for name, tensor in self.B.items()}
        return type(self)(self.spec, A, B)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move or cast; tensors that are already right are shared, not copied."""
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def detach(self) -> Self:
        """The same numbers without a gradient."""
        return self.map(Tensor.detach)

    def select(self, index: Tensor | slice | Sequence[int]) -> Self:
        """The adapters at an index [m] of integers (repeats allowed; a copy) or in a slice (a view)."""
        if not isinstance(index, slice):
            index = torch.as_tensor(index, dtype=torch.long, device=self.device)
        return self.map(lambda tensor: tensor[index])

    def in_order_of(self, spec: LoraSpec) -> Self:
        """The same adapters under `spec`, which may list the same modules in another order.

        For PEFT folders, whose order is arbitrary. Raises SpecMismatchError if more than the order differs.
        """
        own = {module.name: module for module in self.spec.modules}
        ordered = self.spec
        if set(own) == set(spec.module_names):
            ordered = replace(self.spec, modules=tuple(own[name] for name in spec.module_names))
        ordered.check_matches(spec, "the adapter", "the spec")
        A = {name: self.A[name] for name in spec.module_names}
        return type(self)(spec, A, {name: self.B[name] for name in spec.module_names})

    # ---- arithmetic

    def __add__(self, other: Self) -> Self:
        return self._combine(other, torch.add)

    def __sub__(self, other: Self) -> Self:
        return self._combine(other, torch.sub)

    def __mul__(self, factor: float) -> Self:
        return self.map(lambda tensor: tensor * factor)

    __rmul__ = __mul__

    def _combine(self, other: Self, function: Callable[[Tensor, Tensor], Tensor]) -> Self:
        other.spec.check_matches(self.spec, "the right side", "the left side")
        if len(self) != len(other) and 1 not in (len(self), len(other)):
            raise SpecMismatchError(
                f"cannot combine {len(self)} adapters with {len(other)}: give equal numbers, or one"
            )
        A = {name: function(tensor, other.A[name]) for name, tensor in self.A.items()}
        B = {name: function(tensor, other.B[name]) for name, tensor in self.B.items()}
        return type(self)(self.spec, A, B)

    def mean(self) -> Self:
        """One adapter: the mean of all A and the mean of all B."""
        return self.map(lambda tensor: tensor.mean(0, keepdim=True))

    def delta(self, name: str) -> Tensor:
        """Change of the module's weight, scaling * B A: [n, l, o, i]."""
        return self.spec.scaling * (self.B[name] @ self.A[name])

    # ---- PEFT's names

    def state_dict(self, index: int = 0) -> dict[str, Tensor]:
        """One adapter under PEFT's keys, such as "base_model.model.<module>.lora_A.weight"; views."""
        if not 0 <= index < len(self):
            raise SpecMismatchError(f"adapter {index} does not exist: there are {len(self)}, counted from 0")
        state: dict[str, Tensor] = {}
        for layer in range(self.spec.num_layers):
            for module in self.spec.modules:
                A_key, B_key = peft_keys(self.spec, layer, module)
                state[A_key] = self.A[module.name][index, layer]
                state[B_key] = self.B[module.name][index, layer]
        return state

    @classmethod
    def from_state_dict(cls, spec: LoraSpec, states: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]]) -> Self:
        """Adapters from one dict with PEFT's keys, or from a list of them; the order of keys does not matter.

        Raises CheckpointError naming missing or surplus keys, SpecMismatchError on wrong shapes.
        """
        states = [states] if isinstance(states, Mapping) else list(states)
        keys = {m.name: [peft_keys(spec, layer, m) for layer in range(spec.num_layers)] for m in spec.modules}
        expected = {key for pairs in keys.values() for pair in pairs for key in pair}
        for number, state in enumerate(states):
            if missing := sorted(expected - set(state)):
                raise CheckpointError(f"adapter {number} lacks {len(missing)} tensors, first {missing[0]!r}")
            if surplus := sorted(set(state) - expected):
                raise CheckpointError(f"adapter {number} has {len(surplus)} surplus tensors, first {surplus[0]!r}")
        A = {name: _stack(states, [a for a, _ in pairs]) for name, pairs in keys.items()}
        B = {name: _stack(states, [b for _, b in pairs]) for name, pairs in keys.items()}
        return cls(spec, A, B)


def peft_keys(spec: LoraSpec, layer: int, module: TargetModule) -> tuple[str, str]:
    """PEFT's names of A and B of one module."""
    key = PEFT_PREFIX + spec.module_key(layer, module)
    return f"{key}.lora_A.weight", f"{key}.lora_B.weight"


def _shapes(spec: LoraSpec, module: TargetModule, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of A and B for n adapters."""
    A_shape = (n, spec.num_layers, spec.rank, module.in_features)
    return A_shape, (n, spec.num_layers, module.out_features, spec.rank)


def _check_shape(side: str, module: TargetModule, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise SpecMismatchError(
            f"{side} of {module.name!r} has shape {list(tensor.shape)}, "
            f"the spec asks for [adapters, layers, ...] = {list(expected)}"
        )


def _stack(states: Sequence[Mapping[str, Tensor]], keys: list[str]) -> Tensor:
    """[n, l, ., .] from n state dicts and the keys of l layers."""
    for state in states:
        for key in keys:
            if state[key].shape != states[0][keys[0]].shape:
                raise SpecMismatchError(
                    f"{key!r} is {list(state[key].shape)} but {keys[0]!r} is {list(states[0][keys[0]].shape)}"
                )
    return torch.stack([torch.stack([state[key] for key in keys]) for state in states])
