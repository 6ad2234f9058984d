"""A partitioned base computes what a whole one does. One worker here; two in tests/integration/test_gradients.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lora_models import FAMILIES, random_weights, tiny_model, tokens
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_tokenizer

from t2l.cluster.place import Place
from t2l.cluster.worker import load
from t2l.config import BaseConfig
from t2l.data.collate import Row, collate
from t2l.errors import CheckpointError, ConfigError
from t2l.lora import LoraSpec
from t2l.lora.apply import PerRowLora
from t2l.train.base import load_base
from t2l.train.shard import load_sharded_base
from t2l.train.step import label_logits


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone."""
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def saved(folder: Path, family: str) -> Path:
    tiny_model(family, torch.float32).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_states_logits_and_gradients_are_the_same(group: None, tmp_path: Path, family: str, dtype: str) -> None:
    config = BaseConfig(path=str(saved(tmp_path, family)), dtype=dtype)  # type: ignore[arg-type]
    whole, (sharded, _) = load_base(config, "cpu")[0], load_sharded_base(config, "cpu")
    assert not any(parameter.requires_grad for parameter in sharded.parameters()) and not sharded.training
    with torch.inference_mode():  # an encoder's pass comes before training, and must not spoil it
        states = [m.base_model(input_ids=tokens(3), output_hidden_states=True).hidden_states for m in (whole, sharded)]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))

    spec = LoraSpec.from_config(whole.config, ["q_proj", "down_proj"], rank=3)
    found = [logits_and_gradient(PerRowLora(model, spec)) for model in (whole, sharded)]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert a.abs().max() > 0


def logits_and_gradient(lora: PerRowLora) -> tuple[torch.Tensor, torch.Tensor]:
    weights = random_weights(lora.spec, 3, torch.float32).map(lambda tensor: tensor.requires_grad_())
    batch = collate([Row(ids, [1, 2], 0) for ids in tokens(3).tolist()], 3, pad_id=0)
    logits = label_logits(lora, weights, batch)
    logits.float().log_softmax(-1)[:, 0].sum().backward()
    gradient = weights.A["q_proj"].grad
    assert gradient is not None
    return logits.detach(), gradient


def test_weights_of_other_names_are_refused_in_a_sentence(group: None, tmp_path: Path) -> None:
    file = saved(tmp_path, "llama") / "model.safetensors"
    tensors = load_file(file)
    tensors["renamed"] = tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"no safetensors weight 'model.layers.1.mlp.up_proj.weight'"):
        load_sharded_base(BaseConfig(path=str(tmp_path)), "cpu")


def test_distillation_needs_the_whole_base(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, tmp_path, objective="distill")
    config = config.model_copy(update={"cluster": config.cluster.model_copy(update={"shard_base": True})})
    with pytest.raises(ConfigError, match="each worker needs the whole base"):
        load(config, Place(tmp_path, world_size=2))
