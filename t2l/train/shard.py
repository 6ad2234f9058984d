"""A frozen base model that is partitioned over workers, for one that is too large for the memory of each.

A worker holds its part of every decoder layer (torch's FSDP2). A layer is gathered for as long as it computes, in the
forward pass and again in the backward pass, while the next one is on its way. Embeddings, last norm and head stay whole
on every worker: they are used by themselves, may share their weights, and are 3 % of a 70B model.

So all workers have to call the model equally often, and in the same order: see `make_table` of t2l/cluster/worker.py.
"""

from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from t2l.config import BaseConfig
from t2l.errors import CheckpointError
from t2l.hub import find
from t2l.lora.spec import find_layers
from t2l.train.base import base_path, reading_base, set_up_attention

_NOT_WEIGHTS = ("original/*", "consolidated*", "*.bin", "*.pth", "*.gguf", "*.onnx")
"""Second copies of the weights in other formats, which some repositories of the hub hold."""


def load_sharded_base(
    config: BaseConfig, device: torch.device | str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_base`, over all workers of torch.distributed: each reads no more of the layers than it holds.

    Raises what `load_base` raises; CheckpointError also for weights that are not safetensors of the model's own names.
    """
    path = find(base_path(config))
    with reading_base(path):
        folder = _folder(path)
        tokenizer, hf_config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
        attention = set_up_attention(device, hf_config)
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                hf_config, dtype=getattr(torch, config.dtype), attn_implementation=attention
            )
    model.eval().requires_grad_(False)
    partition(model, torch.device(device))
    model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device))
    model.tie_weights()
    _fill(model, folder)
    # FSDP keeps the buffers of its first pass; if that is an encoder's, in inference mode, training cannot use them.
    with torch.no_grad():
        model.base_model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)
    return model, tokenizer


def _folder(path: str) -> str:
    if Path(path).is_dir():
        return path
    from huggingface_hub import snapshot_download

    return snapshot_download(path, ignore_patterns=list(_NOT_WEIGHTS))


def partition(model: PreTrainedModel, device: torch.device) -> None:
    """Cut up the layers. The model around them only says which one comes next."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    _, layers = find_layers(model, model.config)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    whole = set(model.parameters()) - set(layers.parameters())
    decoder = model.base_model
    assert isinstance(decoder, PreTrainedModel)
    fully_shard(decoder, mesh=mesh, ignored_params=whole)
    # This made a subclass of its class, which transformers must know to give out hidden states.
    _CAN_RECORD_REGISTRY[decoder] = decoder._can_record_outputs


def _fill(model: PreTrainedModel, folder: str) -> None:
    """Read this worker's part of the weights; those that share a tensor have one name."""
    tensors, reader = dict(model.named_parameters()), HuggingFaceStorageReader(folder)
    known = reader.read_metadata().state_dict_metadata
    if missing := next((name for name in tensors if name not in known), None):
        raise CheckpointError(
            f"the base model in {folder} has no safetensors weight '{missing}', so that workers cannot read their "
            "parts: save it anew with transformers, or set cluster.shard_base=false"
        )
    load(tensors, storage_reader=reader)
