"""The evaluation with the shipped checkpoint: actors on Ray find what one process finds, and the job's command."""

import runpy
import sys
from pathlib import Path

import pytest

from t2l.cluster.aims import Request, aims_of, base_of
from t2l.cluster.evaluators import Item, alone, on_ray
from t2l.errors import CheckpointError
from t2l.evaluation.records import ResultFile
from t2l.tasks.universe import universe

ROOT = Path(__file__).parents[2]
TASKS = universe(None).test[:6]


def test_actors_find_what_one_process_finds(cluster: str) -> None:
    request = Request(splits=("held_out",), methods=("base", "t2l"), inputs=2)
    aims = [aim for aim in aims_of(request) if aim.head.wording in (None, "unseen", "junk")]
    halves = [tuple(task.name for task in half) for half in (TASKS[:3], TASKS[3:])]
    items = [Item(place, aim, half) for place, aim in enumerate(aims) for half in halves]
    found = {(graded.item.place, graded.item.tasks): graded.tasks for graded in on_ray(base_of(request), items)}
    assert found == {(done.item.place, done.item.tasks): done.tasks for done in alone(base_of(request), items)}
    score = {
        aim.head.wording: sum(found[place, half][name].own for half in halves for name in half) / len(TASKS)
        for place, aim in enumerate(aims)
    }
    assert score["unseen"] >= 0.8 > 0.1 >= max(score[None], score["junk"])


def test_an_evaluators_own_error_comes_out_as_itself(cluster: str) -> None:
    request = Request(splits=("held_out",), methods=("t2l",))
    [aim, *_] = aims_of(request)
    broken = type(aim)(aim.head, "/no/such/checkpoint", aim.source_sha256, aim.scope, aim.tasks)
    with pytest.raises(CheckpointError, match="/no/such/checkpoint"):
        list(on_ray(base_of(request), [Item(0, broken, (TASKS[0].name,))]))


def test_the_job_writes_a_table_and_measures_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(ROOT / "jobs" / "evaluate.py"))["main"]
    out = tmp_path / "results.json"
    arguments = ["evaluate.py", "-o", str(out), "--no-ray", "--splits", "new_operations", "--inputs", "1"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--methods", "base"])
    assert main() == 0
    assert "base, no definition" in capsys.readouterr().out
    first = ResultFile.read(out)
    assert [(record.method, record.num_questions) for record in first.records] == [("base", 40)]
    assert main() == 0
    assert ResultFile.read(out) == first
    monkeypatch.setattr(sys, "argv", [*arguments, "--methods", "magic"])
    assert main() == 1
    assert "error: there is no method 'magic'" in capsys.readouterr().err
