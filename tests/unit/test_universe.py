"""The embedded universe: sizes, determinism, honest splits, answers that are right."""

import random
import runpy
import subprocess
import sys
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from t2l.errors import ConfigError
from t2l.tasks.freehand import read_input
from t2l.tasks.operations import PICKS, RENDERS, Operations
from t2l.tasks.universe import NEW_OPERATIONS, Program, pretraining_programs, programs, sub_universe, universe
from t2l.tasks.vocabulary import DOMAINS, Input

SUITE = universe(None)


def _program(name: str) -> Program:
    return Program(*name.split("/"))


def test_sizes() -> None:
    assert len(programs()) >= 1200
    assert len(universe().train) == 479
    assert len(SUITE.train) > 2500
    assert len(SUITE.test) >= 100 and len(SUITE.validation) >= 50 and len(SUITE.extra["novel"]) >= 25
    for task in (SUITE.train[0], SUITE.test[-1]):
        assert len(set(task.descriptions)) >= 40 and len(set(task.unseen_descriptions)) >= 20


def test_splits_share_no_task_and_hold_combinations_of_seen_skills() -> None:
    groups = {"train": SUITE.train, "validation": SUITE.validation, "test": SUITE.test, **SUITE.extra}
    names = [task.name for tasks in groups.values() for task in tasks]
    assert len(names) == len(set(names))
    skills = Counter(
        skill for task in SUITE.train for skill in (task.name.rsplit("/", 1)[0], "/".join(task.name.split("/")[::2]))
    )
    for split in ("validation", "test", "novel"):
        for task in groups[split]:
            program = _program(task.name)
            assert program.is_composite
            assert skills[f"{program.domain}/{program.pick}"] >= 4 and skills[f"{program.domain}/{program.render}"] >= 4
    assert not {part for task in SUITE.train for part in task.name.split("/")} & NEW_OPERATIONS


def test_pretraining_leaves_out_the_novel_combinations() -> None:
    pretrained = {program.name for program in pretraining_programs()}
    assert not pretrained & {task.name for task in SUITE.extra["novel"]}
    assert {task.name for task in SUITE.test} <= pretrained


def test_pretraining_begins_only_where_its_result_may_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["pretrain_base.py", "-o", str(tmp_path), "minutes=90"])
    assert runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "pretrain_base.py"))["main"]() == 1
    assert f"{tmp_path} already exists" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 100, 479, 1000])
def test_fewer_training_tasks_are_a_prefix_and_leave_the_test_tasks_alone(count: int) -> None:
    fewer = universe(count)
    assert [task.name for task in fewer.train] == [task.name for task in SUITE.train[:count]]
    assert [task.name for task in fewer.test] == [task.name for task in SUITE.test]


def test_479_tasks_cover_every_skill() -> None:
    covered = {part for task in universe().train for part in task.name.split("/")}
    assert covered >= {part for task in SUITE.train for part in task.name.split("/")}


@pytest.mark.parametrize("count", [0, 10**6])
def test_impossible_number_of_tasks(count: int) -> None:
    with pytest.raises(ConfigError, match=str(count)):
        universe(count)


def test_no_two_tasks_behave_alike() -> None:
    for domain, entry in DOMAINS.items():
        rng = random.Random(f"test {domain}")
        probes = [entry.draw(rng) for _ in range(300)]
        seen: dict[tuple[str | None, ...], str] = {}
        for program in (p for p in programs() if p.domain == domain):
            behaviour = tuple(program.apply(probe) for probe in probes)
            assert behaviour not in seen, f"{program.name} behaves as {seen[behaviour]}"
            seen[behaviour] = program.name


@given(st.integers(0, len(SUITE.train) - 1), st.integers(0, 2**16 - 1))
def test_examples_are_deterministic_and_answered_by_the_program(number: int, index: int) -> None:
    task = SUITE.train[number]
    example = task.train[index]
    assert example == task.train[index] and example.output
    program = _program(task.name)
    if program.domain in ("words", "numbers", "mixed"):
        assert program.apply(Input(example.input, tuple(example.input.split(", ")))) == example.output


def test_another_process_gives_the_same_universe() -> None:
    code = (
        "from t2l.tasks.universe import universe; u = universe(50); "
        "print([(t.name, t.descriptions[7], t.unseen_descriptions[3], t.test[5]) "
        "for t in (*u.train[::9], *u.test[::9])])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1 and "words/" in outputs.pop()


def test_operations_on_a_hand_made_input() -> None:
    words = Input("pear, ant, zebra, apple", ("pear", "ant", "zebra", "apple"))
    cases = {
        ("all", "plain"): "pear, ant, zebra, apple",
        ("animals", "uppercase"): "ANT, ZEBRA",
        ("reverse_alphabetical", "dashes"): "zebra-pear-apple-ant",
        ("swap_ends", "numbered"): "1. apple 2. ant 3. zebra 4. pear",
        ("odd_positions", "quotes"): '"pear", "zebra"',
        ("longest", "spelled"): "z-e-b-r-a",
        ("drop_first", "count"): "3",
        ("last_two", "plural"): "zebras, apples",
    }
    for (pick, render), answer in cases.items():
        assert Program("words", pick, render).apply(words) == answer
    numbers = Input("7, 40, 13", ("7", "40", "13"))
    assert Program("numbers", "descending", "in_words").apply(numbers) == "forty, thirteen, seven"
    assert Program("numbers", "even", "rounded_down").apply(numbers) == "40"
    assert Program("letters", "reverse", "next_letter").apply(Input("abz", ("a", "b", "z"))) == "acb"


def test_free_hand_descriptions_mean_what_they_say() -> None:
    entries = yaml.safe_load(files("t2l.tasks").joinpath("phrases", "freehand.yaml").read_text())
    assert len(entries) == 100 and len({entry["description"] for entry in entries}) == 100
    trained = {text for task in SUITE.train[::7] for text in task.descriptions}
    for entry in entries:
        program = Program(entry["domain"], entry["pick"], entry["render"])
        assert entry["pick"] in PICKS[entry["domain"]] and entry["render"] in RENDERS[entry["domain"]]
        assert entry["description"] not in trained
        assert program.apply(read_input(entry["domain"], entry["input"])) == str(entry["answer"]), entry


def test_sub_universe_holds_out_combinations() -> None:
    operations = Operations(
        frozenset({"reverse", "first_two", "last_two", "swap_ends", "drop_first"}),
        frozenset({"dashes", "uppercase", "quotes", "and", "twice"}),
    )
    suite = sub_universe("words", operations, num_validation=2, num_test=3)
    assert (len(suite.validation), len(suite.test), len(suite.train)) == (2, 3, 20)
    with pytest.raises(ConfigError, match="colours"):
        sub_universe("colours", operations, 1, 1)
