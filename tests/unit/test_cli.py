"""The `t2l` command on real folders."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from t2l.cli import app
from t2l.embedded import CHECKPOINT_DIR
from t2l.lora.peft_io import load_peft

SORT, LAST = "Sort the words.", "Name the last word [of all]"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def t2l(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def refused(result: Result) -> str:
    """What it said, once checked to be one sentence and no traceback."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from t2l.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: assert not {'torch', 'transformers', 'ray'} & set(sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert all(command in output for command in ("generate", "refine", "run"))


def test_the_version() -> None:
    assert t2l("--version").stdout == f"t2l {version('t2l')}\n"


# ---- generate


def test_one_description_becomes_the_folder_itself(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = t2l("generate", SORT, "-o", tmp_path / "sort", "--checkpoint", tiny_checkpoint)
    assert result.exit_code == 0, result.output
    assert len(load_peft(tmp_path / "sort")) == 1
    assert SORT in result.stdout
    assert str(tmp_path / "sort") in result.stdout
    assert SORT in (tmp_path / "sort" / "README.md").read_text()


def test_several_become_folders_named_after_them(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "tasks.txt").write_text(f"{LAST}\n\n  \n{SORT}\n")
    file, out = ("--file", tmp_path / "tasks.txt"), tmp_path / "out"
    rest = ("-o", out, "--checkpoint", tiny_checkpoint)
    result = t2l("generate", "Sort  the words", "-", *file, *rest, stdin="Count!\n")
    assert result.exit_code == 0, result.output
    names = sorted(path.name.rpartition("-")[0] for path in out.iterdir())
    assert names == ["count", "name-the-last-word-of-all", "sort-the-words"], "the same task twice is one adapter"
    assert LAST in result.stdout, "brackets are text, not markup"
    [count] = out.glob("count-*")
    alone = tmp_path / "alone"
    t2l("generate", "Count!", "-o", alone, "--checkpoint", tiny_checkpoint)
    for name in ("adapter_config.json", "README.md"):
        assert (alone / name).read_text() == (count / name).read_text()


def test_a_file_from_stdin(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = t2l("generate", "-f", "-", "-o", tmp_path / "x", "--checkpoint", tiny_checkpoint, stdin=f"{SORT}\n{LAST}")
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "x").iterdir())) == 2


def test_nothing_is_overwritten_without_force(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out, rest = tmp_path / "adapter", ("-o", tmp_path / "adapter", "--checkpoint", tiny_checkpoint)
    out.mkdir()
    assert t2l("generate", SORT, *rest).exit_code == 0, "an empty folder holds nothing to lose"
    assert refused(t2l("generate", LAST, *rest)).endswith("choose another folder, or replace it with --force")
    assert SORT in (out / "README.md").read_text()
    assert t2l("generate", LAST, *rest, "--force").exit_code == 0
    assert LAST in (out / "README.md").read_text()


def test_force_spares_folders_of_other_things(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear")
    result = t2l("generate", SORT, "-o", tmp_path, "--force", "--checkpoint", tiny_checkpoint)
    assert "is no adapter folder: --force replaces only those" in refused(result)
    assert (tmp_path / "notes.txt").read_text() == "dear"


# ---- run


def test_run_shows_both_answers(tiny_checkpoint: Path) -> None:
    from t2l import TextToLora

    result = t2l("run", SORT, "b, [a]", "--checkpoint", tiny_checkpoint, "--max-new-tokens", 8)
    assert result.exit_code == 0, result.output
    header, row = (line for line in result.stdout.splitlines() if line[0] in "┃│")
    assert [cell.strip() for cell in header.strip("┃").split("┃")] == ["input", "base model", "with adapter"]
    model = TextToLora.from_pretrained(tiny_checkpoint)
    answers = [model.run([SORT], ["b, [a]"], adapted, max_new_tokens=8)[0] for adapted in (False, True)]
    assert answers[0] != answers[1]
    assert row.split("│")[1].strip() == "b, [a]"
    assert all(answer in row for answer in answers if answer.isprintable())


# ---- refine


def test_refine_writes_another_adapter_with_a_card(tiny_checkpoint: Path, tmp_path: Path) -> None:
    examples, rest = tmp_path / "few.jsonl", ("--checkpoint", tiny_checkpoint)
    examples.write_text('{"input": "b, a", "output": "a, b"}\n\n{"input": "d, c", "output": "c, d"}\n')
    out = tmp_path / "refined"
    result = t2l("refine", SORT, "--examples", examples, "-o", out, "--steps", 3, *rest)
    assert result.exit_code == 0, result.output
    assert "refined with 2 examples" in result.stdout
    card = (out / "README.md").read_text()
    assert SORT in card and "Refined with 2 examples in 3 steps." in card
    t2l("generate", SORT, "-o", tmp_path / "generated", *rest)
    refined, generated = load_peft(out), load_peft(tmp_path / "generated")
    assert not refined.B["q_proj"].equal(generated.B["q_proj"])
    assert "already exists" in refused(t2l("refine", SORT, "--examples", examples, "-o", out, *rest))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 2 is no JSON"),
        ("[1]", "line 2 is no record"),
        ('{"input": "a"}', "line 2 lacks the field 'output'"),
        ('{"input": 3, "output": "a"}', "line 2: the field 'input' is 3, not text"),
        ('{"input": "a", "output": " "}', "line 2: the field 'output' is ' ', not text"),
        ('{"input": "a", "output": "b", "label": 1}', "line 2 has an unknown field 'label'"),
    ],
)
def test_bad_examples_are_named(line: str, complaint: str, tmp_path: Path) -> None:
    examples = tmp_path / "few.jsonl"
    examples.write_text(f'{{"input": "a", "output": "b"}}\n{line}\n')
    said = refused(t2l("refine", SORT, "--examples", examples, "-o", tmp_path / "out"))
    assert f"{examples}, " in said and complaint in said


def test_files_of_no_examples(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    rest = ("-o", tmp_path / "out")
    assert "empty holds no example" in refused(t2l("refine", SORT, "--examples", tmp_path / "empty", *rest))
    assert "missing does not exist" in refused(t2l("refine", SORT, "--examples", tmp_path / "missing", *rest))
    assert f"{tmp_path} is a folder" in refused(t2l("refine", SORT, "--examples", tmp_path, *rest))


# ---- errors


@pytest.mark.parametrize(("text", "complaint"), [("", "is empty"), ("  ", "is empty"), ("x" * 5000, "5000 characters")])
def test_empty_and_over_long_descriptions(text: str, complaint: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    rest = ("--checkpoint", tiny_checkpoint)
    assert complaint in refused(t2l("generate", text, "-o", tmp_path / "out", *rest))
    assert complaint in refused(t2l("run", text, "input", *rest))
    assert not (tmp_path / "out").exists()


def test_no_description_at_all(tmp_path: Path) -> None:
    assert "there is no description" in refused(t2l("generate", "-o", tmp_path / "out"))
    assert "there is no description" in refused(t2l("generate", "-", "-o", tmp_path / "out", stdin="\n\n"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "missing.txt does not exist" in refused(
        t2l("generate", "-f", tmp_path / "missing.txt", "-o", tmp_path / "out")
    )
    assert f"{tmp_path} is a folder" in refused(t2l("generate", "-f", tmp_path, "-o", tmp_path / "out"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "is no UTF-8 text" in refused(t2l("generate", "-f", tmp_path / "binary", "-o", tmp_path / "out"))


def test_missing_and_foreign_checkpoints(tiny_base: Path, tmp_path: Path) -> None:
    result = t2l("generate", SORT, "-o", tmp_path / "out", "--checkpoint", tmp_path / "missing")
    assert "missing does not exist" in refused(result)
    assert "is no t2l checkpoint" in refused(t2l("run", SORT, "a", "--checkpoint", tiny_base))


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_input(text: str) -> None:
    assert "the input is empty" in refused(t2l("run", SORT, text))


def test_an_input_without_room_for_an_answer(tiny_checkpoint: Path) -> None:
    result = t2l("run", SORT, "x" * 400, "--checkpoint", tiny_checkpoint)
    assert "exceed the base model's 512: shorten the input" in refused(result)


# ---- the packaged checkpoint


@pytest.mark.skipif(not CHECKPOINT_DIR.is_dir(), reason=f"{CHECKPOINT_DIR} is not trained yet")
def test_both_commands_work_without_any_setting(tmp_path: Path) -> None:
    assert t2l("generate", SORT, LAST, "-o", tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out").iterdir())) == 2
    result = t2l("run", "Sort the words from A to Z.", "pear, fig, apple")
    assert result.exit_code == 0, result.output


@pytest.mark.skipif(not CHECKPOINT_DIR.is_dir(), reason=f"{CHECKPOINT_DIR} is not trained yet")
def test_far_descriptions_are_warned_of(tmp_path: Path) -> None:
    result = t2l("generate", SORT, "qpw [zzk] rrr hhh", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    [line] = result.stderr.splitlines()
    assert line.startswith("warning: 'qpw [zzk] rrr hhh': this is far from what T2L was trained on (nearness 0.")


def test_descriptions_that_would_be_cut_off_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = t2l("generate", "word " * 600, "-o", tmp_path / "out", "--checkpoint", tiny_checkpoint)
    assert refused(result).endswith(" tokens, of which the text encoder reads 505: shorten it")
    assert not (tmp_path / "out").exists()
