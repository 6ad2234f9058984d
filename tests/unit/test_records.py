"""Result files: what is written is read, sums are right, other files are refused."""

import json
import math
import random
import runpy
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from t2l.errors import DataError
from t2l.evaluation.names import METHOD_NAMES, WORDING_NAMES
from t2l.evaluation.records import Head, Record, ResultFile, TaskScore, margin_95
from t2l.evaluation.table import score_table

HEAD = Head(method="t2l", name="run", wording="unseen", split="held_out", variant="L", seed=1)
TASKS = {
    "one": TaskScore(1.0, {"exact_match": 1.0, "rouge_l": 1.0}, 10),
    "two": TaskScore(0.5, {"exact_match": 0.2, "rouge_l": 0.5}, 10),
    "three": TaskScore(0.0, {"exact_match": 0.0, "rouge_l": 0.0, "number": 0.0}, 4),
}


def test_a_record_sums_up_its_tasks() -> None:
    record = Record.of(HEAD, TASKS, 1.23456)
    assert record.head == HEAD
    assert record.score == pytest.approx(0.5), "the mean of each task's own metric"
    assert record.scores == pytest.approx({"exact_match": 0.4, "rouge_l": 0.5, "number": 0.0})
    assert record.by_task == {"one": 1.0, "two": 0.5, "three": 0.0}
    assert (record.num_questions, record.seconds) == (24, 1.235)


def test_tasks_are_the_units_of_a_margin_not_questions() -> None:
    t_2 = 4.302653  # Student's, of two degrees of freedom
    tasks = {name: TaskScore(own, {}, 10) for name, own in (("one", 0.4), ("two", 0.5), ("three", 0.6))}
    assert Record.of(HEAD, tasks, 1).margin_95 == pytest.approx(t_2 * 0.1 / math.sqrt(3))


def test_margins() -> None:
    assert margin_95([0.0, 1.0]) == 1, "which is all there is"
    assert margin_95([0.3] * 5) == 0
    assert margin_95([0.3]) == 1, "one task says nothing about others"


def test_margins_hold_the_true_mean_19_times_of_20_for_few_tasks_too() -> None:
    draw = random.Random(0)
    held = 0
    for _ in range(2000):
        scores = [draw.gauss(0.5, 0.1) for _ in range(8)]
        held += abs(statistics.fmean(scores) - 0.5) <= margin_95(scores)
    assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_reading_results_starts_at_once() -> None:
    code = "import sys, t2l.evaluation.records; sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("option", ["--inputs", "--seen-tasks"])
def test_evaluations_of_nothing_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    parse = runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "evaluate.py"))["parse"]
    for number in ("0", "-1"):
        with pytest.raises(SystemExit):
            parse(["-o", "out.json", option, number])
        assert f"{option} is {number}; it must be 1 or more" in capsys.readouterr().err


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = ResultFile(command="python jobs/evaluate.py", seconds=2.5, records=[Record.of(HEAD, TASKS, 1)])
    path = tmp_path / "new" / "results.json"
    written.write(path)
    assert ResultFile.read(path) == written
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    raw = json.loads(path.read_text())
    assert raw["format"] == 1 and raw["records"][0]["method"] == "t2l" and "torch" in raw["versions"]


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": 2, "command": "x"}', '{"held_out": {"base": 0.5}}'])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"old\.json is no result file of jobs/evaluate\.py \(format 1\)"):
        ResultFile.read(path)
    with pytest.raises(DataError, match=r"none\.json does not exist"):
        ResultFile.read(tmp_path / "none.json")


def test_files_merge_and_what_was_measured_twice_counts_once() -> None:
    first = ResultFile(command="a", seconds=1, machine={"cores": 7}, records=[Record.of(HEAD, TASKS, 1)])
    other = Head(method="base", split="held_out")
    second = ResultFile(command="b", seconds=2, records=[Record.of(HEAD, TASKS, 1), Record.of(other, TASKS, 1)])
    merged = ResultFile.merged("c", [first, second])
    assert [record.head for record in merged.records] == [HEAD, other]
    assert (merged.command, merged.seconds, merged.machine) == ("c", 3, {"cores": 7})


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError):
        Head.model_validate({"method": "t2l", "split": "seen", "wrong": 1})


def test_the_table_has_a_row_for_each_method_and_wording() -> None:
    records = [
        Record.of(Head(method=method, wording=wording, split=split), TASKS, 1)
        for method in METHOD_NAMES
        for wording in (None, *WORDING_NAMES)
        for split in ("seen", "held_out")
    ]
    table = score_table(records)
    assert table.row_count == len(METHOD_NAMES) * (1 + len(WORDING_NAMES))
    assert len(table.columns) == 3
