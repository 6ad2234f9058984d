"""The trials of a sweep: training runs in folders of their own.

What a resumed sweep goes on from and what its results are made of is read from these folders, not from Ray Tune's own
state, which a kill may leave behind the runs or cut short.

    <run>/trial.json                      {"ended": "finished" | "stopped"}; absent while there is more to train
    <run>/validation/step-000123.json     see t2l/train/validations.py
    <run>/metrics.jsonl                   see t2l/cluster/metrics.py
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from t2l.checkpoint import read_info
from t2l.cluster.metrics import Metrics
from t2l.files import write_json
from t2l.train.state import CheckpointStore
from t2l.train.validations import Validation, Validations

Ended = Literal["finished", "stopped"]
"""All steps done, or stopped early because its score was too low."""


@dataclass(frozen=True)
class TrialFolder:
    """What one trial has left so far."""

    run_dir: Path

    @property
    def ended(self) -> Ended | None:
        """How the trial ended; None if there is more to train."""
        path = self.run_dir / "trial.json"
        return json.loads(path.read_text())["ended"] if path.exists() else None

    def end(self, ended: Ended) -> None:
        write_json(self.run_dir / "trial.json", {"ended": ended})

    def validations(self) -> list[Validation]:
        """By step, ascending."""
        return sorted(Validations(self.run_dir).read().values(), key=lambda validation: validation.step)

    def loss(self, step: int) -> float | None:
        """The last one logged up to a step."""
        losses = [record["loss"] for record in self._logged() if record["step"] <= step]
        return losses[-1] if losses else None

    def seconds(self) -> float:
        """Spent in training steps: without starts, validations and steps that a kill undid."""
        before, seconds = 0, 0.0
        for record in self._logged():
            seconds += (record["step"] - before) * record["seconds_per_step"]
            before = record["step"]
        return seconds

    def parameters(self) -> tuple[int | None, int | None]:
        """How many are trained, and how many one adapter has; None before the first checkpoint."""
        store = CheckpointStore(self.run_dir, keep=1)
        if not store.steps():
            return None, None
        info = read_info(store.path(store.steps()[-1]))
        return info.num_parameters, info.spec.num_parameters

    def _logged(self) -> list[dict[str, float]]:
        return [record for record in Metrics(self.run_dir).read() if "loss" in record]
