"""Everything about one training run."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from t2l.config.data import AnyDataConfig, UniverseConfig
from t2l.config.model import BaseConfig, EncoderConfig, HypernetConfig, LoraConfig, ReaderConfig
from t2l.config.places import FolderOrUrl, LocalPath, is_url, local_folder
from t2l.config.settings import Settings
from t2l.config.tracking import TrackingConfig
from t2l.config.train import DistillConfig, ReconConfig, SftConfig

Condition = Literal["description", "one_hot", "input", "static"]


def _workers(given: Any) -> int | tuple[int, int]:
    least, most = given if isinstance(given, list | tuple) and len(given) == 2 else (given, given)
    if type(least) is not int or type(most) is not int or not 1 <= least <= most:
        raise ValueError("give a number of workers, at least 1, or the least and the most of them, such as [2, 8]")
    return least if least == most else (least, most)


def _below_output_dir(name: str) -> str:
    if name.startswith(("/", "~")) or ".." in name.split("/"):
        raise ValueError("it names a folder below output_dir: leave out '..', and do not begin with '/' or '~'")
    return name


class ClusterConfig(Settings):
    """Where a run runs."""

    num_workers: Annotated[int | tuple[int, int], BeforeValidator(_workers)] = Field(
        default=1,
        description="Or [least, most]: as many as there is room for, more or fewer while the run goes on.",
    )
    max_failures: int = Field(
        default=3,
        ge=-1,
        description="How often workers that died are started again, from the newest checkpoint; -1: always.",
    )
    use_gpu: bool | None = Field(default=None, description="None: if the cluster has one.")
    cpus_per_worker: int = Field(default=1, ge=1)
    autoscaled: bool = Field(
        default=False,
        description="Nodes start when work waits for them: a run may need more than there are. Set use_gpu then, too.",
    )
    zero_stage: int = Field(default=1, ge=0, le=3, description="Of DeepSpeed, for what is trained.")
    shard_base: bool = Field(
        default=False,
        description="Partition the frozen base over workers, for one that does not fit into each; see docs/cluster.md.",
    )
    start_timeout_s: float = Field(default=60.0, gt=0, description="How long to wait for room for the workers.")

    @property
    def min_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]


def _objective(train: Any) -> str | None:
    """Which class of settings `train` is; plain settings without an objective are SFT. None: no settings."""
    return str(train.get("objective", "sft")) if isinstance(train, dict) else getattr(train, "objective", None)


class RunConfig(Settings):
    """Everything about one training run."""

    name: Annotated[str, AfterValidator(_below_output_dir)] = "sft"
    seed: int = 0
    output_dir: FolderOrUrl = Field(
        default="runs",
        validate_default=True,
        description="A folder that all workers share, or an address such as s3://bucket/runs.",
    )
    cache_dir: LocalPath = Field(
        default="",
        description="Tokens and encoded descriptions for all runs, any of it may be deleted; empty: output_dir/cache.",
    )
    condition: Condition = Field(
        default="description",
        description="What an adapter is made from: a task's description (T2L), its name as a one-hot code, the input "
        "to answer (Hyperdecoders), or nothing (one LoRA for all tasks).",
    )
    base: BaseConfig = BaseConfig()
    lora: LoraConfig = LoraConfig()
    hypernet: HypernetConfig = HypernetConfig()
    encoder: EncoderConfig = EncoderConfig()
    data: AnyDataConfig = UniverseConfig()
    train: Annotated[
        Annotated[SftConfig, Tag("sft")]
        | Annotated[DistillConfig, Tag("distill")]
        | Annotated[ReconConfig, Tag("recon")],
        Discriminator(_objective),
    ] = SftConfig()
    cluster: ClusterConfig = ClusterConfig()
    tracking: TrackingConfig = TrackingConfig()

    @property
    def run_dir(self) -> Path:
        """The run's folder; for one in an object store, where a machine works on it."""
        return local_folder(self.output_dir) / self.name

    @property
    def run_url(self) -> str | None:
        """The run's address in an object store, if it has one."""
        return f"{self.output_dir.rstrip('/')}/{self.name}" if is_url(self.output_dir) else None

    @property
    def reader(self) -> ReaderConfig | None:
        """The reader's settings where there is text to read."""
        return self.encoder.reader if self.condition in ("description", "input") else None
