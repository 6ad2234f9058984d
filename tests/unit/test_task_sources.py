"""Tasks from other people's files: read as they are, bad records named, divided the same way everywhere."""

import io
import json
import random
import tarfile
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from t2l.config import NaturalInstructionsConfig, RunConfig, load_config, parse_config
from t2l.config.data import DataConfig
from t2l.data.suite import BUILDERS, build_suite
from t2l.errors import ConfigError, DataError, HubAccessError
from t2l.evaluation.scorers import SCORERS
from t2l.tasks.references import check_reference
from t2l.tasks.sources.descriptions import Described, DescriptionFiles
from t2l.tasks.sources.jsonl import jsonl_suite
from t2l.tasks.sources.lots_of_loras import read_lots_of_loras
from t2l.tasks.sources.natural_instructions import read_natural_instructions
from t2l.tasks.sources.numbered import NumberedTask, hold_out, metric_of, paper_splits, paper_suite
from t2l.tasks.sources.records import Records
from t2l.tasks.task import Example, Metric, Task, TaskSuite

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not here: it is no part of the repository")

SPLITS = paper_splits()
LISTED = (*SPLITS.train, *SPLITS.test, *SPLITS.contaminated)
UNLISTED = ("task002_quoref_answer_generation", "task1687_sentiment140_classification")
EXAMPLES = tuple(Example(f"in {i}", f"out {i}") for i in range(10))


def numbered(names: Sequence[str]) -> list[NumberedTask]:
    return [NumberedTask(name, f"Do {name}.", EXAMPLES[:8], EXAMPLES[8:]) for name in names]


def everything(suite: TaskSuite) -> list[Task]:
    return [task for split in (suite.train, suite.validation, suite.test, *suite.extra.values()) for task in split]


# ---- the paper's split


def test_the_papers_lists() -> None:
    assert [len(SPLITS.train), len(SPLITS.test), len(SPLITS.contaminated)] == [479, 11, 10]
    assert len(set(LISTED)) == 500
    held_out = {"035", "039", "202", "304", "362", "614", "701", "706", "710", "726", "1557"}
    assert {name.split("_")[0][4:] for name in SPLITS.test} == held_out
    contaminated = {"033", "034", "080", "081", "228", "380", "381", "1286", "1389", "1391"}
    assert {name.split("_")[0][4:] for name in SPLITS.contaminated} == contaminated


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from((*LISTED, *UNLISTED)), min_size=30), st.integers(0, 8), st.randoms())
def test_every_task_is_in_one_split_in_one_order(names: set[str], num_validation: int, rng: random.Random) -> None:
    shuffled = rng.sample(sorted(names), len(names))
    if len(names & set(SPLITS.train)) <= num_validation:
        with pytest.raises(DataError, match=rf"num_validation \({num_validation}\)"):
            paper_suite(numbered(shuffled), {}, num_validation)
        return
    suite = paper_suite(numbered(shuffled), {}, num_validation)
    found = [task.name for task in everything(suite)]
    assert sorted(found) == sorted(names - set(SPLITS.contaminated)) and len(found) == len(set(found))
    assert {task.name for task in (*suite.train, *suite.validation)} <= set(SPLITS.train)
    assert {task.name for task in suite.test} <= set(SPLITS.test)
    assert len(suite.validation) == num_validation
    assert suite == paper_suite(numbered(sorted(names)), {}, num_validation), "the order of files has no say"
    assert bool(suite.notes) == bool(names & set(SPLITS.contaminated))


def test_validation_tasks_do_not_depend_on_how_many_train() -> None:
    whole = paper_suite(numbered(LISTED), {}, 8)
    few = paper_suite(numbered(LISTED), {}, 8, num_train_tasks=16)
    assert (len(whole.train), len(few.train)) == (471, 16)
    with pytest.raises(DataError, match=r"there are 479 .* data.num_train_tasks \(472\)"):
        paper_suite(numbered(LISTED), {}, 8, num_train_tasks=472)
    assert few.train == whole.train[:16] and (few.validation, few.test) == (whole.validation, whole.test)


def test_what_is_never_trained_on_is_all_unseen() -> None:
    named = {375: Described(("seen", "seen too"), ("kept",))}
    suite = paper_suite(numbered([*SPLITS.train[:3], "task375_other", SPLITS.test[0], *UNLISTED]), named, 1)
    assert all(task.unseen_descriptions == task.descriptions for task in (*suite.test, *suite.extra["unlisted"][1:]))
    assert not any(task.unseen_descriptions for task in suite.train), "a definition alone cannot be seen and unseen"
    described = next(task for task in everything(suite) if task.name == "task375_other")
    assert described.descriptions == ("seen", "seen too")
    assert described.unseen_descriptions == ("Do task375_other.", "kept"), "the authors' words are no paraphrase"
    sees_it = {375: Described(("do task375_other.",), ("kept",))}
    again = paper_suite(numbered([SPLITS.train[0], "task375_other"]), sees_it, 0)
    assert again.extra["unlisted"][0].unseen_descriptions == ("kept",)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefghijk"), st.text(min_size=1)), min_size=1))
def test_no_input_is_trained_on_and_tested(pairs: list[tuple[str, str]]) -> None:
    examples = [Example(*pair) for pair in pairs]
    train, test = hold_out(examples)
    assert sorted((e.input, e.output) for e in (*train, *test)) == sorted(pairs)
    assert test and not {e.input for e in train} & {e.input for e in test}
    again = hold_out(examples[::-1])
    assert {e.input for e in again[1]} == {e.input for e in test}


def test_metrics() -> None:
    choice = [Example(f"in {i}", "yes" if i % 2 else "no") for i in range(20)]
    assert metric_of(choice) == "exact_match" and metric_of(EXAMPLES) == "rouge_l"
    assert set(typing.get_args(Metric)) == set(SCORERS)


# ---- records


def natural_instructions(folder: Path, name: str, instances: list[Any], **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    content = {"Definition": ["Say it."], "Instances": instances, **fields}
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def good(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"task363-{number}", "input": f"in {number}", "output": [f"out {number}"]} | fields


def test_super_natural_instructions(tmp_path: Path) -> None:
    instances = [good(i) for i in range(10)]
    instances[3] |= {"input": "naïve 日本語", "output": ["", "première", "zweite"]}
    instances[4]["output"] = "plain text"
    folder = natural_instructions(tmp_path / "tasks", "task363_sst2", instances)
    (folder / "README.md").write_text("no task")
    [task] = read_natural_instructions(folder, Records(strict=True))
    assert (task.name, task.number, task.definition) == ("task363_sst2", 363, "Say it.")
    assert (len(task.train), len(task.test)) == (8, 2)
    found = {example.input: example for example in (*task.train, *task.test)}
    assert found["naïve 日本語"].answers == ("première", "zweite")
    assert found["in 4"].answers == ("plain text",)


BAD = [
    (good(1, output=[]), "Instances[1]: the field 'output' holds no answer"),
    (good(1, output=["ok", 3]), "Instances[1]: the field 'output' is 3, not text"),
    (good(1, input=" "), "Instances[1]: the field 'input' is ' ', not text"),
    (good(1, input="\ud83d broken"), "Instances[1]: the field 'input' holds half a character"),
    ({"id": "x", "output": ["a"]}, "Instances[1] lacks the field 'input'"),
    ("text", "Instances[1] is no record"),
]


@pytest.mark.parametrize(("record", "complaint"), BAD)
def test_a_bad_record_is_named_and_left_out(record: Any, complaint: str, tmp_path: Path) -> None:
    folder = natural_instructions(tmp_path / "tasks", "task363_sst2", [good(0), record, *map(good, range(2, 6))])
    lenient = Records()
    [task] = read_natural_instructions(folder, lenient)
    assert len(task.train) + len(task.test) == 5
    assert lenient.notes[0].startswith("1 bad record was left out") and complaint in lenient.notes[0]
    with pytest.raises(DataError) as refused:
        read_natural_instructions(folder, Records(strict=True))
    assert f"{folder / 'task363_sst2.json'}, {complaint}" in str(refused.value)


def test_files_that_are_no_tasks(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no task\*.json"):
        read_natural_instructions(tmp_path, Records())
    broken = tmp_path / "task1_broken.json"
    for content, complaint in (
        ("{", "is no JSON"),
        ("[]", "'Instances' is no list"),
        ('{"Instances": [], "Definition": []}', "'Definition' is"),
        ('{"Instances": [], "Definition": "Do."}', "fewer than 2 good, distinct inputs"),
    ):
        broken.write_text(content)
        with pytest.raises(DataError, match=complaint):
            read_natural_instructions(tmp_path, Records())


# ---- Lots-of-LoRAs

PROMPT = """Definition: Tell the mood,
in one word.

Positive Example 1 -
Input: I won!
Output: joy

Negative Example 1 -
Input: I lost.
Output: joy

Now complete the following example -
Input: {}
Output:
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A --local-dir; what `datasets` makes of it is kept apart from the user's cache."""
    monkeypatch.setenv("T2L_LOCAL_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def lots_of_loras(store: Path, name: str, **splits: list[dict[str, Any]]) -> None:
    from datasets import Dataset

    for split, rows in splits.items():
        path = store / "Lots-of-LoRAs" / name / "data" / f"{split}-00000-of-00001.parquet"
        Dataset.from_list(rows).to_parquet(path)


def test_lots_of_loras(store: Path) -> None:
    def row(number: int, text: str, *answers: str) -> dict[str, Any]:
        return {"id": f"task875-{number}", "input": PROMPT.format(text), "output": list(answers)}

    train = [row(0, "I am sad.\nVery. Input: x", "sadness"), row(1, "Ça va", "joy", "Joy"), row(2, "So", "joy")]
    train[2]["input"] = "Only an input"
    lots_of_loras(store, "task875_emotion", train=train, valid=train[:1], test=[row(3, "Hm", "fear")])
    records = Records()
    [task] = read_lots_of_loras(["task875_emotion"], records)
    assert task.definition == "Tell the mood,\nin one word."
    assert task.train == (Example("I am sad.\nVery. Input: x", "sadness"), Example("Ça va", "joy", ("Joy",)))
    assert task.test == (Example("Hm", "fear"),)
    assert "Lots-of-LoRAs/task875_emotion, train[2]: the field 'input' asks about nothing" in records.notes[0]
    lots_of_loras(store, "task876_leaky", train=[row(0, "Hm", "joy"), row(1, "Oh", "joy")], test=[row(2, "Hm", "joy")])
    [leaky] = read_lots_of_loras(["task876_leaky"], records)
    assert leaky.train == (Example("Oh", "joy"),)
    assert records.notes[1:] == ("training examples left out, as their inputs are tested too: 1 of task876_leaky",)
    lots_of_loras(store, "task1_bare", train=[{"text": "a"}], test=[{"text": "a"}])
    with pytest.raises(DataError, match="task1_bare lacks 'input'"):
        read_lots_of_loras(["task1_bare"], records)
    with pytest.raises(HubAccessError, match="data set 'Lots-of-LoRAs/task2_absent'"):
        read_lots_of_loras(["task2_absent"], records)


# ---- descriptions


def described(count: int, **fields: Any) -> str:
    return yaml.safe_dump({"descriptions": [f"Wording {i}." for i in range(count)], **fields})


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, content in {
        "tasks/lol_363/metadata.yaml": described(200, ds_kwargs={"path": "somewhere"}),
        "tasks/gsm8k/metadata.yaml": described(3),
        "configs/hyper_lora_decontam_lol_tasks.yaml": yaml.safe_dump(
            {"train_ds_names": ["lol_363"], "eval_ds_info": {"lol_363": {"descriptions": ["New é.", "wording 7."]}}}
        ),
        "configs/other.yaml": "{",
    }.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path / "checkout"


def test_descriptions_of_a_checkout_and_of_its_archive(checkout: Path, tmp_path: Path) -> None:
    archive = tmp_path / "checkout.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(checkout, arcname="text-to-lora-main")
    for path in (checkout, archive):
        files = DescriptionFiles(path)
        assert (list(files), files.train_names, files.evaluation_names) == (
            ["gsm8k", "lol_363"],
            ("lol_363",),
            ("lol_363",),
        )
        assert files.metadata("lol_363")["ds_kwargs"] == {"path": "somewhere"}
        task = files["lol_363"]
        assert task.descriptions == tuple(f"Wording {i}." for i in range(168))
        assert task.unseen == ("New é.", *(f"Wording {i}." for i in range(168, 200))), "'wording 7.' is a seen one"
        assert files["gsm8k"] == Described(("Wording 0.", "Wording 1.", "Wording 2."), ())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("descriptions: [", "metadata.yaml is no YAML"),
        ("- 1", "metadata.yaml holds no fields"),
        ("descriptions: all", "the field 'descriptions' is no list of texts"),
        ("descriptions: [a, 3]", r"metadata.yaml, descriptions\[1\] is 3, not text"),
        ("descriptions: []", "the field 'descriptions' holds no text"),
    ],
)
def test_bad_descriptions_are_named(content: str, complaint: str, checkout: Path) -> None:
    (checkout / "tasks/lol_363/metadata.yaml").write_text(content)
    with pytest.raises(DataError, match=complaint):
        DescriptionFiles(checkout, Records(strict=True))["lol_363"]


def test_files_without_descriptions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        DescriptionFiles(tmp_path / "absent.tar.gz")
    with pytest.raises(DataError, match=r"holds no tasks/\*/metadata.yaml"):
        DescriptionFiles(tmp_path)
    cut = tmp_path / "cut.tar.gz"
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as packed:
        member = tarfile.TarInfo("tasks/a/metadata.yaml")
        member.size = 9999
        packed.addfile(member, io.BytesIO(random.Random(0).randbytes(member.size)))
    cut.write_bytes(whole.getvalue()[:5000])
    with pytest.raises(DataError, match=r"is no whole .tar.gz"):
        DescriptionFiles(cut)


@shared
def test_all_of_upstreams_descriptions() -> None:
    """Must show 3: all files parse, the list resolves."""
    files = DescriptionFiles(SHARED / "t2l_task_descriptions.tar.gz", Records(strict=True))
    assert (len(files), len(files.train_names), len(files.evaluation_names)) == (511, 479, 31)
    all_of_them = {name: files[name] for name in files}
    assert {len(one.descriptions) for one in all_of_them.values()} == {167, 168}
    assert {len(one.unseen) for one in all_of_them.values()} == {32, 35}
    data_sets = {name: files.metadata(name)["ds_kwargs"]["path"] for name in files.train_names}
    assert sorted(data_sets.values()) == sorted(f"Lots-of-LoRAs/{name}" for name in SPLITS.train)


@shared
def test_the_fifteen_real_tasks() -> None:
    files = (
        f"data.path={SHARED}/super_natural_instructions",
        f"data.descriptions={SHARED}/t2l_task_descriptions.tar.gz",
    )
    suite = build_suite(load_config(ROOT / "jobs/configs/natural_instructions.yaml", files).data)
    assert [len(split) for split in (suite.train, suite.validation, suite.test)] == [5, 2, 0]
    assert len(suite.extra["unlisted"]) == 8
    real = [*suite.train, *suite.validation]
    assert all(len(task.descriptions) == 128 and len(task.unseen_descriptions) == 33 for task in real)
    assert all(task.unseen_descriptions for task in everything(suite))
    assert sum(len(task.train) + len(task.test) for task in everything(suite)) == 4624, "of 4,625, of which one is bad"
    assert "task511_reddit_tifu_long_text_summarization.json, Instances[79]" in suite.notes[0]
    choices = {task.name.split("_")[0] for task in everything(suite) if task.metric == "exact_match"}
    assert choices == {"task073", "task363", "task875", "task1687"}


# ---- a user's own files


def own_task(folder: Path, name: str, about: str, train: str | None = "a b", test: str | None = "c") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "task.yaml").write_text(about, encoding="utf-8")
    for split, inputs in (("train", train), ("test", test)):
        if inputs is not None:
            lines = [json.dumps({"input": text, "output": [text.upper(), "x"]}) for text in inputs.split()]
            (folder / name / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")


def test_own_tasks(tmp_path: Path) -> None:
    own_task(tmp_path, "zeta", "descriptions: [Shout.]\nmetric: rouge_l\nunseen_descriptions: [Schrei!]")
    own_task(tmp_path, "alpha", "split: train")
    (tmp_path / "alpha" / "descriptions.txt").write_text("Say it loud.\n\nLouder. \n")
    own_task(tmp_path, "valid", "descriptions: [Check.]\nsplit: validation")
    own_task(tmp_path, "held", "descriptions: [Never seen.]\nsplit: test", train=None)
    suite = jsonl_suite(tmp_path, Records(strict=True))
    alpha, zeta = suite.train
    assert (alpha.name, alpha.descriptions, alpha.unseen_descriptions) == ("alpha", ("Say it loud.", "Louder."), ())
    assert (zeta.name, zeta.metric, zeta.unseen_descriptions) == ("zeta", "rouge_l", ("Schrei!",))
    assert zeta.train == (Example("a", "A", ("x",)), Example("b", "B", ("x",)))
    [held] = suite.test
    assert held.train == () and held.unseen_descriptions == ("Never seen.",)
    assert [task.name for task in suite.validation] == ["valid"]


@pytest.mark.parametrize(
    ("about", "complaint"),
    [
        ("descriptions: [a\n", "task.yaml is no YAML"),
        ("descriptions: [' ']", "the field 'descriptions.0' is ' '"),
        ("metric: exact_match", "the field 'descriptions' is empty"),
        ("descriptions: [a]\nmetric: bleu", "the field 'metric' is 'bleu'"),
        ("descriptions: [a]\nsplits: test", "the field 'splits' is 'test'"),
    ],
)
def test_bad_task_files_are_named(about: str, complaint: str, tmp_path: Path) -> None:
    own_task(tmp_path, "one", about)
    with pytest.raises(DataError, match=complaint):
        jsonl_suite(tmp_path, Records())


def test_own_records_are_skipped_or_refused(tmp_path: Path) -> None:
    own_task(tmp_path, "one", "descriptions: [Shout.]")
    with (tmp_path / "one" / "train.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"input": "a\u2028b", "output": "one line"}\n{"input": 3, "output": "x"}\n{\n')
    data = {"suite": "jsonl", "path": str(tmp_path)}
    suite = build_suite(parse_config({"data": data}).data)
    assert [example.input for example in suite.train[0].train] == ["a", "b", "a\u2028b"]
    assert suite.notes == (
        f"2 bad records were left out, the first: {tmp_path}/one/train.jsonl, line 4: the field 'input' is 3, not text",
    )
    with pytest.raises(DataError, match=r"train.jsonl, line 4: the field 'input' is 3"):
        build_suite(parse_config({"data": data | {"strict": True}}).data)
    (tmp_path / "one" / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"test.jsonl does not exist"):
        jsonl_suite(tmp_path, Records())


def test_answers_that_the_metric_cannot_grade_by_are_bad_records(tmp_path: Path) -> None:
    """Found before anything is trained; of several right answers each is a reference."""
    own_task(tmp_path, "one", "descriptions: [Choose.]\nmetric: choice", train="c d", test="a b")
    test = tmp_path / "one" / "test.jsonl"
    test.write_text('{"input": "a", "output": ["(B)", "2"]}\n{"input": "b", "output": ["A", "yes"]}\n')
    complaint = f"{test}, line 2: the metric 'choice' cannot grade by the field 'output': the reference of a choice is"
    suite = jsonl_suite(tmp_path, Records())
    assert [example.input for example in suite.train[0].test] == ["a"] and len(suite.train[0].train) == 2
    assert suite.notes[0].startswith(f"1 bad record was left out, the first: {complaint} 'yes'")
    with pytest.raises(DataError, match="line 2: the metric 'choice' cannot grade"):
        jsonl_suite(tmp_path, Records(strict=True))
    test.write_text('{"input": "b", "output": "yes"}\n')
    with pytest.raises(DataError, match="line 1: the metric 'choice' cannot grade"):
        jsonl_suite(tmp_path, Records())


@pytest.mark.parametrize(
    ("metric", "good", "bad"),
    [
        ("choice", "(b)", "yes"),
        ("true_false", "True", "yes"),
        ("number", "It is 1,000.", "many"),
        ("pass_at_1", "assert f()", "import f\n# <answer>\n"),
    ],
)
def test_references_are_refused_as_the_scorers_refuse_them(metric: str, good: str, bad: str) -> None:
    check_reference(metric, good)
    for refuse in (check_reference, lambda metric, reference: SCORERS[metric]("", reference)):
        with pytest.raises(DataError, match="the reference"):
            refuse(metric, bad)
    check_reference("exact_match", bad)


def test_what_is_tested_is_neither_trained_on_nor_seen(tmp_path: Path) -> None:
    about = "descriptions: [Shout it.]\nunseen_descriptions: [shout it., Louder.]"
    own_task(tmp_path, "one", about, train="a b c", test="b c d")
    own_task(tmp_path, "two", "descriptions: [Shout.]", train="a b", test="c")
    suite = jsonl_suite(tmp_path, Records(strict=True))
    one, two = suite.train
    assert [example.input for example in one.train] == ["a"] and len(two.train) == 2 and len(one.test) == 3
    assert one.unseen_descriptions == ("Louder.",)
    assert suite.notes == (
        "unseen descriptions left out, as they are among the seen ones: 1 of one",
        "training examples left out, as their inputs are tested too: 2 of one",
    )
    own_task(tmp_path, "three", "descriptions: [Shout.]", train="c c", test="c")
    with pytest.raises(DataError, match="all training inputs of the task 'three' are also tested"):
        jsonl_suite(tmp_path, Records())


def test_notes_about_many_tasks_stay_short() -> None:
    records = Records()
    for number in range(9):
        records.leave_out("left out", f"t{number}", number)
    assert records.notes == ("left out: 8 of t8, 7 of t7, 6 of t6, 5 of t5, 4 of t4, 6 of 3 others",)


def test_descriptions_that_are_no_utf8_are_named(tmp_path: Path) -> None:
    own_task(tmp_path, "one", "descriptions: [Shout.]")
    (tmp_path / "one" / "descriptions.txt").write_bytes("Größer!".encode("latin-1"))
    with pytest.raises(DataError, match=r"one/descriptions.txt is no UTF-8 text: save it as UTF-8"):
        jsonl_suite(tmp_path, Records())


# ---- settings


def test_each_suite_has_settings_and_a_builder() -> None:
    def leaves(settings: type[DataConfig]) -> set[type[DataConfig]]:
        return {settings}.union(*map(leaves, settings.__subclasses__()))

    known = {one.model_fields["suite"].default for one in leaves(DataConfig) if "suite" in one.model_fields}
    assert known == set(BUILDERS)


def test_settings_of_another_suite_are_refused_by_name() -> None:
    for data, complaint in (
        ({"suite": "nope"}, "'data.suite' is 'nope': choose from universe, sub_universe"),
        ({"suite": "jsonl"}, "'data.path' is missing"),
        ({"picks": ["first"]}, "'data.picks' is no setting of suite 'universe': set data.suite"),
        ({"suite": "jsonl", "path": "x", "strikt": True}, "did you mean 'data.strict'"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            parse_config({"data": data})


def test_paths_mean_the_same_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = parse_config({"data": {"suite": "natural_instructions", "path": "tasks"}})
    assert isinstance(run.data, NaturalInstructionsConfig) and run.data.path == str(tmp_path / "tasks")
    monkeypatch.chdir("/")
    assert RunConfig.model_validate_json(run.model_dump_json()) == run


@pytest.mark.parametrize(
    ("limits", "positions", "expected"),
    [
        ((512, 512), None, (512, 512)),
        ((384, 96), 512, (384, 96)),
        ((512, 512), 512, (256, 256)),
        ((900, 8), 64, (56, 8)),
    ],
)
def test_limits_stay_within_the_base_models_positions(
    limits: tuple[int, int], positions: int | None, expected: tuple[int, int]
) -> None:
    data = DataConfig(max_prompt_tokens=limits[0], max_response_tokens=limits[1]).within(positions)
    assert (data.max_prompt_tokens, data.max_response_tokens) == expected
