"""Settings of what is trained and of what it is trained for."""

import re
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from t2l.config.places import NameOrFolder
from t2l.config.settings import Settings


class HypernetConfig(Settings):
    """Size of the hypernetwork; the defaults are the paper's."""

    variant: Literal["S", "M", "L"] = Field(
        default="M",
        description="What one head call yields: one rank of A or B (S), all of A or B (M), A and B (L).",
    )
    latent_size: int = Field(default=128, gt=0, multiple_of=4, description="Width of the trunk.")
    head_input_size: int = Field(default=512, gt=0, description="Width of the trunk's output, which the heads read.")
    dropout: float = Field(default=0.05, ge=0, lt=1, description="Dropout inside the trunk while training.")
    rank_positions: Literal["learned", "rotary"] = Field(
        default="learned", description="S: how the trunk tells ranks apart; rotary is for upstream's checkpoints."
    )

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


class ReaderConfig(Settings):
    """The small trained transformer that condenses token states into a task embedding."""

    width: int = Field(default=256, gt=0)
    num_layers: int = Field(default=2, ge=1)
    num_heads: int = Field(default=4, ge=1, validate_default=True)
    num_queries: int = Field(default=4, ge=1, description="Parts of the embedding; each query answers one.")
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("num_heads")
    @classmethod
    def _heads_share_the_width(cls, heads: int, info: ValidationInfo) -> int:
        width = info.data.get("width", heads)  # missing where it is wrong itself
        if width % heads:
            raise ValueError(f"encoder.reader.width {width} must be a multiple of it")
        return heads


class EncoderConfig(Settings):
    """What reads the description. Without a reader the encoder's own sentence vector is the embedding (the paper)."""

    kinds: tuple[Literal["sentence", "llm"], ...] = Field(
        default=("sentence",),
        min_length=1,
        description="One encoder, or sentence and llm side by side (needs a reader).",
    )
    model: NameOrFolder = Field(
        default="minilm", description="sentence-transformers folder or hub name; minilm: the packaged default."
    )
    revision: str | None = Field(default=None, description="Commit of that model on the hub; None: its newest.")
    code_revision: str | None = Field(
        default=None, description="Commit of its code, if that is kept in another repository, as gte's is."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run code that comes with the model; encoder.revision must pin it."
    )
    probes: tuple[str, ...] = Field(
        default=(), description="llm with a reader: inputs that the base model reads after a description."
    )
    probe_layers: int = Field(
        default=2, ge=1, description="llm with a reader: use the states after the last so many layers."
    )
    reader: ReaderConfig | None = None

    @field_validator("trust_remote_code")
    @classmethod
    def _code_is_pinned(cls, trusted: bool, info: ValidationInfo) -> bool:
        """A branch can change under a reader's eyes; a commit cannot."""
        if trusted and not re.fullmatch("[0-9a-f]{40}", info.data.get("revision") or ""):
            raise ValueError("set encoder.revision to the commit (40 digits) whose code you have read")
        return trusted


class BaseConfig(Settings):
    """The frozen LLM that adapters are made for."""

    path: NameOrFolder = Field(default="embedded", description="Folder or hub name; embedded: the packaged base model.")
    dtype: Literal["float32", "bfloat16"] = "float32"


class LoraConfig(Settings):
    """Shape of the adapters; the defaults are the paper's."""

    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    use_rslora: bool = True
    dropout: float = Field(default=0.05, ge=0, lt=1)


class PretrainConfig(Settings):
    """How the embedded base model is made (jobs/pretrain_base.py)."""

    hidden_size: int = Field(default=256, ge=1)
    intermediate_size: int = Field(default=704, ge=1)
    num_layers: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    num_kv_heads: int = Field(default=2, ge=1)
    lr: float = Field(default=2e-3, gt=0)
    batch_size: int = Field(default=1024, ge=1)
    minutes: float = Field(default=7.0, gt=0)
    init: str = Field(default="", description="Folder of a model to go on with; empty: from scratch.")
    definition_share: float = Field(default=0.65, ge=0, le=1)
    shots_share: float = Field(default=0.15, ge=0, le=1)
    seed: int = 0
    loader_workers: int = Field(default=12, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.hidden_size % (2 * self.num_heads) or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of 2 x num_heads {self.num_heads}, and that a "
                f"multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.definition_share + self.shots_share > 1:
            raise ValueError("definition_share and shots_share are parts of the samples: together at most 1")
        return self
