"""The Python face on a tiny checkpoint made here, and on the packaged one."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_models import random_weights
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file, save_file
from tiny import tiny_llama
from transformers import AutoTokenizer

import t2l
from t2l import TextToLora
from t2l.checkpoint import load_checkpoint
from t2l.embedded import CHECKPOINT_DIR
from t2l.errors import CheckpointError, DescriptionError, HubAccessError, ResourceError, SpecMismatchError

TEXTS = ["Sort the words.", "Name the longest word of all", "Sort the words."]
INPUTS = ["b, a", "pear, fig", "7 8 9"]

needs_packaged = pytest.mark.skipif(not CHECKPOINT_DIR.is_dir(), reason=f"{CHECKPOINT_DIR} is not trained yet")


@cache
def loaded(checkpoint: Path) -> TextToLora:
    return TextToLora.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def model(tiny_checkpoint: Path) -> TextToLora:
    return loaded(tiny_checkpoint)


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the tiny checkpoint with other settings of its base model."""

    def make(**base: str) -> Path:
        folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
        about = json.loads((folder / "config.json").read_text())
        about["run"]["base"] |= base
        (folder / "config.json").write_text(json.dumps(about))
        return folder

    return make


def test_importing_t2l_does_not_import_torch() -> None:
    code = "import sys, t2l; assert 'TextToLora' in t2l.__all__; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "False"
    assert t2l.TextToLora is TextToLora
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = t2l.Nonsense  # type: ignore[attr-defined]


# ---- adapters


def test_many_descriptions_give_what_each_gives_alone(model: TextToLora) -> None:
    adapters = model.generate(TEXTS)
    assert len(adapters) == len(adapters.weights) == 3
    assert [adapter.description for adapter in adapters] == TEXTS
    for adapter in adapters:
        assert adapter.description is not None
        [alone] = model.generate([adapter.description])
        for found, expected in zip(adapter.weights.tensors(), alone.weights.tensors(), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    first, second, third = adapters
    assert not torch.allclose(first.weights.delta("q_proj"), second.weights.delta("q_proj"), atol=1e-3)
    torch.testing.assert_close(first.weights.delta("q_proj"), third.weights.delta("q_proj"))


def test_embeddings_give_the_same_adapters(model: TextToLora) -> None:
    embedding_N_E = model.embed(TEXTS)
    adapters = model.from_embeddings(embedding_N_E.double())
    for found, expected in zip(adapters.weights.tensors(), model.generate(TEXTS).weights.tensors(), strict=True):
        torch.testing.assert_close(found, expected)
    assert adapters[-1].description is None
    with pytest.raises(SpecMismatchError, match=r"shape \[2, 3\]"):
        model.from_embeddings(torch.zeros(2, 3))


def test_they_need_no_gradient_but_can_be_trained_on(model: TextToLora) -> None:
    weights = model.generate(TEXTS[:1]).weights
    assert not any(tensor.requires_grad or tensor.is_inference() for tensor in weights.tensors())


def test_a_saved_adapter_is_a_peft_folder_that_answers_alike(model: TextToLora, tmp_path: Path) -> None:
    adapter = model.generate(TEXTS)[1]
    folder = adapter.save_pretrained(tmp_path / "adapter")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("README.md", "adapter_config.json", "adapter_model.safetensors")
    ]
    saved = load_file(folder / "adapter_model.safetensors")
    assert saved.keys() == adapter.state_dict().keys()
    assert all(torch.equal(saved[key], tensor) for key, tensor in adapter.state_dict().items())

    peft = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model.origin.base)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": INPUTS[1]}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = peft.generate(**prompt, max_new_tokens=10, do_sample=False)
    text = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert model.run([TEXTS[1]], [INPUTS[1]], max_new_tokens=10) == [text.strip()]


def test_the_card_names_description_checkpoint_and_base(
    model: TextToLora, tiny_base: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    digest = hashlib.sha256((tiny_checkpoint / "model.safetensors").read_bytes()).hexdigest()
    card = (model.generate(TEXTS)[1].save_pretrained(tmp_path / "adapter") / "README.md").read_text()
    assert "> Name the longest word of all" in card
    assert f"T2L checkpoint: `tiny`, sha256 `{digest}`" in card
    assert f"base_model: {json.dumps(str(tiny_base))}" in card


def test_saving_replaces_only_when_told(model: TextToLora, tmp_path: Path) -> None:
    first, second, _ = model.generate(TEXTS)
    first.save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match="already exists"):
        second.save_pretrained(tmp_path / "adapter")
    second.save_pretrained(tmp_path / "adapter", overwrite=True)
    assert "longest word" in (tmp_path / "adapter" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


# ---- answers


def test_a_batch_of_adapters_answers_as_one_at_a_time(model: TextToLora) -> None:
    alone = [model.run([text], [asked])[0] for text, asked in zip(TEXTS, INPUTS, strict=True)]
    assert model.run(TEXTS, INPUTS) == alone
    assert model.run(TEXTS, INPUTS, adapted=False) != alone
    assert model.run(TEXTS[:1], INPUTS) == model.run(TEXTS[:1] * 3, INPUTS)


def test_descriptions_and_inputs_must_fit(model: TextToLora) -> None:
    with pytest.raises(DescriptionError, match="2 descriptions for 3 inputs"):
        model.run(TEXTS[:2], INPUTS)
    with pytest.raises(DescriptionError, match="list of at least one text, not 'Sort the words'"):
        model.generate("Sort the words")
    with pytest.raises(DescriptionError, match="at least one text"):
        model.generate([])
    with pytest.raises(DescriptionError, match=r"at least one text, not \[3\]"):
        model.generate([3])  # type: ignore[list-item]
    with pytest.raises(DescriptionError, match="is empty"):
        model.generate(["Sort.", " "])


# ---- checkpoints that cannot be used


@pytest.mark.parametrize("device", ["tpu", "cuda:63"])
def test_a_device_that_is_not_here(tiny_checkpoint: Path, device: str) -> None:
    with pytest.raises(ResourceError, match=rf"the device '{device}' cannot be used here \(.+\): leave it out"):
        TextToLora.from_pretrained(tiny_checkpoint, device)


def test_folders_that_are_no_checkpoint(tiny_base: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing does not exist"):
        TextToLora.from_pretrained(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"lacks config\.json"):
        TextToLora.from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"its config\.json describes something else"):
        TextToLora.from_pretrained(tiny_base)


def test_damaged_weights(copy: Callable[..., Path]) -> None:
    weights = copy() / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        TextToLora.from_pretrained(weights.parent)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda about: b"\xff", "is damaged"),
        (lambda about: b"[]", r"its config\.json describes something else"),
        (lambda about: without(about, "run"), r"config\.json lacks \['run'\]"),
        (lambda about: without(about, "feature_dim"), r"config\.json lacks \['feature_dim'\]"),
    ],
)
def test_damaged_settings(change: Callable[[Any], bytes], says: str, copy: Callable[..., Path]) -> None:
    file = copy() / "config.json"
    file.write_bytes(change(json.loads(file.read_text())))
    with pytest.raises(CheckpointError, match=says):
        TextToLora.from_pretrained(file.parent)


def without(about: dict[str, Any], key: str) -> bytes:
    return json.dumps({name: value for name, value in about.items() if name != key}).encode()


def test_weights_of_another_model(copy: Callable[..., Path]) -> None:
    file = copy() / "model.safetensors"
    state = load_file(file)
    name = next(name for name, tensor in state.items() if tensor.ndim == 2)
    for other, says in (
        ({**state, name: state[name][:1].clone()}, "size mismatch"),
        ({key: tensor for key, tensor in state.items() if key != name}, "Missing key"),
    ):
        save_file(other, file)
        with pytest.raises(CheckpointError, match=rf"holds weights of another model \(.*{says}"):
            load_checkpoint(file.parent)


def test_another_base_model_is_named(copy: Callable[..., Path], tiny_base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_base, tmp_path / "other")
    config = tiny_llama().config
    config.num_hidden_layers = 3
    type(tiny_llama())(config).save_pretrained(other)
    with pytest.raises(SpecMismatchError, match=rf"another base model than {other}: num_layers is 2 .* but 3"):
        TextToLora.from_pretrained(copy(path=str(other)))


def test_a_base_model_out_of_reach(copy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubAccessError, match="'nobody/no-such-model' is not in the hub's cache"):
        TextToLora.from_pretrained(copy(path="nobody/no-such-model"))


def test_adapters_of_another_spec_are_refused(model: TextToLora) -> None:
    weights = random_weights(replace(model.base.spec, rank=3), 1, torch.float32)
    with pytest.raises(SpecMismatchError, match="rank is 3"), model.base.adapters(weights):
        pass


# ---- the packaged checkpoint


@needs_packaged
def test_the_packaged_checkpoint_does_what_it_is_told() -> None:
    model = TextToLora.from_pretrained()
    description, asked = "Sort the words from A to Z.", "pear, fig, apple"
    assert model.run([description], [asked]) != model.run([description], [asked], adapted=False)
    other = model.run(["Repeat only the last word."], [asked])
    assert other != model.run([description], [asked])


@needs_packaged
def test_the_packaged_adapters_load_in_peft(tmp_path: Path) -> None:
    folder = TextToLora.from_pretrained().generate(["Sort the words."])[0].save_pretrained(tmp_path / "adapter")
    peft = AutoPeftModelForCausalLM.from_pretrained(folder)
    assert any("lora_A" in name for name, _ in peft.named_parameters())
