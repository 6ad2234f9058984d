"""The ten benchmarks from files of their hub schemas: what is asked, what is shown, what is right."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from benchmark_records import TEST, TRAIN
from tiny import tiny_llama, tiny_tokenizer

from t2l.cluster.aims import Request, aims_of
from t2l.config import BenchmarksConfig, DataConfig
from t2l.data.suite import build_suite
from t2l.errors import ConfigError, DataError, HubAccessError
from t2l.evaluation.answer_process import ANSWER_LINE
from t2l.evaluation.decode import Unadapted
from t2l.evaluation.methods import METHODS
from t2l.evaluation.pass_at_1 import pass_at_1
from t2l.evaluation.questions import Question, num_questions, questions
from t2l.evaluation.scorers import SCORERS
from t2l.evaluation.suite import Evaluation
from t2l.hub import LOCAL_DIR
from t2l.tasks.benchmarks import rows
from t2l.tasks.benchmarks.load import download
from t2l.tasks.benchmarks.rows import READERS, Row
from t2l.tasks.benchmarks.suite import Benchmark, benchmarks
from t2l.tasks.task import Example, Task
from t2l.text.prompts import PromptFormat

UPSTREAM = Path(__file__).parents[3] / "shared/data/t2l_task_descriptions.tar.gz"
GSM8K = Path(__file__).parents[3] / "shared/data/gsm8k"
CHAT = PromptFormat("<user>", "<model>", "<end><user>", "<model>", "<end>")
NAMES = tuple(benchmarks())


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a benchmark."""
    root = tmp_path_factory.mktemp("benchmarks")
    for name, benchmark in benchmarks().items():
        write_jsonl(root / name / f"{benchmark.test}.jsonl", TEST[name])
        if benchmark.train:
            write_jsonl(root / name / f"{benchmark.train}.jsonl", TRAIN[name])
    return root


@pytest.fixture(scope="module")
def tasks(folder: Path) -> dict[str, Task]:
    return {task.name: task for task in build_suite(BenchmarksConfig(path=str(folder), strict=True)).test}


def ask(tasks: dict[str, Task], method: str, wording: str | None, name: str) -> list[Question]:
    return questions(METHODS[method], wording, tuple(tasks.values()), 100, {name}, run_code=True)


def prompt(question: Question) -> str:
    return CHAT.prompt(question.input, question.definition, question.shots) + question.prefill


# ---- what is asked

GOLDEN = {
    "arc_challenge": "<user>Which of the choices answers this question?\n\nWhich warms a room?\n\nA: a hot stove\n"
    "B: a cold window\nC: a dark cave\nD: a quiet room\n\nReply with the label of the right choice alone, without any "
    "explanation.<model>",
    "boolq": "<user>A whale is a mammal that swims.\n\nQuestion: can a whale fly?\n\nReply with `true` or `false` "
    "alone, without any explanation.<model>",
    "gsm8k": "<user>Please solve this problem: Tom reads 1,000 pages twice.<model>Let's think step by step.",
    "hellaswag": "<user>How does this passage go on? One of the four endings, which are numbered from 0, is the "
    "right one.\n\nPassage: A man sits in a boat. he\n\n0: eats it.\n1: bakes.\n2: rows {fast}.\n3: is a lake.\n\n"
    "Reply with the number of the right ending alone (0, 1, 2 or 3), without any explanation.<model>",
    "piqa": "<user>Which of two options answers the question, completes the sentence or reaches the goal?\nThink of "
    "the properties of the things involved. If both are right, take the handier or commoner one.\n\nDry a plate.\n\n"
    "0: Use a towel.\n1: Use a spoon.\n\nReply with `0` or `1` alone, without any "
    "explanation.<model>",
    "winogrande": "<user>In this sentence, _ stands for one of two things:\n\nThe cup is not in the box because the _ "
    "is too big.\n\nWhich one is it?\n\nOption 1: box\nOption 2: cup\n\nReply with `1` or `2` alone, without any "
    "explanation.<model>",
    "humaneval": "<user>Write Python that solves this problem:\n```python\nfrom typing import List\n\n\ndef evens(xs: "
    'List[int]) -> List[int]:\n    """The even ones.\n    >>> evens([1, 2])\n    [2]\n    """\n```<model>```python\n'
    'from typing import List\n\n\ndef evens(xs: List[int]) -> List[int]:\n    """The even ones.\n'
    '    >>> evens([1, 2])\n    [2]\n    """',
    "mbpp": "<user>Solve this problem in Python.\n\nWrite a function to find the area of a circle.\n\nYour code shall "
    "satisfy these assertions:\n```python\nassert area(0) == 0\nassert math.isclose(area(2), 4 * math.pi)\n```<model>"
    "```python\n",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_prompts(tasks: dict[str, Task], name: str) -> None:
    assert prompt(ask(tasks, "base", None, name)[0]) == GOLDEN[name]


def test_the_ten_with_their_metrics_and_limits(tasks: dict[str, Task]) -> None:
    metrics = dict.fromkeys(("arc_challenge", "arc_easy", "hellaswag", "openbookqa", "piqa", "winogrande"), "choice")
    metrics |= {"boolq": "true_false", "gsm8k": "number", "humaneval": "pass_at_1", "mbpp": "pass_at_1"}
    assert {name: task.metric for name, task in tasks.items()} == metrics
    assert {task.max_new_tokens for task in tasks.values()} == {512}
    for task in tasks.values():
        assert len(task.unseen_descriptions) == len(set(task.unseen_descriptions)) == 3


def test_each_input_is_asked_under_each_of_three_descriptions(tasks: dict[str, Task]) -> None:
    for name, task in tasks.items():
        for method, wording in (("t2l", "unseen"), ("t2l", "junk"), ("t2l", "shuffled"), ("definition", "unseen")):
            asked = ask(tasks, method, wording, name)
            texts = [question.key or question.definition or "" for question in asked]
            assert len(asked) == num_questions(wording, task, 100) == 3 * len(task.test)
            assert len(set(texts[:3])) == 3 and texts[:3] == texts[-3:]
            own = set(task.unseen_descriptions)
            assert not own & set(texts) if wording in ("junk", "shuffled") else own == set(texts)
        for method, wording in (("base", None), ("t2l", "static"), ("few_shot", None)):
            assert len(ask(tasks, method, wording, name)) == num_questions(wording, task, 100) == len(task.test)


@pytest.mark.parametrize("name", NAMES)
def test_three_worked_examples_stand_in_the_prompt(tasks: dict[str, Task], name: str) -> None:
    """Upstream made them for GSM8K, and then sent the prompt without; it had none for HumanEval."""
    question, task = ask(tasks, "few_shot", None, name)[0], tasks[name]
    turns = [turn.split("<model>") for turn in prompt(question).removeprefix("<user>").split("<end><user>")]
    assert len(turns) == 4 and turns[3] == [question.input.strip(), question.prefill]
    shown = {example.input.strip(): example.output for example in task.train}
    assert [shown[text] for text, _ in turns[:3]] == [answer for _, answer in turns[:3]]
    prefill = "```python" if task.metric == "pass_at_1" else question.prefill
    assert all(answer.startswith(prefill) and answer != prefill for _, answer in turns[:3]), "begun as the answer is"


def test_humanevals_own_examples_are_right() -> None:
    assert rows.ANSWER_LINE == ANSWER_LINE, "tasks do not import evaluation"
    entry = benchmarks()["humaneval"]
    for record in entry.shots:
        item = READERS[entry.reader](Row(record, "shot"))
        assert pass_at_1(item.output, item.reference) == 1
        assert pass_at_1(item.output.replace("return ", "return not "), item.reference) == 0


# ---- what is right


def _right(name: str, benchmark: Benchmark) -> list[str]:
    """A right answer to each test record, as training would show it."""
    return [READERS[benchmark.reader](Row(record, "here")).output for record in TEST[name]]


WRONG = {
    "true_false": "perhaps",
    "number": "#### 7",
    "choice": "(F)",
    "pass_at_1": "```python\ndef f():\n    pass\n```",
}


@pytest.mark.parametrize("name", NAMES)
def test_right_answers_score_and_wrong_ones_do_not(tasks: dict[str, Task], name: str) -> None:
    asked = ask(tasks, "base", None, name)
    for question, right in zip(asked, _right(name, benchmarks()[name]), strict=True):
        assert right.startswith(question.prefill)
        assert question.score(right, question.metric) == 1
        assert question.score(f"{right}\n\nI hope that this helps.", question.metric) == 1
        assert question.score(question.prefill + WRONG[question.metric], question.metric) == 0
        assert question.score(question.prefill, question.metric) == 0


def test_every_other_label_is_wrong(tasks: dict[str, Task]) -> None:
    for name in ("arc_challenge", "hellaswag", "piqa", "winogrande", "boolq"):
        for question in ask(tasks, "base", None, name):
            given = "ABCDE0123" if question.metric == "choice" else ("true", "false")
            assert [text for text in given if SCORERS[question.metric](text, question.answer)] == [question.answer]


def test_a_model_answers_and_is_graded(tasks: dict[str, Task]) -> None:
    """End to end; a random model is wrong. Its answers begin as they were begun for it."""
    model = tiny_llama().eval()
    model.config.max_position_embeddings = 4096
    evaluation = Evaluation(Unadapted(model), tiny_tokenizer(), None, BenchmarksConfig())
    few = {name: replace(task, max_new_tokens=4) for name, task in tasks.items() if name in ("gsm8k", "mbpp", "boolq")}
    asked = [question for name in few for question in ask(few, "few_shot_definition", "unseen", name)]
    answers = evaluation.answer(asked)
    assert all(answer.startswith(question.prefill.strip()) for question, answer in zip(asked, answers, strict=True))
    graded = evaluation.grade(asked)
    assert {name: (score.own, score.num_questions) for name, score in graded.items()} == {
        "boolq": (0, 6),
        "gsm8k": (0, 3),
        "mbpp": (0, 3),
    }
    assert set(graded["mbpp"].by_scorer) == {"pass_at_1"}, "code has no reference text to compare with"


def test_definitions_and_examples_come_on_top_of_what_training_prompts_may_have(tasks: dict[str, Task]) -> None:
    model = tiny_llama().eval()
    model.config.max_position_embeddings = 4096
    widths: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    evaluation = Evaluation(Unadapted(model), tiny_tokenizer(), None, BenchmarksConfig(max_prompt_tokens=50))
    task = {"boolq": replace(tasks["boolq"], max_new_tokens=1)}
    evaluation.answer(ask(task, "base", None, "boolq"))
    assert max(widths) == 50
    evaluation.answer(ask(task, "few_shot_definition", "unseen", "boolq"))
    assert max(widths) > 200


def test_an_answer_has_room_for_the_longest_of_several_right_ones() -> None:
    model = tiny_llama().eval()
    evaluation = Evaluation(Unadapted(model), tiny_tokenizer(), None, DataConfig())
    [short] = questions(METHODS["base"], None, [Task("one", ("Name it.",), (), (), (Example("a", "b"),))], 1)
    [several] = questions(
        METHODS["base"], None, [Task("two", ("Name it.",), (), (), (Example("a", "b", ("b" * 9,)),))], 1
    )
    alone, both = evaluation._limits([short, several])
    assert both == alone + 8


# ---- evaluations


def test_other_prompts_of_the_benchmarks_are_measured_anew(folder: Path) -> None:
    names = ("boolq", "piqa")
    own = BenchmarksConfig(path=str(folder), names=names)
    request = Request(splits=("benchmarks",), methods=("base",), benchmarks=own)
    other = replace(request, benchmarks=BenchmarksConfig(path=str(folder), names=names, max_prompt_tokens=50))
    [first], [again], [changed] = map(aims_of, (request, request, other))
    assert first.source_sha256 == again.source_sha256 != changed.source_sha256


def test_code_is_not_run_unless_that_is_asked_for(folder: Path, tasks: dict[str, Task]) -> None:
    with pytest.raises(ConfigError, match=r"grading mbpp runs code that a model has written: allow that \(--run-code"):
        questions(METHODS["base"], None, [tasks["mbpp"], tasks["boolq"]], 1)
    request = Request(splits=("benchmarks",), methods=("base", "t2l"), benchmarks=BenchmarksConfig(path=str(folder)))
    with pytest.raises(ConfigError, match="grading humaneval and mbpp runs code"):
        aims_of(request)
    absent = BenchmarksConfig(path=str(folder / "absent"))
    with pytest.raises(ConfigError, match="grading humaneval and mbpp runs code"):  # before any file is read
        aims_of(replace(request, benchmarks=absent))
    assert aims_of(replace(request, run_code=True))
    others = [name for name in NAMES if name not in ("humaneval", "mbpp")]
    assert aims_of(replace(request, benchmarks=BenchmarksConfig(path=str(folder), names=tuple(others))))


def test_benchmarks_are_a_split_of_any_checkpoints_evaluation(folder: Path) -> None:
    config = BenchmarksConfig(path=str(folder), names=("boolq", "piqa"))
    aims = aims_of(Request(splits=("benchmarks",), benchmarks=config, inputs=1))
    found = {(aim.head.method, aim.head.wording): aim.num_questions for aim in aims}
    assert found["base", None] == found["few_shot", None] == found["t2l", "static"] == 2
    assert found["t2l", "unseen"] == found["t2l", "shuffled"] == found["definition", "unseen"] == 6
    for aim in aims:
        assert len(aim.questions(aim.tasks)) == aim.num_questions
        assert aim.data.max_prompt_tokens == 3584, "three examples are not cut off"
        assert aim.scope.data.suite == "universe"


# ---- where they come from


@pytest.mark.skipif(not UPSTREAM.exists(), reason="../shared/data is absent")
def test_the_papers_own_prompts_and_descriptions(folder: Path) -> None:
    config = BenchmarksConfig(path=str(folder), descriptions=str(UPSTREAM), strict=True)
    tasks = {task.name: task for task in build_suite(config).test}
    own = {task.name: task for task in build_suite(BenchmarksConfig(path=str(folder), strict=True)).test}
    for name, task in tasks.items():
        assert len(task.unseen_descriptions) == 3 and not set(task.unseen_descriptions) & set(task.descriptions)
        assert task.unseen_descriptions != own[name].unseen_descriptions
        assert [example.output for example in task.test] == [example.output for example in own[name].test]
        assert task.test[0].input != own[name].test[0].input
    assert "3: N/A" not in tasks["arc_easy"].test[0].input and "D: N/A" in tasks["arc_easy"].test[0].input
    assert "4: N/A" in tasks["arc_challenge"].test[1].input


@pytest.mark.skipif(not GSM8K.exists(), reason="../shared/data is absent")
def test_the_real_gsm8k(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").symlink_to(GSM8K)
    [task] = build_suite(BenchmarksConfig(path=str(tmp_path), names=("gsm8k",), strict=True)).test
    assert (len(task.train), len(task.test)) == (1000, 1319)
    asked = questions(METHODS["few_shot"], None, [task], 1319)
    assert all(len(question.shots) == 3 for question in asked)
    assert all(question.score(f"{question.prefill} {question.answer}", "number") == 1 for question in asked)


def test_a_copy_of_a_hub_folder_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `hf download` writes it, parquet in a folder a configuration, below --local-dir."""
    repository = tmp_path / "allenai" / "ai2_arc"
    for config, records in (("ARC-Easy", TEST["arc_easy"]), ("ARC-Challenge", TEST["arc_challenge"])):
        (repository / config).mkdir(parents=True)
        for split in ("train", "test"):
            rows = pyarrow.Table.from_pylist(TRAIN["arc_easy"] if split == "train" else records)
            pyarrow.parquet.write_table(rows, repository / config / f"{split}-00000-of-00001.parquet")
    monkeypatch.setenv(LOCAL_DIR, str(tmp_path))
    easy, challenge = build_suite(BenchmarksConfig(names=("arc_easy", "arc_challenge"), strict=True)).test
    assert [len(task.test) for task in (easy, challenge)] == [1, 3]
    assert [example.output for example in challenge.test] == ["A", "1", "E"]
    assert len(easy.train) == 4


def test_another_configurations_records_are_no_substitute(tmp_path: Path) -> None:
    folder = tmp_path / "arc_challenge"
    config = BenchmarksConfig(path=str(tmp_path), names=("arc_challenge",), strict=True)
    for split, records in (("train", TRAIN["arc_easy"]), ("test", TEST["arc_easy"])):
        write_jsonl(folder / "ARC-Easy" / f"{split}.jsonl", records)
        write_jsonl(folder / f"{split}.jsonl", records)
    with pytest.raises(DataError, match="arc_challenge lacks the folder 'ARC-Challenge', though it has ARC-Easy: copy"):
        build_suite(config)
    for split in ("train", "test"):
        write_jsonl(folder / "ARC-Challenge" / f"{split}.jsonl", TEST["arc_challenge"])
    assert len(build_suite(config).test[0].test) == 3


@pytest.mark.parametrize("layout", ["{}.jsonl", "data/{}-0.jsonl", "{}/0.jsonl"])
def test_a_folder_without_configurations_is_what_is_wanted(layout: str, tmp_path: Path) -> None:
    for split, records in (("train", TRAIN["arc_easy"]), ("test", TEST["arc_easy"])):
        write_jsonl(tmp_path / "arc_easy" / layout.format(split), records)
    [task] = build_suite(BenchmarksConfig(path=str(tmp_path), names=("arc_easy",), strict=True)).test
    assert (len(task.train), len(task.test)) == (4, 1)


def test_a_split_in_two_formats_is_refused(tmp_path: Path) -> None:
    for split, records in (("train", TRAIN["boolq"]), ("validation", TEST["boolq"])):
        write_jsonl(tmp_path / "boolq" / f"{split}.jsonl", records)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TEST["boolq"]), tmp_path / "boolq" / "validation.parquet")
    with pytest.raises(DataError, match=r"'validation' twice, validation.jsonl and validation.parquet: keep one"):
        build_suite(BenchmarksConfig(path=str(tmp_path), names=("boolq",)))


def test_data_sets_of_the_hub_are_read_alike(tmp_path: Path) -> None:
    """By `datasets`, from a repository with configurations; no hub is at hand, so it lies in a folder."""
    (tmp_path / "ARC-Easy").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(TEST["arc_easy"]), tmp_path / "ARC-Easy" / "test-0.parquet")
    configs = "configs:\n- config_name: ARC-Easy\n  data_files:\n  - split: test\n    path: ARC-Easy/test-*\n"
    (tmp_path / "README.md").write_text(f"---\n{configs}---\n")
    assert list(download(str(tmp_path), "ARC-Easy", "test", None)) == TEST["arc_easy"]
    with pytest.raises(HubAccessError, match=r"cannot be loaded .*'ARC-Hard' not found"):
        download(str(tmp_path), "ARC-Hard", "test", None)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("boolq", {"passage": None}, r"validation.jsonl, line 2 lacks the field 'passage'"),
        ("boolq", {"answer": "maybe"}, r"line 2: the field 'answer' is 'maybe', not one of True, False"),
        ("piqa", {"label": -1}, r"line 2: the field 'label' is -1, not one of 0, 1"),  # as in hidden test splits
        ("hellaswag", {"label": ""}, r"the field 'label' is '', not one of 0, 1, 2, 3"),
        ("arc_easy", {"answerKey": "E"}, r"the field 'answerKey' is 'E', not one of A, B"),
        (
            "arc_easy",
            {"choices": {"text": ["a"], "label": []}},
            r"the field 'choices' is .* not as many labels as texts",
        ),
        ("gsm8k", {"answer": "It is 7."}, r"the field 'answer' is 'It is 7.', not a solution that ends in ####"),
        ("winogrande", {"sentence": 7}, r"the field 'sentence' is 7, not text"),
        ("mbpp", {"test_list": []}, r"the field 'test_list' is \[\], not a list of tests"),
    ],
)
def test_a_bad_record_names_file_line_and_field(
    tmp_path: Path, name: str, change: dict[str, Any], problem: str
) -> None:
    split, good = benchmarks()[name].test, TEST[name][0]
    write_jsonl(tmp_path / name / f"{split}.jsonl", [good, good | change])
    write_jsonl(tmp_path / name / "train.jsonl", TRAIN[name])
    with pytest.raises(DataError, match=problem):
        build_suite(BenchmarksConfig(path=str(tmp_path), names=(name,), strict=True))
    suite = build_suite(BenchmarksConfig(path=str(tmp_path), names=(name,)))
    assert len(suite.test[0].test) == 1
    assert "1 bad record was left out" in suite.notes[0]


def test_a_line_that_is_no_json_is_one_bad_record(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "boolq" / "train.jsonl", TRAIN["boolq"])
    broken = tmp_path / "boolq" / "validation.jsonl"
    broken.write_text(f"{{'no': json\n[1]\n{json.dumps(TEST['boolq'][0])}\n")
    suite = build_suite(BenchmarksConfig(path=str(tmp_path), names=("boolq",)))
    assert len(suite.test[0].test) == 1 and f"{broken}, line 1 is no JSON" in suite.notes[0]
    with pytest.raises(DataError, match="line 1 is no JSON"):
        build_suite(BenchmarksConfig(path=str(tmp_path), names=("boolq",), strict=True))


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no benchmark 'mmlu': choose from arc_challenge, arc_easy, boolq"):
        build_suite(BenchmarksConfig(names=("mmlu",)))
    with pytest.raises(DataError, match=r"piqa holds no file of the split 'validation': give validation.jsonl or"):
        build_suite(BenchmarksConfig(path=str(tmp_path), names=("piqa",)))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubAccessError, match="the data set 'ybisk/piqa' is not in the hub's cache"):
        build_suite(BenchmarksConfig(names=("piqa",)))
