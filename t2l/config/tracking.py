"""Where a run's numbers go besides its folder (t2l/cluster/trackers.py); a tracker is used if it is named."""

from typing import Literal

from pydantic import Field

from t2l.config.settings import Settings


class WandbConfig(Settings):
    """Weights & Biases; its key comes from WANDB_API_KEY or `wandb login`."""

    project: str = "t2l"
    entity: str | None = None
    mode: Literal["online", "offline"] = "online"


class MlflowConfig(Settings):
    """MLflow; its credentials come from the environment."""

    uri: str | None = Field(default=None, description="None: MLFLOW_TRACKING_URI.")
    experiment: str = "t2l"


class TrackingConfig(Settings):
    """TensorBoard files are always written."""

    wandb: WandbConfig | None = None
    mlflow: MlflowConfig | None = None
