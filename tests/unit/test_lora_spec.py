import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import TARGETS, alphas, families, ranks, target_lists, tiny_config, tiny_model
from torch import nn
from transformers import GPT2Config, MistralConfig

from t2l.errors import ConfigError, SpecMismatchError
from t2l.lora import LoraSpec, TargetModule

Q = TargetModule("q_proj", "self_attn.q_proj", 32, 48)
V = TargetModule("v_proj", "self_attn.v_proj", 32, 24)
SPEC = LoraSpec((Q, V), num_layers=2, layers_path="model.layers", rank=8, alpha=16.0)


def test_mistral_7b_matches_the_paper() -> None:
    config = MistralConfig(hidden_size=4096, num_hidden_layers=32, num_key_value_heads=8, vocab_size=32000)
    spec = LoraSpec.from_config(config, ["q_proj", "v_proj"])
    assert [(m.in_features, m.out_features) for m in spec.modules] == [(4096, 4096), (4096, 1024)]
    assert spec.num_parameters == 3_407_872
    assert spec.scaling == pytest.approx(5.657, abs=1e-3)
    assert spec.module_key(31, spec.modules[0]) == "model.layers.31.self_attn.q_proj"


@settings(max_examples=20, deadline=None)
@given(families, target_lists, ranks, alphas, st.booleans())
def test_from_config_agrees_with_the_real_model(
    family: str, targets: list[str], rank: int, alpha: float, rslora: bool
) -> None:
    spec = LoraSpec.from_config(tiny_config(family), targets, rank, alpha, rslora)
    assert list(spec.module_names) == targets  # in the order given, for any hash seed
    assert spec.scaling == alpha / (math.sqrt(rank) if rslora else rank)
    model = tiny_model(family)
    for layer in range(spec.num_layers):
        for module in spec.modules:
            linear = model.get_submodule(spec.module_key(layer, module))
            assert isinstance(linear, nn.Linear)
            assert (linear.in_features, linear.out_features) == (module.in_features, module.out_features)
    assert LoraSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    spec.check_matches(LoraSpec.from_dict(spec.to_dict()))


def test_paths_are_targets_too() -> None:
    assert LoraSpec.from_config(tiny_config("llama"), ["self_attn.q_proj"]).modules[0].name == "q_proj"


def test_unknown_target_lists_the_linear_layers() -> None:
    with pytest.raises(ConfigError, match="query") as error:
        LoraSpec.from_config(tiny_config("llama"), ["query"])
    assert all(name in str(error.value) for name in TARGETS)


def test_a_string_is_no_list_of_targets() -> None:
    with pytest.raises(ConfigError, match="q_proj"):
        LoraSpec.from_config(tiny_config("llama"), "q_proj")


def test_a_model_without_linear_targets_is_refused() -> None:
    # GPT-2 has Conv1D in place of Linear, and its layers are counted by n_layer
    with pytest.raises(ConfigError, match="c_attn"):
        LoraSpec.from_config(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=11), ["c_attn"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modules": ()}, "empty"),
        ({"modules": (Q, Q)}, "repeats"),
        ({"rank": 0}, "rank 0"),
        ({"num_layers": 0}, "num_layers 0"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"alpha": math.inf}, "alpha inf"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_values_out_of_range_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(SPEC, **change)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "change",
    [{"modules": (V, Q)}, {"num_layers": 3}, {"rank": 4}, {"alpha": 8.0}, {"use_rslora": False}],
)
def test_a_mismatch_names_both_sides(change: dict[str, object]) -> None:
    other = replace(SPEC, **change)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SpecMismatchError, match=r"in the checkpoint but .* in the base model") as error:
        SPEC.check_matches(other, "the checkpoint", "the base model")
    assert next(iter(change)) in str(error.value)


def test_dropout_is_no_mismatch() -> None:
    SPEC.check_matches(replace(SPEC, dropout=0.5))


def test_from_dict_names_unknown_and_missing_fields() -> None:
    data = SPEC.to_dict()
    del data["rank"]
    with pytest.raises(ConfigError, match=r"unknown fields \['r'\], missing.*\['rank'\]"):
        LoraSpec.from_dict({**data, "r": 8})
    with pytest.raises(ConfigError, match="TargetModule"):
        LoraSpec.from_dict({**SPEC.to_dict(), "modules": [{"name": "q_proj"}]})
