import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import (
    alphas,
    families,
    logits,
    peft_model,
    random_weights,
    ranks,
    target_lists,
    tiny_config,
    tiny_model,
    tokens,
)
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

from t2l.errors import CheckpointError, ConfigError, SpecMismatchError
from t2l.files import complete_folder
from t2l.lora import LoraSpec, LoraWeights
from t2l.lora.apply import PerRowLora
from t2l.lora.peft_io import load_peft, save_peft

SPEC = LoraSpec.from_config(tiny_config("llama"), ["v_proj", "q_proj"], rank=3, dropout=0.05)


def saved(folder: Path, **kwargs: Any) -> Path:
    return save_peft(random_weights(SPEC, 2, torch.float32), 1, folder / "adapter", "org/base", **kwargs)


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ---- the same adapter in PEFT


@settings(max_examples=15, deadline=None)
@given(families, target_lists, ranks, alphas, st.booleans())
def test_folders_give_equal_logits_in_both_directions(
    family: str, targets: list[str], rank: int, alpha: float, rslora: bool
) -> None:
    spec = LoraSpec.from_config(tiny_config(family), targets, rank, alpha, rslora)
    weights, input_ids = random_weights(spec, 2), tokens(2)
    expected = logits(PerRowLora(tiny_model(family), spec), weights.select([1]), input_ids=input_ids)
    with tempfile.TemporaryDirectory() as parent:
        ours = save_peft(weights, 1, Path(parent, "ours"), "org/base")
        loaded = PeftModel.from_pretrained(tiny_model(family), str(ours), autocast_adapter_dtype=False).eval()
        torch.testing.assert_close(logits(loaded, input_ids=input_ids), expected)
        again = load_peft(ours, tiny_config(family))
        assert again.spec == spec
        assert again.dtype == torch.float64

        theirs = Path(parent, "theirs")
        peft_model(tiny_model(family), weights.select([1])).save_pretrained(str(theirs))
        from_peft = load_peft(theirs / "0", tiny_config(family)).in_order_of(spec)
        for result in (again, from_peft):
            pairs = zip(result.tensors(), weights.select([1]).tensors(), strict=True)
            assert all(torch.equal(left, right) for left, right in pairs)


@pytest.mark.parametrize(
    "targets", ["all-linear", r".*\.(q|v)_proj", ["model.layers.0.mlp.up_proj", "layers.1.mlp.up_proj"]]
)
def test_targets_of_any_form_are_read(tmp_path: Path, targets: str | list[str]) -> None:
    config = LoraConfig(r=2, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    theirs = get_peft_model(tiny_model("llama"), config, autocast_adapter_dtype=False).eval()
    theirs.save_pretrained(str(tmp_path))
    weights = load_peft(tmp_path, tiny_config("llama"))
    ours = logits(PerRowLora(tiny_model("llama"), weights.spec), weights, input_ids=tokens(2))
    torch.testing.assert_close(ours, logits(theirs, input_ids=tokens(2)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtype_dropout_and_order_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = save_peft(random_weights(SPEC, 1, dtype), 0, tmp_path / "adapter", "org/base")
    weights = load_peft(folder)
    assert weights.spec == SPEC
    assert weights.spec.dropout == 0.05
    assert weights.dtype == dtype
    assert len(weights) == 1
    edit_config(folder, target_modules=["q_proj", "v_proj"])
    assert load_peft(folder).spec.module_names == ("q_proj", "v_proj")


def test_weights_with_a_gradient_and_shared_memory_are_saved(tmp_path: Path) -> None:
    one = LoraWeights.init(SPEC, 1).map(lambda tensor: tensor.requires_grad_())
    weights = one.map(lambda tensor: tensor.expand(3, -1, -1, -1))
    loaded = load_peft(save_peft(weights, 2, tmp_path / "adapter", "org/base"))
    assert torch.equal(loaded.A["q_proj"], one.A["q_proj"])


def test_the_config_holds_what_vllm_reads(tmp_path: Path) -> None:
    config = json.loads((saved(tmp_path) / "adapter_config.json").read_text())
    reads = ("r", "lora_alpha", "target_modules", "bias", "use_rslora", "init_lora_weights")  # its PEFTHelper
    assert [config[key] for key in reads] == [3, 16, ["v_proj", "q_proj"], "none", True, True]
    assert type(config["lora_alpha"]) is int
    assert not config.get("use_dora") and not config.get("modules_to_save")


# ---- what is refused


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 1]]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["experts.weight"]),
        ("fan_in_fan_out", True),
        ("use_qalora", True),
        ("init_lora_weights", "pissa"),
        ("peft_type", "IA3"),
        ("task_type", "SEQ_CLS"),
        ("a_feature_of_a_later_peft", {"on": True}),
    ],
)
def test_unsupported_features_are_named(tmp_path: Path, feature: str, value: object) -> None:
    folder = saved(tmp_path)
    edit_config(folder, **{feature: value})
    with pytest.raises(CheckpointError, match=feature):
        load_peft(folder)


def test_real_peft_folders_with_unsupported_features_are_refused(tmp_path: Path) -> None:
    plain = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    features: list[dict[str, Any]] = [{"use_dora": True}, {"bias": "lora_only"}, {"layers_to_transform": [1]}]
    for feature in features:
        config = LoraConfig(**plain, **feature)
        get_peft_model(tiny_model("llama"), config).save_pretrained(str(tmp_path))
        with pytest.raises(CheckpointError, match=next(iter(feature))):
            load_peft(tmp_path)


def test_another_base_model_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    other = LlamaConfig(**{**tiny_config("llama").to_dict(), "num_key_value_heads": 4})
    with pytest.raises(
        SpecMismatchError, match=r"v_proj \[32 -> 24\].*in the adapter.*v_proj \[32 -> 48\].*base model"
    ):
        load_peft(folder, other)
    deeper = LlamaConfig(**{**tiny_config("llama").to_dict(), "num_hidden_layers": 5})
    with pytest.raises(SpecMismatchError, match=r"num_layers is 2 .* but 5"):
        load_peft(folder, deeper)
    path = folder / "adapter_model.safetensors"
    save_file({key.replace("self_attn.v_proj", "attn.wv"): t for key, t in load_file(path).items()}, path)
    edit_config(folder, target_modules=["wv", "q_proj"])
    with pytest.raises(ConfigError, match=r"'attn\.wv' is no linear layer"):
        load_peft(folder, tiny_config("llama"))


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        load_peft(tmp_path)
    folder = saved(tmp_path)
    path = folder / "adapter_model.safetensors"
    state = load_file(path)
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

    def refused(message: str) -> None:
        with pytest.raises((CheckpointError, SpecMismatchError), match=message):
            load_peft(folder)

    save_file({key: tensor for key, tensor in state.items() if key != first}, path)
    refused("q_proj.lora_A")
    save_file({key: tensor for key, tensor in state.items() if ".layers.0." not in key}, path)
    refused(r"layers \[1\] only")
    save_file({**state, "base_model.model.lm_head.weight": torch.ones(1)}, path)
    refused("lm_head")
    save_file({**state, first: state[first][:1].clone()}, path)
    refused("lora_A")
    save_file(state, path)
    edit_config(folder, r=4)
    refused("q_proj|v_proj")
    edit_config(folder, r=3, target_modules=["q_proj"])
    refused("which target_modules")
    path.write_bytes(path.read_bytes()[:100])
    refused("damaged")
    path.unlink()
    refused("no adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{")
    refused("no valid JSON")
    (folder / "adapter_config.json").write_bytes(b"\xff")
    refused("no valid JSON")
    (folder / "adapter_config.json").write_text("{}")
    refused("lacks")


# ---- the folder


def test_the_card_holds_the_description(tmp_path: Path) -> None:
    card = (saved(tmp_path, description="Sort {words},\nlongest first.") / "README.md").read_text()
    assert card.startswith('---\nbase_model: "org/base"\n')
    assert "> Sort {words},\n> longest first." in card


def test_folders_are_complete_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), complete_folder(tmp_path / "x") as folder:
        (folder / "missing" / "file").write_text("half")
    assert not list(tmp_path.iterdir())
    folder = saved(tmp_path)
    assert sorted(os.listdir(folder)) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    (tmp_path / "other").mkdir()
    assert folder.stat().st_mode == (tmp_path / "other").stat().st_mode  # readable by whom the umask says
    with pytest.raises(CheckpointError, match="already exists"):
        saved(tmp_path)
    saved(tmp_path, description="new", overwrite=True)
    assert "> new" in (folder / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "other"]
