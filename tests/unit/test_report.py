"""Reports of small result files with known numbers, and of a tiny checkpoint."""

import csv
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

from t2l.cli import app
from t2l.errors import CheckpointError, DataError
from t2l.evaluation.flops import Lengths
from t2l.evaluation.records import Head, Record, ResultFile, TaskScore
from t2l.report.build import build_report
from t2l.report.document import Figure, Section, Table
from t2l.report.merge import Entry, Estimate, labels, merge
from t2l.report.sections.atlas import atlas
from t2l.report.sections.compression import compression, ratio
from t2l.report.sections.conditions import conditions
from t2l.report.sections.costs import paper_cost, paper_costs
from t2l.report.sections.scaling import scaling
from t2l.report.sections.scores import controls
from t2l.report.sections.sensitivity import sensitivity
from t2l.report.sections.steering import right_answer, steering
from t2l.report.sections.timing import first_answers, own_cost
from t2l.tasks.universe import universe
from t2l.text_to_lora import TextToLora

T_2 = 4.302653
"""Student's t, 97.5 %, two degrees of freedom."""
SIZES = {"hypernet_parameters": 1000, "adapter_parameters": 200, "rank": 8, "training_steps": 50}


def record(scores: Sequence[float], method: str = "t2l", split: str = "held_out", **head: Any) -> Record:
    """Of tasks words/0, words/1, ... with these scores."""
    tasks = {f"words/{i}": TaskScore(score, {"exact_match": score}, 4) for i, score in enumerate(scores)}
    return Record.of(Head(method=method, split=split, **head), tasks, 1.0)


def t2l_record(scores: Sequence[float], wording: str = "unseen", seed: int = 0, **head: Any) -> Record:
    return record(scores, **{"wording": wording, "seed": seed, "name": f"run-{seed}", "objective": "sft", **head})


def everything() -> list[Record]:
    """Something for every section."""
    found = [record([0, 0, 0.1], "base", split) for split in ("held_out", "seen")]
    for variant, tasks in (("S", 10), ("S", 40), ("L", 10), ("L", 40)):
        for split in ("held_out", "seen"):
            for wording, level in (("unseen", tasks / 50), ("seen", 0.9), ("shuffled", 0.1), ("junk", 0.0)):
                head = {"variant": variant, "num_train_tasks": tasks, "name": f"{variant}{tasks}", **SIZES}
                found.append(t2l_record([level, level, level + 0.1], wording, split=split, **head))
    return found


def write(path: Path, records: Sequence[Record]) -> Path:
    ResultFile(command="python jobs/evaluate.py", records=list(records)).write(path)
    return path


def tables(section: Section | None) -> list[Table]:
    assert section is not None
    return [part for part in section.parts if isinstance(part, Table)]


def check(found: Estimate | None, mean: float, margin: float, seeds: int) -> None:
    assert found is not None
    assert (found.mean, found.margin, found.seeds) == (pytest.approx(mean), pytest.approx(margin, abs=1e-6), seeds)


# ---- merging


def test_seeds_become_an_interval() -> None:
    [entry] = merge(t2l_record([score, score], seed=seed) for seed, score in enumerate((0.5, 0.6, 0.7)))
    check(entry.score("held_out"), 0.6, T_2 * 0.1 / 3**0.5, seeds=3)
    assert str(entry.score("held_out")) == "0.600 ± 0.248"


def test_one_seed_has_the_interval_over_its_tasks() -> None:
    only = t2l_record([0.2, 0.4, 0.9])
    [entry] = merge([only])
    assert entry.score("held_out") == Estimate(0.5, only.margin_95)
    assert entry.score("novel") is None


def test_differences_are_taken_task_by_task() -> None:
    [entry] = merge([t2l_record([1.0, 0.5, 0.6]), t2l_record([0.0, 0.1, 0.2], "shuffled")])
    sd = 0.12**0.5  # of 1.0, 0.4, 0.4
    check(entry.difference("held_out", "shuffled"), 0.6, T_2 * sd / 3**0.5, seeds=1)
    assert entry.difference("held_out", "junk") is None


def test_differences_are_taken_seed_by_seed() -> None:
    own = [t2l_record([score], seed=seed) for seed, score in enumerate((0.5, 0.7, 0.9))]
    other = [t2l_record([score], "shuffled", seed=seed) for seed, score in enumerate((0.1, 0.3, 0.5))]
    [entry] = merge([*own, *reversed(other)])
    check(entry.difference("held_out", "shuffled"), 0.4, 0.0, seeds=3)


def test_a_run_given_twice_counts_once_as_the_later_file_has_it() -> None:
    [entry] = merge([t2l_record([0.1]), t2l_record([0.3])])
    assert entry.score("held_out") == Estimate(0.3, 1.0)


def test_names_tell_methods_apart_where_seeds_repeat() -> None:
    runs = [t2l_record([0.5], seed=seed, name=f"{loss}-seed{seed}") for loss in ("l1", "delta") for seed in (0, 1)]
    entries = merge(runs)
    assert sorted((entry.name, len(entry.runs["held_out", "unseen"])) for entry in entries) == [("delta", 2), ("l1", 2)]
    assert labels(entries) == ["T2L, SFT (delta)", "T2L, SFT (l1)"]


def test_rows_go_from_prompts_to_the_oracle_and_from_small_to_large() -> None:
    heads = [("oracle", None, None), ("t2l", "L", 9), ("t2l", "S", 100), ("t2l", "S", 9), ("base", None, None)]
    entries = merge(record([1], method, variant=v, num_train_tasks=n) for method, v, n in heads)
    expected = ["base, no definition", "T2L S, 9 tasks", "T2L S, 100 tasks", "T2L L, 9 tasks", "oracle LoRA"]
    assert labels(entries) == expected


# ---- sections


def test_controls_show_every_wording_and_what_the_description_adds() -> None:
    records = [t2l_record([1.0, 0.5]), t2l_record([0.0, 0.5], "shuffled"), record([0.0], "base")]
    [table] = tables(controls(merge(records)))
    expected = [
        "method", "unseen wording", "another task's description", "matched − shuffled", "matched − junk",
    ]  # fmt: skip
    assert list(table.columns) == expected
    [row] = table.texts
    assert row[0] == "T2L, SFT"
    assert [cell.split(" ")[0] for cell in row[1:4]] == ["0.750", "0.250", "0.500"]


def scaling_lines(entries: Sequence[Entry]) -> set[str]:
    [table] = tables(scaling(entries))
    return {str(row[0]) for row in table.rows}


def test_scaling_has_a_line_a_variant() -> None:
    assert scaling_lines(merge(everything())) == {"S, SFT", "L, SFT"}


def test_scaling_tells_a_fixed_budget_from_one_that_grows() -> None:
    budgets = [(10, 100), (20, 100), (40, 100), (20, 200), (40, 400)]
    runs = [t2l_record([n / 50], num_train_tasks=n, training_steps=s, name=f"{n}-{s}-x") for n, s in budgets]
    assert scaling_lines(merge(runs)) == {"SFT, 100 steps", "SFT, steps grow with tasks"}


def test_the_compression_ratio() -> None:
    entries = merge(everything())
    assert {ratio(entry) for entry in entries} == {None, 10 * 200 / 1000, 40 * 200 / 1000}


@pytest.mark.parametrize("section", [controls, conditions, scaling, compression, sensitivity])
def test_sections_are_left_out_where_there_is_nothing_to_show(section: Any) -> None:
    assert section(merge([record([0.1], "base", "novel")])) is None


def test_the_papers_costs() -> None:
    cost = paper_cost(Lengths(50, 58, 1))
    assert cost.t2l == pytest.approx(0.856e12, rel=0.01)
    assert paper_cost(Lengths(0, 296, 1, shots=0)).few_shot == pytest.approx(4.177e12, rel=0.01)
    section = paper_costs()
    assert "58 tokens" in section.text
    [figure] = [part for part in section.parts if isinstance(part, Figure)]
    low, high = figure.drawing.axes[0].get_ylim()
    assert 1e11 < low < high < 1e14


# ---- the whole


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 5000
    return struct.unpack(">II", data[16:24])


def test_a_report_holds_every_section_figure_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "results.json", everything())
    sections = build_report([path], tmp_path / "report", "A <title>")
    page = (tmp_path / "report" / "report.html").read_text()
    text = (tmp_path / "report" / "report.md").read_text()
    assert "A &lt;title&gt;" in page
    for section in sections:
        assert f'id="{section.anchor}"' in page
        assert f"## {section.title}" in text
    figures = {figure.stem for figure in (tmp_path / "report" / "figures").iterdir()}
    assert figures == {"conditions", "scaling", "compression", "sensitivity", "flops_mistral"}
    assert page.count("data:image/png;base64,") == len(figures)
    assert all(min(png_size(figure)) > 400 for figure in (tmp_path / "report" / "figures").iterdir())
    with (tmp_path / "report" / "tables" / "methods.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert float(rows["T2L S, SFT, 40 tasks"]["held-out tasks"]) == pytest.approx((0.8 + 0.8 + 0.9) / 3)
    assert float(rows["T2L S, SFT, 40 tasks"]["held-out tasks margin_95"]) == pytest.approx(T_2 / 30)


def t2l(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, arguments)], env={"COLUMNS": "300"})


def test_the_command(tmp_path: Path) -> None:
    result = t2l(write(tmp_path / "a.json", everything()), "-o", tmp_path / "out", "--title", "Mine")
    assert result.exit_code == 0, result.output
    assert "report.html" in result.stdout
    assert (tmp_path / "out" / "report.md").read_text().startswith("# Mine\n")


@pytest.mark.parametrize(("content", "reason"), [(None, "does not exist"), ("{}", "is no result file")])
def test_what_is_no_result_file_is_refused_in_a_sentence(tmp_path: Path, content: str | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    result = t2l(tmp_path / "a.json", "-o", tmp_path / "out")
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert reason in line
    assert not (tmp_path / "out").exists()


def test_a_file_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no record in"):
        build_report([write(tmp_path / "a.json", [])], tmp_path / "out", "")


def test_reading_results_needs_no_torch() -> None:
    code = "import sys, t2l.report.merge, t2l.report.document; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- with a checkpoint


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> TextToLora:
    model = TextToLora.from_pretrained(tiny_checkpoint, "cpu")
    model.model.requires_grad_(False)  # the counter of operations wants no graph, or all of it
    return model


def test_a_missing_checkpoint_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        build_report([write(tmp_path / "a.json", everything())], tmp_path / "out", "", tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_steering_shows_one_input_under_several_descriptions(model: TextToLora) -> None:
    tasks = universe(1).test
    for table in tables(steering(model, tasks)):
        assert len({row[0] for row in table.rows}) == len(table.rows) > 2


@pytest.mark.parametrize("number", range(0, 120, 7))
def test_right_answers_are_those_of_the_task(number: int) -> None:
    task = universe(1).test[number]
    assert right_answer(task, task.test[0].input) == task.test[0].output


def test_the_map_needs_enough_tasks(model: TextToLora) -> None:
    tasks = universe(70).train
    assert atlas(model, tasks[:20]) is None
    section = atlas(model, tasks)
    assert section is not None
    assert "70 tasks" in section.text


def test_first_answers_are_counted_and_measured(model: TextToLora) -> None:
    measured, counted = tables(first_answers(model, "sort the words"))
    assert [row[0] for row in measured.rows] == [row[0] for row in counted.rows]
    assert all(isinstance(cell, int | float) and cell > 0 for row in measured.rows for cell in row)


def test_what_a_checkpoint_costs_is_what_it_computes(model: TextToLora) -> None:
    model.base.model.set_attn_implementation("eager")
    torch.backends.mha.set_fastpath_enabled(False)  # fused layers are not counted
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
            model.generate(["sort the words"])
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    cost = own_cost(model, "sort the words", Lengths(3, 5, 1))
    assert cost.describe + cost.generate == pytest.approx(counter.get_total_flops(), rel=0.01)
