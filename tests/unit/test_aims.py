"""What an evaluation sets out to measure, and what it leaves out because it is known."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
import torch

from t2l.checkpoint import read_info
from t2l.cluster import evaluators
from t2l.cluster.aims import Aim, Request, aims_of, base_of
from t2l.cluster.evaluators import Graded, Item, evaluate
from t2l.config import BaseConfig
from t2l.embedded import CHECKPOINT_DIR
from t2l.errors import CheckpointError, ConfigError
from t2l.evaluation.records import ResultFile, TaskScore
from t2l.lora import LoraWeights
from t2l.lora.library import LibraryEntry, Manifest
from t2l.lora.peft_io import save_peft
from t2l.tasks.universe import universe
from t2l.text_to_lora import TextToLora, find_checkpoint
from t2l.train.state import CheckpointStore
from t2l.train.validations import Validation

SUITE = universe(None)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapters of two training tasks, a held-out one and a task of another world."""
    folder = tmp_path_factory.mktemp("some") / "oracles"
    spec = read_info(CHECKPOINT_DIR).spec
    names = [SUITE.train[0].name, SUITE.train[7].name, SUITE.test[3].name, "another/world"]
    entries = tuple(LibraryEntry(name, f"adapters/{i}", 1, 0.0, False, 0.0) for i, name in enumerate(names))
    for entry in entries:
        save_peft(LoraWeights.zeros(spec, 1), 0, folder / entry.folder, "embedded")
    Manifest("embedded", {}, entries).write(folder)
    return folder


def measured(aims: Iterable[Aim]) -> set[tuple[str, str | None]]:
    return {(aim.head.method, aim.head.wording) for aim in aims}


PROMPTS = {
    ("base", None), ("definition", "unseen"), ("definition", "seen"), ("few_shot", None),
    ("few_shot_definition", "unseen"),
}  # fmt: skip
T2L = {("t2l", wording) for wording in ("unseen", "seen", "shuffled", "junk", "static")}


def test_a_checkpoint_is_measured_beside_prompts_on_every_split() -> None:
    aims = aims_of(Request())
    assert measured(aims) == PROMPTS | T2L
    assert {aim.head.split for aim in aims} == {"held_out", "seen", "novel", "new_operations", "free_hand"}
    sizes = {aim.head.split: len(aim.tasks) for aim in aims}
    assert sizes == {"held_out": 120, "seen": 60, "novel": 40, "new_operations": 40, "free_hand": 100}
    assert not any(aim.head.split == "free_hand" and aim.method.shots for aim in aims), "those have no examples"
    head = next(aim.head for aim in aims if aim.head.method == "t2l")
    assert (head.name, head.variant, head.objective, head.condition, head.seed) == (
        "embedded",
        "L",
        "sft",
        "description",
        0,
    )
    assert (head.encoder, head.num_train_tasks, head.rank) == ("llm+reader", len(SUITE.train), 8)
    assert head.hypernet_parameters and head.adapter_parameters and head.training_steps


def test_slow_methods_are_measured_if_wanted(library: Path) -> None:
    request = Request(libraries=(library,), splits=("held_out",))
    usual = {("oracle", None), ("average", None), ("nearest", "unseen")}
    assert measured(aims_of(request)) == PROMPTS | T2L | usual
    slow = Request(libraries=(library,), splits=("held_out",), slow=True)
    assert measured(aims_of(slow)) == PROMPTS | T2L | usual | {("arrow", None), ("refined", "unseen")}
    named = Request(libraries=(library,), splits=("held_out",), methods=("arrow", "base"))
    assert measured(aims_of(named)) == {("arrow", None), ("base", None)}


def test_oracles_are_asked_about_their_own_tasks_only(library: Path) -> None:
    aims = aims_of(Request(libraries=(library,), methods=("oracle", "average"), inputs=3))
    oracles = {aim.head.split: aim for aim in aims if aim.head.method == "oracle"}
    assert {split: aim.tasks for split, aim in oracles.items()} == {
        "held_out": (SUITE.test[3].name,),
        "seen": (SUITE.train[0].name, SUITE.train[7].name),
    }
    assert oracles["seen"].num_questions == len(oracles["seen"].questions(oracles["seen"].tasks)) == 6
    assert {aim.head.name for aim in aims} == {"oracles"}
    assert all(len(aim.tasks) > 1 for aim in aims if aim.head.method == "average"), "one adapter for any task"


def test_what_cannot_be_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no method 'magic': choose from base, definition"):
        aims_of(Request(methods=("magic",)))
    with pytest.raises(ConfigError, match="no split 'heldout': choose from held_out, seen"):
        aims_of(Request(splits=("heldout",)))
    with pytest.raises(ConfigError, match="two sources are called 'embedded'"):
        aims_of(Request(checkpoints=(CHECKPOINT_DIR, CHECKPOINT_DIR)))
    with pytest.raises(CheckpointError, match="is no t2l checkpoint"):
        aims_of(Request(checkpoints=(tmp_path,)))
    other = copy_of_shipped(tmp_path / "other", base={"path": "elsewhere", "dtype": "float32"})
    with pytest.raises(ConfigError, match="of each by themselves"):
        base_of(Request(checkpoints=(CHECKPOINT_DIR, other)))


def test_what_has_nothing_to_measure_is_refused(library: Path, tmp_path: Path) -> None:
    shutil.copytree(library / "adapters" / "0", tmp_path / "mine" / "my-task")
    with pytest.raises(ConfigError, match=r"mine holds adapters of none of the tasks .* such as 'my-task'"):
        aims_of(Request(libraries=(tmp_path / "mine",)))
    with pytest.raises(ConfigError, match="nothing to measure: methods oracle, one_hot; splits held_out"):
        aims_of(Request(methods=("oracle", "one_hot"), splits=("held_out",)))


def copy_of_shipped(folder: Path, **run: object) -> Path:
    """Its config, changed; with weights that nobody reads."""
    about = json.loads((CHECKPOINT_DIR / "config.json").read_text())
    about["run"] |= run
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize(("condition", "method"), [("static", "multitask"), ("input", "hyperdecoder")])
def test_checkpoints_go_by_what_they_were_trained_on(tmp_path: Path, condition: str, method: str) -> None:
    folder = copy_of_shipped(tmp_path / "run", condition=condition)
    aims = [aim for aim in aims_of(Request(checkpoints=(folder,))) if aim.head.name]
    assert measured(aims) == {(method, None)}
    assert {"held_out", "novel"} < {aim.head.split for aim in aims}


def test_a_one_hot_checkpoint_is_asked_about_tasks_that_it_knows(tmp_path: Path) -> None:
    folder = copy_of_shipped(tmp_path / "run", condition="one_hot")
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about | {"names": [task.name for task in SUITE.train[:30]]}))
    aims = [aim for aim in aims_of(Request(checkpoints=(folder,))) if aim.head.name]
    assert [(aim.head.method, aim.head.split, len(aim.tasks)) for aim in aims] == [("one_hot", "seen", 30)]
    assert aims[0].head.encoder == "one_hot"


def test_a_runs_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run", keep=2)
    for step, score in ((5, 0.5), (10, 0.25)):
        store.save(step, {"weight": torch.zeros(1)}, lambda folder, *_: (folder / "config.json").touch())
        store.validations.write(Validation(step, score, {}, 0.1))
    assert find_checkpoint(tmp_path / "run").name == "step-000005"
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-000005")
    assert find_checkpoint(tmp_path / "run").name == "step-000010"
    assert find_checkpoint(CHECKPOINT_DIR) == CHECKPOINT_DIR.absolute()
    with pytest.raises(CheckpointError, match=r"lacks config\.json; it is a run's folder: give one of those in its"):
        read_info(tmp_path / "run")


def test_the_model_itself_takes_a_runs_folder_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def write(folder: Path, *_: object) -> None:
        shutil.copytree(tiny_checkpoint, folder, dirs_exist_ok=True)

    CheckpointStore(tmp_path / "run", keep=2).save(5, {"weight": torch.zeros(1)}, write)
    expected, found = (TextToLora.from_pretrained(place) for place in (tiny_checkpoint, tmp_path / "run"))
    assert found.origin == expected.origin


class Pretended:
    """Grades without a model, last items first, and remembers what it was asked; stops after some items."""

    def __init__(self, until: int = 1000) -> None:
        self.items: list[Item] = []
        self._until = until

    def __call__(self, base: BaseConfig, items: Sequence[Item]) -> Iterator[Graded]:
        for item in list(reversed(items))[: self._until]:
            self.items.append(item)
            yield Graded(item, {name: TaskScore(0.5, {"exact_match": 0.5}, 3) for name in item.tasks}, 1.0)


def test_a_stopped_evaluation_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluators, "_ROWS", 150)  # 50 tasks at a time
    request = Request(splits=("held_out",), methods=("base", "t2l"), inputs=3)
    path, first, second, third = tmp_path / "results.json", Pretended(until=7), Pretended(), Pretended()
    evaluate(request, ResultFile(command="x"), first, path)
    known = ResultFile.read(path)
    assert [record.wording for record in known.records] == ["static", "junk"], "two of six, three items each"
    assert known.records[0].num_questions == 360
    evaluate(request, known, second, path)
    whole = ResultFile.read(path)
    assert len(second.items) == 4 * 3
    assert measured_records(whole) == {("base", None), *T2L}
    order = [task.name for task in SUITE.test]
    assert all(list(record.by_task) == order for record in whole.records), "whatever came first"
    evaluate(request, whole, third, path)
    assert third.items == []
    more = Pretended()
    evaluate(Request(splits=("held_out",), methods=("base",), inputs=4), whole, more)
    assert len(more.items) == 4, "other inputs are another measurement"


def test_other_weights_under_the_same_name_are_measured_anew(tmp_path: Path) -> None:
    folder = copy_of_shipped(tmp_path / "run")
    request = Request(checkpoints=(folder,), splits=("held_out",), methods=("base", "t2l"), inputs=3)
    results = ResultFile(command="x")
    evaluate(request, results, Pretended())
    (folder / "model.safetensors").write_bytes(b"trained further")
    again = Pretended()
    evaluate(request, results, again)
    assert measured(item.aim for item in again.items) == T2L, "the base model is what it was"
    assert measured_records(results) == {("base", None), *T2L} and len(results.records) == 1 + len(T2L)


def test_another_base_model_is_measured_anew(tmp_path: Path) -> None:
    request, results = Request(methods=("base",), splits=("held_out",)), ResultFile(command="x")
    evaluate(request, results, Pretended())
    other = copy_of_shipped(tmp_path / "other", base={"path": "elsewhere", "dtype": "float32"})
    again = Pretended()
    evaluate(Request((other,), methods=("base",), splits=("held_out",)), results, again)
    assert again.items and len(results.records) == 1


def test_a_library_that_has_grown_is_measured_anew(library: Path, tmp_path: Path) -> None:
    grown = shutil.copytree(library, tmp_path / "oracles")
    request, results = Request(libraries=(grown,), splits=("seen",), methods=("average",)), ResultFile(command="x")
    evaluate(request, results, Pretended())
    manifest = Manifest.read(grown)
    Manifest(manifest.base, manifest.settings, manifest.adapters[:3]).write(grown)
    evaluate(request, results, again := Pretended())
    assert again.items and len(results.records) == 1


def measured_records(results: ResultFile) -> set[tuple[str, str | None]]:
    return {(record.method, record.wording) for record in results.records}
