"""Per-row LoRA on a frozen causal LM: y = W x + s B (A x) with one pair (A, B) per row of the batch.

Two batched matmuls per linear layer, and nothing is repeated per token: upstream's forward hook repeats A and
B for every token (512 MiB for one A at batch 8, length 512).

Legend: n adapters, k rows per adapter, t tokens of a row, r rank, i in_features, o out_features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from t2l import kernels
from t2l.errors import SpecMismatchError
from t2l.lora.dropout import dropout
from t2l.lora.spec import LoraSpec, TargetModule
from t2l.lora.together import Pair, ReadTogether, Segments, reading_together
from t2l.lora.weights import LoraWeights


class RowLoraLinear(nn.Module):
    """A frozen linear layer that adds s B (A x) while `pair` is set.

    pair: A_NRI [n, r, i] and B_NOR [n, o, r] in the dtype of the layer, or None for the base layer alone.
    Adapter j serves the k = rows / n consecutive rows from j k on; or, where rows are packed into one [1, T, i],
    those tokens that the segments of `together` say. Plain attributes rather than arguments, because the model in
    between passes none through; torch.compile treats the tensors as inputs, so new values do not recompile.
    place: its own among the layers that `together` is for.
    """

    def __init__(self, base: nn.Linear, scaling: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base
        self.scaling = scaling
        self.dropout = dropout
        self.pair: Pair | None = None
        self.together, self.place = ReadTogether(), 0
        self.train(base.training)  # a fresh module is in training mode, and dropout would act on answers

    @property
    def weight(self) -> Tensor:
        """The frozen weight [o, i]: some models look at its dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """x [n k, ..., i] -> [n k, ..., o]; packed, x [1, T, i] -> [1, T, o]."""
        if self.pair is None:
            return self.base(x)
        if self.together.segments is not None:
            return self._packed(x, self.pair[1], self.together.segments)
        A_NRI, B_NOR = self.pair
        n = A_NRI.shape[0]
        if x.shape[0] % n:
            raise SpecMismatchError(f"{n} adapters cannot share {x.shape[0]} rows: rows must be a multiple of adapters")
        x_NKtI = x.reshape(n, -1, x.shape[-1])
        single = x_NKtI.shape[1] == 1 and not torch.is_grad_enabled() and kernels.usable(x.device)
        if single and self.together.fits():
            change_N_O = self.together.change(self.place, x, self.scaling)
            # Of three axes: as a sum of two, torch.compile would have the product add it, for a copy of it first.
            return (self.base(x_NKtI) + change_N_O[:, None]).view(*x.shape[:-1], -1)
        y_NKtO = self.base(x_NKtI)
        h_NKtR = dropout(x_NKtI, self.dropout, self.training).bmm(A_NRI.mT)
        # In place and scaled inside the matmul: the large y is read and written once. No backward needs it.
        y_NKtO = y_NKtO.baddbmm_(h_NKtR, B_NOR.mT, alpha=self.scaling)
        return y_NKtO.view(*x.shape[:-1], -1)

    def _packed(self, x_1_T_I: Tensor, B_NOR: Tensor, segments: Segments) -> Tensor:
        # Triton is not there where kernels are not usable
        from t2l.kernels.packed_lora import packed_up
        from t2l.kernels.prompt_lora import prompt_up

        adapter_T, start_N1 = segments
        if start_N1 is None:
            h_P_T_R = self.together.prompt_down(self.place, x_1_T_I)
            return prompt_up(self.base(x_1_T_I[0]), h_P_T_R, B_NOR, adapter_T, self.scaling)[None]
        h_T_R = self.together.down(self.place, x_1_T_I, self.scaling, self.dropout if self.training else 0.0)
        return packed_up(self.base(x_1_T_I[0]), h_T_R, B_NOR, adapter_T, start_N1)[None]


class PerRowLora(nn.Module):
    """A frozen causal LM whose target layers take different adapters in different rows of one batch.

    The model is changed in place: its target layers become RowLoraLinear and nothing in it requires a
    gradient. Gradients flow to the adapters. Raises SpecMismatchError if a layer is missing or has another
    shape than the spec. Not thread-safe: the adapters of the running call are state of the layers.
    """

    def __init__(self, model: PreTrainedModel, spec: LoraSpec) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.spec = spec
        present = dict(model.named_modules())
        keys = {spec.module_key(layer, m): m for m in spec.modules for layer in range(spec.num_layers)}
        linears = {key: _checked(present, key, module) for key, module in keys.items()}  # all, before any change
        layers = {key: RowLoraLinear(linear, spec.scaling, spec.dropout) for key, linear in linears.items()}
        for key, layer in layers.items():
            model.set_submodule(key, layer)
        self._layers = tuple(layers.values())  # module by module; a tuple, lest they register twice
        self._let_read_together([[layers[key] for key in keys] for keys in reading_together(layers)])

    @property
    def decoder_layers(self) -> list[nn.Module]:
        """Of one code and different weights: what to compile, once for all."""
        return list(self.model.get_submodule(self.spec.layers_path).children())

    def released(self) -> PreTrainedModel:
        """The model as it was before, for LoRA layers of another spec; this object must not be used any more."""
        for key, layer in list(self.model.named_modules()):
            if isinstance(layer, RowLoraLinear):
                self.model.set_submodule(key, layer.base)
        return self.model

    def forward(self, weights: LoraWeights | None, **inputs: Any) -> Any:
        """Run the model on `inputs`, as its own forward takes them, with these adapters; None: base model.

        n = len(weights) must divide the rows; each adapter serves rows / n consecutive rows, uncopied.
        """
        with self.adapters(weights):
            return self.model(**inputs)

    def adapters(self, weights: LoraWeights | None, segments: Segments | None = None) -> AbstractContextManager[None]:
        """Adapters for any calls on `model` in this context, such as `lora.model.generate(...)`; segments: in packed
        rows.

        They are cast to the model's dtype and device once, here. Raises SpecMismatchError for another spec.
        """
        return self.installed(None if weights is None else self.pairs(weights), segments)

    def enable_activation_checkpointing(self) -> None:
        """Keep no activations inside decoder layers; recompute them in the backward pass (training mode).

        Use this rather than the model's own switch: a recomputation happens after `forward` has returned,
        when other adapters, or none, may be set. This one sets the right ones again.
        """

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self.installed(*self._now())

        def recomputed(function: Callable[..., Any], *args: Any) -> Any:
            if torch.compiler.is_compiling():  # the graph holds the adapters as inputs, and takes no contexts
                return checkpoint(function, *args, use_reentrant=False)
            return checkpoint(function, *args, use_reentrant=False, context_fn=contexts)

        self._let_read_together([[layer] for layer in self._layers])  # what is recomputed alters nothing outside it
        # transformers' public switch passes arguments to `checkpoint`, but lets nobody choose by `is_compiling`
        self.model._set_gradient_checkpointing(True, recomputed)

    def pairs(self, weights: LoraWeights) -> Sequence[Pair | None]:
        """A and B of every layer, for `installed`: whoever installs the same adapters often prepares them once.

        Adapters in the model's dtype and on its device are not copied: the pairs follow what is written into them.
        Raises SpecMismatchError for another spec.
        """
        weights.spec.check_matches(self.spec, "the adapter", "the model's LoRA layers")
        weight = self._layers[0].weight
        cast_weights = weights.to(weight.device, _compute_dtype(self.model, weight.device))
        pairs: list[Pair | None] = []
        for name in self.spec.module_names:
            A, B = cast_weights.A[name], cast_weights.B[name]
            if B.stride()[-2:] != (1, B.shape[-2]) and not torch.is_grad_enabled() and kernels.usable(weight.device):
                B = B.mT.contiguous().mT  # as `row_lora` reads it
            # unbind, not indexing by layer: its backward is one stack, not l sums of full-size tensors
            pairs += zip(A.unbind(1), B.unbind(1), strict=True)
        return pairs

    @contextmanager
    def installed(self, pairs: Sequence[Pair | None] | None, segments: Segments | None = None) -> Iterator[None]:
        """`adapters` that `pairs` has prepared; None: the base model."""
        previous = self._now()
        self._install(pairs or [None] * len(self._layers), segments)
        try:
            yield
        finally:
            self._install(*previous)

    def _now(self) -> tuple[Sequence[Pair | None], Segments | None]:
        return [layer.pair for layer in self._layers], self._layers[0].together.segments

    def _install(self, pairs: Sequence[Pair | None], segments: Segments | None) -> None:
        for layer, pair in zip(self._layers, pairs, strict=True):
            layer.pair = pair
        idle = segments is None and self._layers[0].together.segments is None
        if idle and not kernels.usable(self._layers[0].weight.device):
            return  # as in every step of an engine on a CPU
        for group in self._groups:
            group[0].together.install([layer.pair for layer in group if layer.pair is not None], segments)

    def _let_read_together(self, groups: Sequence[Sequence[RowLoraLinear]]) -> None:
        self._groups = [tuple(group) for group in groups]
        for group in self._groups:
            together = ReadTogether()
            for place, layer in enumerate(group):
                layer.together, layer.place = together, place


def _checked(present: Mapping[str, nn.Module], key: str, target: TargetModule) -> nn.Linear:
    """The model's linear layer of that name, after a check of its type and shape."""
    linear = present.get(key)
    if not isinstance(linear, nn.Linear):
        found = "nothing" if linear is None else type(linear).__name__
        raise SpecMismatchError(f"the spec targets a linear layer {key!r}, but the model has {found} there")
    if (linear.in_features, linear.out_features) != (target.in_features, target.out_features):
        shape = f"[{linear.in_features} -> {linear.out_features}]"
        raise SpecMismatchError(f"the spec has {target}, but the model's {key!r} is {shape}")
    return linear


def _compute_dtype(model: PreTrainedModel, device: torch.device) -> torch.dtype:
    """The dtype that the linear layers compute in (a quantised weight's own dtype says nothing)."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else model.dtype
