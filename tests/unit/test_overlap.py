"""The decontamination check flags what a test could have been learnt by heart from, and nothing else."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from t2l.cli import app
from t2l.tasks.overlap import Overlap, overlaps
from t2l.tasks.task import Example, Task

PASSAGE = "the quick brown fox jumps over the lazy dog while the old cat sleeps in the warm sun all day long"
OTHER = "a completely different story of a small boat that sails far out and comes home with fish on friday nights"


def task(name: str, train: list[Example] = [], test: list[Example] = [], *wordings: str) -> Task:  # noqa: B006
    return Task(name, wordings or (f"Do what {name} asks.",), (), tuple(train), tuple(test))


def found(train: Task, held_out: Task) -> list[Overlap]:
    return overlaps([train], [held_out])


@pytest.mark.parametrize(
    "seen",
    [
        Example(PASSAGE, "x"),
        Example("x", PASSAGE),
        Example("x", "y", also=(PASSAGE,)),
        Example(f"Read: {PASSAGE.upper().replace(' the', ', the')} !!", "x"),
        Example(" ".join(PASSAGE.split()[3:16]), "13 words of it"),
    ],
)
@pytest.mark.parametrize("asked", [Example(PASSAGE, "?"), Example("?", PASSAGE), Example("?", "!", also=(PASSAGE,))])
def test_thirteen_words_in_a_row_are_flagged(seen: Example, asked: Example) -> None:
    [one] = found(task("a", [seen]), task("b", [], [Example(OTHER, "no"), asked]))
    assert (one.train, one.held_out, one.examples, one.share, one.likeness) == ("a", "b", {1}, 0.5, 0.0)
    assert one.sample in PASSAGE


def test_what_is_common_by_chance_is_not_flagged() -> None:
    words = PASSAGE.split()
    seen = [Example("yes", "no"), Example(" ".join([*words[:12], "or", *words[13:]]), "positive"), Example(OTHER, "A")]
    assert not found(task("a", seen), task("b", [], [Example(PASSAGE, "yes"), Example("three words only", "A")]))


def test_short_texts_are_compared_whole() -> None:
    asked = [Example("what is a fox", "?"), Example("what is a red fox", "?")]
    [one] = found(task("a", [Example("What is a fox?", "an animal")]), task("b", [], asked))
    assert one.examples == {0}


def test_nearly_the_same_descriptions_are_flagged() -> None:
    first = "In this task, you are given a sentence and have to decide whether its mood is positive or negative."
    near = first.replace("sentence", "tweet")
    far = "Judge the mood of a tweet: say positive or negative, and nothing else than that."
    [one] = found(task("a", [], [], "Other words.", first), task("b", [], [], near))
    assert one.likeness > 0.5 and one.sample == near and not one.examples
    assert not found(task("a", [], [], first), task("b", [], [], far))
    [same] = found(task("a", [], [], "Sort it."), task("b", [], [], "sort it"))
    assert same.likeness == 1.0


def test_all_pairs_the_worst_first() -> None:
    train = [task("a", [Example(PASSAGE, "x")]), task("b", [Example(OTHER, "x")]), task("c", [Example("x", "y")])]
    held_out = [task("d", [], [Example(PASSAGE, "x"), Example("q", "x")]), task("e", [], [Example(OTHER, "x")])]
    pairs = overlaps(train, held_out)
    assert [(one.train, one.held_out, one.share) for one in pairs] == [("b", "e", 1.0), ("a", "d", 0.5)]


def own_task(folder: Path, name: str, split: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "task.yaml").write_text(f"descriptions: [Do {name}.]\nsplit: {split}")
    for part in ("train", "test"):
        line = json.dumps({"input": f"{text} {part}", "output": "x"})
        (folder / name / f"{part}.jsonl").write_text(line)


def test_the_command_names_the_pairs(tmp_path: Path) -> None:
    own_task(tmp_path / "mine", "copied", "train", PASSAGE)
    own_task(tmp_path / "mine", "held", "test", OTHER)
    own_task(tmp_path / "bench", "leaked", "test", PASSAGE)
    mine, bench = ("data={suite: jsonl, path: %s}" % (tmp_path / name) for name in ("mine", "bench"))
    clean = CliRunner().invoke(app, ["decontaminate", mine])
    assert "comparing 1 training tasks with 1 test tasks" in clean.stderr
    assert clean.exit_code == 0 and "overlapping pairs of 1 training and 1 test tasks: 0" in clean.stdout
    (tmp_path / "bench.yaml").write_text(bench.replace("data={", "data: {"))
    flagged = CliRunner().invoke(app, ["decontaminate", mine, "--against", str(tmp_path / "bench.yaml")])
    assert flagged.exit_code == 1, flagged.output
    assert "overlapping pairs of 1 training and 2 test tasks: 1" in flagged.stdout
    assert all(word in flagged.stdout for word in ("copied", "leaked", "1 of 1", "the quick")), flagged.stdout
    wrong = CliRunner().invoke(app, ["decontaminate", "data.suite=nope"])
    assert wrong.exit_code == 1 and "choose from universe" in wrong.output
