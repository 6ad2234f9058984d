"""A sweep of three tiny trials on the session's Ray: one is trained already, one had ended before, one is stopped."""

import csv
import time
from pathlib import Path

import ray
from ray.util import placement_group_table
from tiny import tiny_settings

from t2l.cluster.run import Finished
from t2l.cluster.sweep import Halving, run_sweep
from t2l.cluster.trials import TrialFolder
from t2l.config import RunConfig, parse_config
from t2l.train.validations import Validation, Validations
from tune.results import read_rows, write_csv

PATIENCE_S = 10


def trial(name: str, base: Path, folder: Path, steps: int, part: int = 1) -> RunConfig:
    settings = tiny_settings(base, folder, steps=steps, eval_every=part, checkpoint_every=part, report_inputs=0)
    return parse_config(settings | {"name": name})


def held() -> dict[str, float]:
    """CPUs and GPUs that are not available, and placement groups that are not removed."""
    total, free = ray.cluster_resources(), ray.available_resources()
    groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
    taken = {name: total[name] - free.get(name, 0.0) for name in ("CPU", "GPU", "memory") if name in total}
    return {name: number for name, number in {**taken, "groups": float(len(groups))}.items() if number}


def test_trials_end_and_leave_nothing_held(
    cluster: str, tiny_base: Path, whole_run: Finished, whole_config: RunConfig, tmp_path: Path
) -> None:
    assert whole_run.outcome.step == whole_config.train.steps
    runs = {
        "before": trial("before", tiny_base, tmp_path, steps=4),
        "whole": whole_config,
        "low": trial("low", tiny_base, tmp_path, steps=4_000, part=100),  # would take minutes
    }
    Validations(runs["before"].run_dir).write(Validation(1, 2.0, {}, 0.1))  # better than any score can be
    TrialFolder(runs["before"].run_dir).end("stopped")

    assert run_sweep(runs, Halving(parts=4, reduction=2), tmp_path / "ray") == {}

    assert [TrialFolder(run.run_dir).ended for run in runs.values()] == ["stopped", "finished", "stopped"]
    assert not (runs["before"].run_dir / "metrics.jsonl").exists(), "it was not started"
    assert TrialFolder(runs["low"].run_dir).validations()[-1].step < 4_000
    deadline = time.monotonic() + PATIENCE_S
    while held() and time.monotonic() < deadline:  # Ray gives what a worker held back a little after its end
        time.sleep(0.2)
    assert held() == {}

    rows = read_rows(runs, ["hypernet.variant"])
    write_csv(rows, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        assert {row["trial"]: row["ended"] for row in csv.DictReader(file)} == {
            "before": "stopped",
            "whole": "finished",
            "low": "stopped",
        }
    assert run_sweep(runs, Halving(parts=4, reduction=2), tmp_path / "ray") == {}, "all have ended"
