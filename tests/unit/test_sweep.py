"""Sweeps without Ray: spaces and budgets, what is read from trials' folders, ranking, the table on the terminal."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from t2l.cluster.sweep_table import SweepTable, TrialLine
from t2l.cluster.trials import TrialFolder
from t2l.config import load_config
from t2l.train.validations import Validation, Validations
from tune.plots import draw
from tune.results import ranked_table, read_rows, write_csv
from tune.spaces import SPACES, Space, plan, space_of, trial_name
from tune.sweep import parse

ROOT = Path(__file__).parents[2]
TWO = Space("jobs/configs/sweep_small.yaml", ({"hypernet.variant": ("S", "L")},), parts=4, reduction=2)
UNIVERSE = ["data={suite: universe}", "train.steps=100"]


@pytest.mark.parametrize("name", SPACES)
def test_every_combination_is_a_run_of_its_own(name: str, tmp_path: Path) -> None:
    space = space_of(name)
    base = ROOT / space.base
    runs = plan(space, base, [], tmp_path)
    assert len({run.model_copy(update={"name": ""}).model_dump_json() for run in runs.values()}) == len(runs) > 1
    for settings in space.combinations():
        run = load_config(base, [f"{key}={json.dumps(value)}" for key, value in settings.items()])
        assert any(run.hypernet == other.hypernet and run.data == other.data for other in runs.values())
    for run_name, run in runs.items():
        assert run.run_dir == tmp_path / "trials" / run_name
        assert run.train.checkpoint_every == run.train.eval_every
        assert (space.parts - 1) * run.train.eval_every < run.train.steps <= space.parts * run.train.eval_every


def test_names_tell_the_settings_and_serve_as_folders() -> None:
    assert trial_name({"hypernet.variant": "S", "lora.rank": 8}) == "variant-S_rank-8"
    assert trial_name({"lora.target_modules": ["q_proj", "v_proj"]}) == "target_modules-q_proj-v_proj"


def test_budgets() -> None:
    space = Space(TWO.base, ({"data.num_train_tasks": (60, 120, 240)},), parts=4, reduction=2)
    for budget, expected in {"fixed": [100, 100, 100], "scaled": [25, 50, 100]}.items():
        runs = plan(space, ROOT / space.base, UNIVERSE, Path("out"), budget)  # type: ignore[arg-type]
        assert [run.train.steps for run in runs.values()] == expected


def test_samples_are_the_same_each_time_and_keep_their_budget() -> None:
    space = Space(TWO.base, ({"data.num_train_tasks": (60, 120, 240)},), parts=4, reduction=2)
    whole = plan(space, ROOT / space.base, UNIVERSE, Path("out"), "scaled")
    some = plan(space, ROOT / space.base, UNIVERSE, Path("out"), "scaled", samples=2)
    assert len(some) == 2
    assert some.items() <= whole.items()
    assert some == plan(space, ROOT / space.base, UNIVERSE, Path("out"), "scaled", samples=2)


def test_grids_may_overlap() -> None:
    grid = {"hypernet.variant": ("S", "L")}
    space = Space(TWO.base, (grid, grid | {"lora.rank": (4, 8)}), parts=4, reduction=2)
    assert len(plan(space, ROOT / space.base, [], Path("out"))) == 4, "rank 8 is the base's"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--space", "huge"], "unknown space 'huge': choose from small, paper"),
        (["--space", "small", "train.stepz=3"], "unknown setting 'train.stepz'; did you mean 'train.steps'?"),
        (["--space", "small", "hypernet.variant=L"], "'hypernet.variant' is what this space varies"),
        (["--space", "small", "data.num_validation=0"], "has no validation tasks to be judged by: raise data.num_v"),
        (["--space", "small", "--config", "no.yaml"], "config file no.yaml does not exist"),
    ],
)
def test_wrong_requests_end_in_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "tune/sweep.py", "-o", str(tmp_path / "out"), *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--samples", "--concurrent"])
def test_numbers_below_one_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("0", "-1"):
        with pytest.raises(SystemExit):
            parse(["--space", "small", "-o", "out", option, number])
        assert f"{option} is {number}; it must be 1 or more" in capsys.readouterr().err


def trained(folder: Path, scores: dict[int, float]) -> TrialFolder:
    """What a run leaves: a loss every 5 steps of 0.5 s, and scores."""
    for step, score in scores.items():
        Validations(folder).write(Validation(step, score, {"exact_match": score}, 1.0))
    logged = [{"step": step, "loss": 10.0 / step, "seconds_per_step": 0.5} for step in range(5, max(scores) + 1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in logged))
    return TrialFolder(folder)


def test_a_trials_folder(tmp_path: Path) -> None:
    folder = trained(tmp_path / "trial", {20: 0.5, 10: 0.25})
    assert [(validation.step, validation.score) for validation in folder.validations()] == [(10, 0.25), (20, 0.5)]
    assert (folder.loss(14), folder.loss(20), folder.loss(4)) == (1.0, 0.5, None)
    assert folder.seconds() == 10.0
    assert folder.ended is None
    folder.end("stopped")
    assert folder.ended == "stopped"
    assert folder.parameters() == (None, None)


def test_rows_rank_by_score_and_go_to_csv_and_figures(tmp_path: Path, tiny_checkpoint: Path) -> None:
    runs = plan(TWO, ROOT / TWO.base, [], tmp_path)
    trained(runs["variant-S"].run_dir, {30: 0.75, 60: 0.5}).end("stopped")
    trained(runs["variant-L"].run_dir, {30: 0.5, 60: 0.8}).end("finished")
    checkpoint = runs["variant-L"].run_dir / "checkpoints" / "step-000060"
    checkpoint.parent.mkdir()
    checkpoint.symlink_to(tiny_checkpoint)
    best, other = rows = read_rows(runs, TWO.keys)
    assert (best.trial, best.ended, best.score, best.steps) == ("variant-L", "finished", 0.8, 60)
    assert (other.score, other.last_score, other.compression_ratio) == (0.75, 0.5, None)
    assert best.adapter_parameters and best.hypernet_parameters
    assert best.compression_ratio == best.train_tasks * best.adapter_parameters / best.hypernet_parameters

    write_csv(rows, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["trial"], first["hypernet.variant"], first["score"]) == ("variant-L", "L", "0.8")
    assert (second["compression_ratio"], second["seconds"]) == ("", "30.0")
    figures = draw(rows, {name: run.hypernet.variant for name, run in runs.items()}, tmp_path)
    assert [path.stat().st_size > 5_000 for path in figures] == [True] * 3


def test_a_trial_that_failed_at_once_ranks_last(tmp_path: Path) -> None:
    runs = plan(TWO, ROOT / TWO.base, [], tmp_path)
    trained(runs["variant-L"].run_dir, {30: 0.0})
    rows = read_rows(runs, TWO.keys, {"variant-S"})
    assert [(row.trial, row.ended, row.score) for row in rows] == [
        ("variant-L", "unfinished", 0.0),
        ("variant-S", "failed", None),
    ]
    console = Console(width=120, file=io.StringIO())
    console.print(ranked_table(rows, "two"))
    assert "variant-S" in console.file.getvalue()  # type: ignore[attr-defined]


def test_the_log_has_a_line_for_each_start_score_and_end() -> None:
    console = Console(width=200, file=io.StringIO())
    table = SweepTable(console)
    waiting, other = TrialLine("a", "waiting", 0, 10), TrialLine("b", "waiting", 0, 10)
    for line in (
        waiting,
        TrialLine("a", "starting", 0, 10),
        TrialLine("a", "training", 4, 10),
        TrialLine("a", "training", 5, 10, 0.5, 1.25),
        TrialLine("a", "training", 6, 10, 0.5, 1.2),
        TrialLine("a", "finished", 10, 10, 0.75, 1.0),
    ):
        table.show([line, other])
    said = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [" ".join(line.split()[:2]) for line in said] == ["a starting", "a training", "a finished"]
    assert "step 5/10  score 0.500  loss 1.2500" in said[1]
    assert "1 of 2 trials ended" in said[2]
