"""The application graph: Gateway -> TextEncoder, HyperNetwork, LLM; LLM -> HyperNetwork.

    serve run serve.app:deployment  # the embedded default, on this machine and its GPU
    serve run serve.app:deployment checkpoint=runs/mine/checkpoints/step-000300  # one of your own
    serve deploy serve/config.yaml  # a GPU cluster

Keys come from the environment: T2L_API_KEYS="first-key,second-key".
"""

import hashlib
import os

import ray
import torch
from ray.serve import Application, Deployment

from serve.api.about import About
from serve.encoder import TextEncoder
from serve.engine.batching import row_length
from serve.gateway import Gateway
from serve.hypernet import HyperNetwork
from serve.llm import LLM
from serve.settings import COMMON, Settings
from t2l.checkpoint import read_info, weights_sha256
from t2l.errors import ConfigError
from t2l.hub import find, use_local_dir
from t2l.train.base import base_path

KEYS_VARIABLE = "T2L_API_KEYS"
GPU_SHARES = {"TextEncoder": 0.2, "HyperNetwork": 0.2, "LLM": 0.6}
"""Of one GPU, where there is any and serve/config.yaml does not say otherwise."""


def deployment(settings: Settings) -> Application:
    """Raises CheckpointError if the checkpoint cannot be read, ConfigError for one that reads no descriptions.

    ConfigError too for rows that are longer than its base can take.
    """
    use_local_dir(settings.local_dir)
    about = _about(settings)
    hypernet = _placed(HyperNetwork).bind(settings)
    encoder, llm = _placed(TextEncoder).bind(settings), _placed(LLM).bind(settings, hypernet)
    return Gateway.bind(settings, about, _key_digests(), encoder, hypernet, llm)


def _placed(deployment: Deployment) -> Deployment:
    """With its share of a GPU. Ray's own count is not known yet under `serve run`, which starts Ray later."""
    gpus = ray.cluster_resources().get("GPU", 0) if ray.is_initialized() else torch.cuda.device_count()
    if not gpus:
        return deployment
    return deployment.options(
        ray_actor_options={**COMMON["ray_actor_options"], "num_gpus": GPU_SHARES[deployment.name]}
    )


def _about(settings: Settings) -> About:
    from transformers import AutoConfig

    folder = settings.folder
    info = read_info(folder)
    if info.config.condition != "description":
        raise ConfigError(
            f"the checkpoint {folder} makes adapters from '{info.config.condition}', not from descriptions: "
            "serve one that was trained with condition=description"
        )
    base = base_path(info.config.base)
    source = find(base)
    base_config = AutoConfig.from_pretrained(source).get_text_config()
    return About(
        model_name=settings.model_name or info.config.base.path.rstrip("/").rpartition("/")[2],
        hypernet_sha256=weights_sha256(folder),
        base=info.base_fingerprint or base,
        tokenizer_path=source,
        max_length=row_length(settings.engine.max_length, base_config),
    )


def _key_digests() -> tuple[str, ...]:
    """Only hashes of the keys travel to the replicas."""
    keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",")]
    return tuple(hashlib.sha256(key.encode()).hexdigest() for key in keys if key)
