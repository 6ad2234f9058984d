"""What a LoRA is made of: an ORDERED list of target modules, their shapes, the rank and the scaling.

The order of modules is stored, never derived from a set: upstream numbers its modules by iterating a Python
set, so that a reloaded checkpoint may swap its module embeddings. Whatever indexes modules by number must
take its order from here.

Legend: l layers, r rank, i in_features, o out_features.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from t2l.errors import ConfigError, SpecMismatchError

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class TargetModule:
    """One linear layer, present in every decoder layer, that receives a LoRA.

    name: the last part of its path ("q_proj"), unique within a spec.
    path: relative to the decoder layer ("self_attn.q_proj").
    """

    name: str
    path: str
    in_features: int
    out_features: int

    def __str__(self) -> str:
        return f"{self.path} [{self.in_features} -> {self.out_features}]"


@dataclass(frozen=True)
class LoraSpec:
    """The single source of order, shapes and scaling of all adapters of one base model.

    Raises ConfigError where a field is out of range. Hashable; `dropout` acts on training alone.
    """

    modules: tuple[TargetModule, ...]
    num_layers: int
    layers_path: str
    rank: int
    alpha: float
    use_rslora: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        names = [module.name for module in self.modules]
        if not names:
            raise ConfigError("target_modules is empty: name at least one linear layer such as 'q_proj'")
        if len(set(names)) != len(names):
            raise ConfigError(f"target_modules {names} repeats a name: give each module once")
        if self.rank < 1 or self.num_layers < 1:
            raise ConfigError(f"rank {self.rank} and num_layers {self.num_layers} must both be at least 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"alpha {self.alpha} must be a positive finite number")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout {self.dropout} must lie in [0, 1)")

    @property
    def scaling(self) -> float:
        """Factor on B A: alpha / sqrt(r) with rsLoRA (https://arxiv.org/abs/2312.03732), else alpha / r."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    @property
    def num_parameters(self) -> int:
        """Number of weights in one adapter."""
        return self.num_layers * self.rank * sum(m.in_features + m.out_features for m in self.modules)

    @property
    def module_names(self) -> tuple[str, ...]:
        """Names of the modules in stored order."""
        return tuple(module.name for module in self.modules)

    def module_key(self, layer: int, module: TargetModule) -> str:
        """Name of a module inside the base model, such as "model.layers.0.self_attn.q_proj"."""
        return f"{self.layers_path}.{layer}.{module.path}"

    @classmethod
    def from_config(
        cls,
        hf_config: "PretrainedConfig",
        target_modules: Sequence[str],
        rank: int = 8,
        alpha: float = 16.0,
        use_rslora: bool = True,
        dropout: float = 0.0,
    ) -> Self:
        """Read shapes off a causal LM that is built on the meta device: no weights are allocated or loaded.

        target_modules: names ("q_proj") or paths in a layer ("self_attn.q_proj"); their order is kept.
        Raises ConfigError for a target that no layer has (listing those there are), that is ambiguous, or
        whose shape differs between layers.
        """
        from transformers import (
            AutoModelForCausalLM,
        )  # takes seconds to import: specs are also read without it

        if isinstance(target_modules, str):
            raise ConfigError(f"target_modules must be a list of names, got the string {target_modules!r}")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(hf_config)
        layers_path, layers = find_layers(model, hf_config)
        linears_per_layer = [_linears(layer) for layer in layers]
        modules = tuple(_resolve(target, linears_per_layer) for target in target_modules)
        return cls(modules, len(linears_per_layer), layers_path, rank, float(alpha), use_rslora, dropout)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` is its inverse."""
        return {**asdict(self), "modules": [asdict(module) for module in self.modules]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`. Raises ConfigError naming unknown or missing fields."""
        _check_fields(cls, data)
        for module in data["modules"]:
            _check_fields(TargetModule, module)
        return cls(**{**data, "modules": tuple(TargetModule(**module) for module in data["modules"])})

    def check_matches(self, other: "LoraSpec", here: str = "this LoRA", there: str = "the other") -> None:
        """Raise SpecMismatchError that names each difference and both sides (`here` is self, `there` other).

        Dropout is not compared: it acts on training alone and changes no weight.
        """
        if self == other:
            return
        differences = [
            f"{name} is {_show(getattr(self, name))} in {here} but {_show(getattr(other, name))} in {there}"
            for name in ("modules", "num_layers", "layers_path", "rank", "alpha", "use_rslora")
            if getattr(self, name) != getattr(other, name)
        ]
        if differences:
            raise SpecMismatchError("; ".join(differences))


def _show(value: object) -> str:
    return "(" + ", ".join(map(str, value)) + ")" if isinstance(value, tuple) else repr(value)


def _check_fields(cls: type[LoraSpec] | type[TargetModule], data: Mapping[str, Any]) -> None:
    known = {field.name for field in fields(cls)}
    optional = {"use_rslora", "dropout"}
    unknown, missing = sorted(set(data) - known), sorted(known - set(data) - optional)
    if unknown or missing:
        raise ConfigError(f"{cls.__name__} cannot be read: unknown fields {unknown}, missing fields {missing}")


def find_layers(model: nn.Module, hf_config: "PretrainedConfig") -> tuple[str, nn.ModuleList]:
    """The outermost list of modules that is as long as the (text) model is deep."""
    depth = hf_config.get_text_config().num_hidden_layers
    for path, module in model.named_modules():  # parents come before children
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return path, module
    raise ConfigError(f"{type(model).__name__} has no list of {depth} decoder layers: t2l cannot place LoRAs in it")


def _linears(layer: nn.Module) -> dict[str, tuple[int, int]]:
    """path in the layer -> (in_features, out_features)."""
    modules = layer.named_modules()
    return {path: (m.in_features, m.out_features) for path, m in modules if isinstance(m, nn.Linear)}


def _resolve(target: str, linears_per_layer: list[dict[str, tuple[int, int]]]) -> TargetModule:
    first = linears_per_layer[0]
    paths = [path for path in first if path == target or path.endswith(f".{target}")]
    if len(paths) != 1:
        problem = f"is ambiguous ({', '.join(paths)})" if paths else "is no linear layer of this model"
        raise ConfigError(f"target module {target!r} {problem}: choose from {', '.join(first)}")
    path = paths[0]
    shape = first[path]
    for layer, linears in enumerate(linears_per_layer):
        if linears.get(path) != shape:
            raise ConfigError(
                f"target module {target!r} is {shape} in layer 0 but {linears.get(path)} in layer {layer}: "
                "choose modules that have one shape in all layers"
            )
    return TargetModule(path.rpartition(".")[2], path, *shape)
