"""Settings of training, one class an objective; the defaults are the paper's where it gives them."""

from typing import Literal

from pydantic import Field

from t2l.config.places import LocalPath
from t2l.config.settings import Settings


class TrainConfig(Settings):
    """What every objective needs."""

    steps: int = Field(default=1_000, ge=1)
    tasks_per_step: int = Field(default=8, ge=1, description="Of the whole step, over all workers.")
    samples_per_task: int = Field(default=1, ge=1, description="Each with a description of its own.")
    micro_batches: int = Field(default=1, ge=1, description="Parts of a worker's step, run one after another.")
    lr: float = Field(default=2.5e-5, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup_fraction: float = Field(default=0.2, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    eval_every: int = Field(default=500, ge=1)
    validation_inputs: int = Field(default=8, ge=0, description="Inputs of each validation task; 0: no validation.")
    report_inputs: int = Field(default=16, ge=0, description="Inputs of each task in the last table; 0: no table.")
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=10, ge=1)
    keep_checkpoints: int = Field(default=2, ge=1, description="Newest ones; the best is kept besides.")


class ThroughBaseConfig(TrainConfig):
    """Training through the frozen LLM."""

    neftune_alpha: float = Field(default=5.0, ge=0)
    l2_generated: float = Field(default=1e-3, ge=0)
    compile_base: bool = Field(
        default=False,
        description="Compile the base's layers: faster steps on a GPU, after half a minute more at first.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Compute the base's layers again in the backward pass: far less memory, steps a third longer.",
    )


class SftConfig(ThroughBaseConfig):
    """Supervised: cross-entropy of the tasks' own answers."""

    objective: Literal["sft"] = "sft"
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)


class DistillConfig(ThroughBaseConfig):
    """Needs no labels: KL to what the base model itself answers when the definition is in its prompt."""

    objective: Literal["distill"] = "distill"
    pool_size: int = Field(default=64, ge=1, description="Inputs of each task that the base model answers beforehand.")
    top_k: int = Field(default=16, ge=1, description="Likeliest tokens that are kept of the base model's distribution.")
    answer_tokens: int = Field(default=64, ge=1, description="Longest answer of the base model.")
    sft_share: float = Field(default=0.0, ge=0, le=1, description="Share of samples that use the task's own answer.")


class ReconConfig(TrainConfig):
    """Reconstruction: the distance to a library of trained LoRAs, one for each training task; no LLM in the step."""

    objective: Literal["recon"] = "recon"
    library: LocalPath = Field(default="", description="Folder of PEFT folders, as jobs/train_oracles.py writes it.")
    distance: Literal["l1", "delta"] = Field(
        default="l1",
        description="l1: mean |A| / 2 + mean |B| / 2 of the difference; delta: squared distance of the products B A.",
    )
    zscore: bool = Field(default=True, description="Predict (weight - mean) / std of the library, per weight.")
    lr: float = Field(default=1e-3, gt=0)
    warmup_fraction: float = Field(default=0.1, ge=0, le=1)


AnyTrainConfig = SftConfig | DistillConfig | ReconConfig
