"""Settings: frozen pydantic models that refuse unknown fields. Imports neither torch nor ray."""

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from t2l.errors import ConfigError


class HypernetConfig(BaseModel):
    """Size of the hypernetwork; the defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Literal["S", "M", "L"] = Field(
        default="M",
        description="What one head call yields: one rank of A or B (S), all of A or B (M), A and B (L).",
    )
    latent_size: int = Field(default=128, gt=0, multiple_of=4, description="Width of the trunk.")
    head_input_size: int = Field(default=512, gt=0, description="Width of the trunk's output, which the heads read.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout inside the trunk while training.")

    @property
    def task_features(self) -> int:
        """Half of the latent describes the task."""
        return self.latent_size // 2

    @property
    def layer_features(self) -> int:
        """A quarter of the latent tells the layer."""
        return self.latent_size // 4

    @property
    def module_features(self) -> int:
        """The last quarter of the latent tells the target module."""
        return self.latent_size // 4

    @property
    def hidden_size(self) -> int:
        """Width inside every block of the trunk (512 in the paper)."""
        return 4 * self.latent_size


class ReaderConfig(BaseModel):
    """The small trained transformer that condenses token states into a task embedding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: int = Field(default=256, gt=0)
    num_layers: int = Field(default=2, ge=1)
    num_heads: int = Field(default=4, ge=1)
    num_queries: int = Field(default=4, ge=1, description="Parts of the embedding; each query answers one.")
    dropout: float = Field(default=0.0, ge=0, lt=1)


class EncoderConfig(BaseModel):
    """What reads the description. Without a reader the encoder's own sentence vector is the embedding (the paper)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kinds: tuple[Literal["sentence", "llm", "one_hot"], ...] = Field(
        default=("sentence",), description="One encoder, or sentence and llm side by side (needs a reader)."
    )
    model: str = Field(
        default="minilm", description="sentence-transformers folder or hub name; minilm: the packaged default."
    )
    probes: tuple[str, ...] = Field(
        default=(), description="llm with a reader: inputs that the base model reads after a description."
    )
    probe_layers: int = Field(
        default=2, ge=1, description="llm with a reader: use the states after the last so many layers."
    )
    reader: ReaderConfig | None = None


class PretrainConfig(BaseModel):
    """How the embedded base model is made (jobs/pretrain_base.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden_size: int = 256
    intermediate_size: int = 704
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    lr: float = 2e-3
    batch_size: int = 1024
    minutes: float = 7.0
    init: str = Field(default="", description="Folder of a model to go on with; empty: from scratch.")
    definition_share: float = 0.65
    shots_share: float = 0.15
    seed: int = 0
    loader_workers: int = 12


class BaseConfig(BaseModel):
    """The frozen LLM that adapters are made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(default="embedded", description="Folder or hub name; embedded: the packaged base model.")
    dtype: Literal["float32", "bfloat16"] = "float32"


class LoraConfig(BaseModel):
    """Shape of the adapters; the defaults are the paper's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    use_rslora: bool = True
    dropout: float = Field(default=0.05, ge=0, lt=1)


class DataConfig(BaseModel):
    """Tasks, descriptions and prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: Literal["universe", "sub_universe"] = "universe"
    num_train_tasks: int | None = Field(default=479, ge=1, description="universe: None takes all of them.")
    num_descriptions: int = Field(default=128, ge=1, description="Training uses the first so many of each task.")
    definition: Literal["never", "always", "dropout"] = Field(
        default="never", description="Whether prompts carry the description; dropout: sometimes."
    )
    definition_dropout: float = Field(default=0.5, ge=0, le=1, description="Share of prompts without it, for dropout.")
    max_prompt_tokens: int = Field(default=512, ge=1)
    max_response_tokens: int = Field(default=512, ge=1)
    loader_workers: int = Field(default=0, ge=0, description="Processes that make batches ahead; 0: none.")
    domain: str = Field(default="words", description="sub_universe: the domain of its tasks.")
    picks: tuple[str, ...] = Field(default=(), description="sub_universe: operations that pick; empty: all.")
    renders: tuple[str, ...] = Field(default=(), description="sub_universe: operations that render; empty: all.")
    num_validation: int = Field(default=8, ge=0, description="sub_universe: validation tasks.")
    num_test: int = Field(default=16, ge=0, description="sub_universe: test tasks.")


class SftConfig(BaseModel):
    """Supervised training through the frozen LLM; the defaults are the paper's where it gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=1_000, ge=1)
    tasks_per_step: int = Field(default=8, ge=1, description="Of the whole step, over all workers.")
    samples_per_task: int = Field(default=1, ge=1, description="Each with a description of its own.")
    micro_batches: int = Field(default=1, ge=1, description="Parts of a worker's step, run one after another.")
    lr: float = Field(default=2.5e-5, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup_fraction: float = Field(default=0.2, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    neftune_alpha: float = Field(default=5.0, ge=0)
    l2_generated: float = Field(default=1e-3, ge=0)
    eval_every: int = Field(default=500, ge=1)
    validation_inputs: int = Field(default=8, ge=1, description="Inputs of each validation task.")
    report_inputs: int = Field(default=16, ge=0, description="Inputs of each task in the last table; 0: no table.")
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=10, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1, description="Newest ones; the best is kept besides.")


class ClusterConfig(BaseModel):
    """Where a run runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_workers: int = Field(default=1, ge=1)
    use_gpu: bool | None = Field(default=None, description="None: if the cluster has one.")
    cpus_per_worker: int = Field(default=1, ge=1)
    zero_stage: int = Field(default=1, ge=0, le=3)
    start_timeout_s: float = Field(default=60.0, gt=0)


class RunConfig(BaseModel):
    """Everything about one training run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "sft"
    seed: int = 0
    output_dir: str = "runs"
    base: BaseConfig = BaseConfig()
    lora: LoraConfig = LoraConfig()
    hypernet: HypernetConfig = HypernetConfig()
    encoder: EncoderConfig = EncoderConfig()
    data: DataConfig = DataConfig()
    train: SftConfig = SftConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.name


def load_config(path: Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """A run from a YAML file (None: all defaults) and overrides such as ``train.lr=1e-3``, whose values are YAML.

    Raises ConfigError that names the key at fault; for an unknown one, with the nearest known key.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"config file {path} does not exist")
        settings = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    for override in overrides:
        _override(settings, override)
    return parse_config(settings)


def parse_config(settings: dict[str, Any]) -> RunConfig:
    """Check plain settings. Raises ConfigError naming every key at fault."""
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_complaint(detail, RunConfig) for detail in error.errors())) from None


def load_pretrain_config(overrides: Sequence[str]) -> PretrainConfig:
    """Settings of the base model's pretraining from overrides such as ``minutes=5``."""
    settings: dict[str, Any] = {}
    for override in overrides:
        _override(settings, override)
    try:
        return PretrainConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_complaint(detail, PretrainConfig) for detail in error.errors())) from None


def dump_config(config: BaseModel) -> str:
    """YAML that `load_config` reads back as an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _override(settings: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' is no override: write it as key=value, such as train.lr=1e-3")
    _put(settings, key.split("."), yaml.safe_load(value))


def _put(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = settings.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"'{'.'.join(keys)}' cannot be set: '{key}' is a single value")
        settings = inner
    settings[keys[-1]] = value


def _complaint(detail: Any, schema: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] != "extra_forbidden":
        return f"setting '{key}' is {detail['input']!r}: {detail['msg']}"
    known = list(_keys(schema))
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, 1) or [k for k in known if k.rpartition(".")[2] == last]
    return f"unknown setting '{key}'" + (f"; did you mean '{near[0]}'?" if near else "")


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of every setting."""
    for name, field in model.model_fields.items():
        yield prefix + name
        options = typing.get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
        for option in options:
            if isinstance(option, type) and issubclass(option, BaseModel):
                yield from _keys(option, f"{prefix}{name}.")


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
