"""Everything about one training run."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from t2l.config.data import DataConfig
from t2l.config.model import BaseConfig, EncoderConfig, HypernetConfig, LoraConfig, ReaderConfig
from t2l.config.settings import Settings
from t2l.config.train import DistillConfig, ReconConfig, SftConfig

Condition = Literal["description", "one_hot", "input", "static"]


class ClusterConfig(Settings):
    """Where a run runs."""

    num_workers: int = Field(default=1, ge=1)
    use_gpu: bool | None = Field(default=None, description="None: if the cluster has one.")
    cpus_per_worker: int = Field(default=1, ge=1)
    zero_stage: int = Field(default=1, ge=0, le=3)
    start_timeout_s: float = Field(default=60.0, gt=0)


def _objective(train: Any) -> str:
    """Which class of settings `train` is; plain settings without an objective are SFT."""
    return str(train.get("objective", "sft")) if isinstance(train, dict) else train.objective


class RunConfig(Settings):
    """Everything about one training run."""

    name: str = "sft"
    seed: int = 0
    output_dir: str = "runs"
    condition: Condition = Field(
        default="description",
        description="What an adapter is made from: a task's description (T2L), its name as a one-hot code, the input "
        "to answer (Hyperdecoders), or nothing (one LoRA for all tasks).",
    )
    base: BaseConfig = BaseConfig()
    lora: LoraConfig = LoraConfig()
    hypernet: HypernetConfig = HypernetConfig()
    encoder: EncoderConfig = EncoderConfig()
    data: DataConfig = DataConfig()
    train: Annotated[
        Annotated[SftConfig, Tag("sft")]
        | Annotated[DistillConfig, Tag("distill")]
        | Annotated[ReconConfig, Tag("recon")],
        Discriminator(_objective),
    ] = SftConfig()
    cluster: ClusterConfig = ClusterConfig()

    @property
    def run_dir(self) -> Path:
        return Path(self.output_dir) / self.name

    @property
    def reader(self) -> ReaderConfig | None:
        """The reader's settings where there is text to read."""
        return self.encoder.reader if self.condition in ("description", "input") else None
