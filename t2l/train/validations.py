"""What a run's checkpoints scored on validation tasks: <run>/validation/step-000123.json, each complete or absent.

Whoever evaluates a checkpoint writes its file (t2l/cluster/validate.py), in a process of its own while training goes
on; whoever chooses a checkpoint reads them all.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from t2l.files import write_json

Validate = Callable[[int], object]
"""Has the checkpoint of a step validated, now or while its caller goes on."""


@dataclass(frozen=True)
class Validation:
    """One checkpoint's `score`, by which checkpoints are chosen, all its `scores` by name, and what they took."""

    step: int
    score: float
    scores: dict[str, float]
    seconds: float


class Validations:
    """The validations of one run."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / "validation"

    def path(self, step: int) -> Path:
        return self._folder / f"step-{step:06d}.json"

    def read(self) -> dict[int, Validation]:
        """All there are by now, by step; without damaged ones, which are then made again."""
        found = [_read(path) for path in sorted(self._folder.glob("step-*.json"))]
        return {validation.step: validation for validation in found if validation}

    def write(self, validation: Validation) -> None:
        write_json(self.path(validation.step), asdict(validation))


def _read(path: Path) -> Validation | None:
    try:
        return Validation(**json.loads(path.read_text()))
    except (ValueError, TypeError):  # cut short or overwritten
        return None
