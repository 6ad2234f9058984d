"""<run>/metrics.jsonl: a line for each log record of training, and for each validation."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from t2l.files import room_for, write_text
from t2l.train.validations import Validation, Validations


class Metrics:
    """One run's; only one process writes it at a time: the first worker, then whoever completes the run."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir, self._path = run_dir, run_dir / "metrics.jsonl"

    def read(self) -> list[dict[str, Any]]:
        """All whole lines: a kill may have cut the last one short, a power failure left zeros in place of some."""
        lines = self._path.read_bytes().split(b"\n")[:-1] if self._path.exists() else []
        return [json.loads(line) for line in lines if not line.startswith(b"\0")]

    def append(self, values: Mapping[str, Any]) -> None:
        with room_for(self._path), self._path.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def keep_until(self, step: int) -> None:
        """Drop the records of later steps, and what a kill has cut short."""
        self._write(record for record in self.read() if record["step"] <= step)

    def add_validations(self) -> list[Validation]:
        """Take over those that it lacks from <run>/validation, and return them."""
        records = self.read()
        known = {record["step"] for record in records if "validation" in record}
        fresh = [found for step, found in Validations(self._run_dir).read().items() if step not in known]
        if fresh:
            self._write([*records, *({"step": found.step, "validation": found.scores} for found in fresh)])
        return fresh

    def _write(self, records: Iterable[Mapping[str, Any]]) -> None:
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in records))
