"""A library of adapters: ours with a manifest, anybody's without one, and what is wrong with some."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from t2l.cluster.oracles import LibraryJob, check_examples, examples_digest, open_manifest, room_for_workers, trainable
from t2l.config import load_config
from t2l.errors import CheckpointError, ConfigError, DataError, ResourceError, SpecMismatchError
from t2l.lora.library import MANIFEST_FILE, Library, LibraryEntry, Manifest
from t2l.lora.peft_io import WEIGHTS_FILE, save_peft
from t2l.lora.spec import LoraSpec, TargetModule
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Example, Task
from t2l.tasks.universe import universe
from t2l.train.lora_settings import OracleTraining

Q, V = TargetModule("q_proj", "self_attn.q_proj", 6, 4), TargetModule("v_proj", "self_attn.v_proj", 6, 2)
SPEC = LoraSpec((Q, V), num_layers=2, layers_path="model.layers", rank=3, alpha=8.0)
TASKS = ("words/first/plain", "words/last/plain")


def random_adapter(seed: int, spec: LoraSpec = SPEC) -> LoraWeights:
    generator = torch.Generator().manual_seed(seed)
    return LoraWeights.zeros(spec, 1).map(lambda tensor: torch.randn(tensor.shape, generator=generator))


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    entries = []
    for seed, task in enumerate(TASKS):
        folder = f"adapters/{task.replace('/', '-')}"
        save_peft(random_adapter(seed), 0, tmp_path / folder, "base")
        entries.append(LibraryEntry(task, folder, 100, 0.5, True, 1.0))
    Manifest("base", {"steps": 100}, tuple(entries)).write(tmp_path)
    return tmp_path


def test_weights_come_in_the_order_asked(ours: Path) -> None:
    library = Library.open(ours)
    assert library.tasks == TASKS
    weights = library.weights(TASKS[::-1])
    for index, seed in enumerate((1, 0)):
        for found, saved in zip(weights.select([index]).tensors(), random_adapter(seed).tensors(), strict=True):
            assert torch.equal(found, saved)
    assert weights.dtype == torch.float32
    assert Manifest.read(ours).adapters[0].validation_loss == 0.5


def test_modules_are_aligned_to_a_spec(ours: Path) -> None:
    swapped = replace(SPEC, modules=(V, Q))
    weights = Library.open(ours).weights(TASKS, swapped)
    assert weights.spec == swapped
    assert torch.equal(weights.A["q_proj"][1], random_adapter(1).A["q_proj"][0])


def test_anybodys_folder_of_peft_folders(tmp_path: Path) -> None:
    """The second was saved with its modules in another order."""
    for seed, (name, modules) in enumerate({"b": (Q, V), "a": (V, Q)}.items()):
        save_peft(
            random_adapter(seed, replace(SPEC, modules=modules)).to(dtype=torch.bfloat16), 0, tmp_path / name, "x"
        )
    (tmp_path / "notes").mkdir()
    library = Library.open(tmp_path)
    assert library.tasks == ("a", "b")
    weights = library.weights(("b", "a"))
    assert (len(weights), weights.spec.module_names, weights.dtype) == (2, ("q_proj", "v_proj"), torch.float32)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (replace(SPEC, rank=2), "rank is 2 in the adapter but 3 in the spec"),
        (replace(SPEC, modules=(Q,)), "modules is"),
        (replace(SPEC, alpha=4.0), "alpha is 4.0"),
    ],
)
def test_a_mismatch_names_the_folder(other: LoraSpec, says: str, ours: Path) -> None:
    folder = ours / "adapters" / "words-last-plain"
    save_peft(random_adapter(1, other), 0, folder, "base", overwrite=True)
    with pytest.raises(SpecMismatchError, match=f"words-last-plain does not fit the others: .*{says}"):
        Library.open(ours).weights(TASKS)
    with pytest.raises(SpecMismatchError, match="words-last-plain"):
        Library.open(ours).weights(TASKS[1:], SPEC)


def test_what_is_missing_or_damaged_is_named(ours: Path, tmp_path: Path) -> None:
    library = Library.open(ours)
    with pytest.raises(CheckpointError, match=r"has no adapter of 1 tasks, such as words/sort/plain"):
        library.weights([*TASKS, "words/sort/plain"])
    (ours / "adapters" / "words-last-plain" / WEIGHTS_FILE).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"words-last-plain.* is damaged"):
        library.weights(TASKS)
    with pytest.raises(CheckpointError, match="missing does not exist"):
        Library.open(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty holds no adapter"):
        Library.open(tmp_path / "empty")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is damaged"),
        ("{}", "is damaged"),
        ("\xff", "is damaged"),
        (json.dumps({"format": 9}), "has format 9"),
    ],
)
def test_bad_manifests(text: str, says: str, ours: Path) -> None:
    (ours / MANIFEST_FILE).write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=says):
        Library.open(ours)


# ---- the job that trains one


def job(folder: Path, *overrides: str, cpus: int = 1) -> LibraryJob:
    return LibraryJob(folder, load_config(None, overrides), OracleTraining(), cpus_per_worker=cpus)


def test_other_limits_of_tokens_make_another_library(tmp_path: Path) -> None:
    open_manifest(job(tmp_path)).write(tmp_path)
    assert open_manifest(job(tmp_path)).settings["data.max_prompt_tokens"] == 512
    with pytest.raises(ConfigError, match=r"trained with data\.max_response_tokens 512, not 96"):
        open_manifest(job(tmp_path, "data.max_response_tokens=96"))


def test_libraries_that_know_one_limit_are_gone_on_with(tmp_path: Path) -> None:
    new = open_manifest(job(tmp_path))
    old = {name: value for name, value in new.settings.items() if not name.startswith("data.")} | {"max_tokens": 512}
    replace(new, settings=old).write(tmp_path)
    assert new.settings.items() <= open_manifest(job(tmp_path)).settings.items()
    with pytest.raises(ConfigError, match=r"trained with data\.max_prompt_tokens 512, not 384: choose another folder"):
        open_manifest(job(tmp_path, "data.max_prompt_tokens=384"))


def task(name: str, number: int, output: str = "out") -> Task:
    return Task(name, ("",), (), [Example(f"in {i}", output) for i in range(number)], ())


class Endless(Sequence[Example]):
    """Examples of which few may be made."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index):  # type: ignore[override]
        assert index < 500
        return self._examples[index]


def test_tasks_with_too_few_examples_are_left_out_by_name() -> None:
    good, made, small, none = task("good", 33), task("made", 4), task("small", 32), task("none", 0)
    tasks, notes = trainable([good, made, small, none], {"made"}, OracleTraining())
    assert tasks == [good, made]
    assert notes == [
        "left out, as they have no more training examples than validation takes (32): small (32), none (0)"
    ]
    assert trainable([made], {"made"}, OracleTraining()) == ([made], [])
    with pytest.raises(DataError, match=r"all tasks have no more .* \(32\): small \(32\): give them more, or lower"):
        trainable([small], set(), OracleTraining())


def test_adapters_of_other_examples_are_refused_by_name(tmp_path: Path) -> None:
    old = [task("same", 40), task("changed", 40), task("longer", 40), task("unknown", 40)]
    entries = [LibraryEntry(one.name, one.name, 1, 0.5, False, 1.0, examples_digest(one)) for one in old[:3]]
    entries.append(LibraryEntry("unknown", "unknown", 1, 0.5, False, 1.0))  # made before there were digests
    Manifest("base", {}, tuple(entries)).write(tmp_path)
    manifest = Manifest.read(tmp_path)
    check_examples(tmp_path, manifest, old)
    now = [task("same", 40), task("changed", 40, "other"), task("longer", 41), task("unknown", 41), task("new", 40)]
    with pytest.raises(ConfigError, match="other examples of changed, longer: choose another folder, or go back to"):
        check_examples(tmp_path, manifest, now)


def test_manifests_without_digests_still_open(ours: Path) -> None:
    path = ours / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    for entry in manifest["adapters"]:
        del entry["examples"]
    path.write_text(json.dumps(manifest))
    assert Library.open(ours).tasks == TASKS


def test_of_generated_examples_only_the_first_few_are_made_for_a_digest() -> None:
    one, other = (replace(drawn, train=Endless(drawn.train)) for drawn in universe(2).train)
    assert examples_digest(one) == examples_digest(universe(2).train[0]) != examples_digest(other)


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpu", "number"),
    [
        ([(7, 0), (4, 0)], 2, False, 5),
        ([(3, 0), (3, 0), (4, 0)], 4, False, 1),
        ([(16, 8)], 1, True, 8),
        ([(16, 8), (16, 0)], 4, True, 4),
    ],
)
def test_workers_are_as_many_as_the_nodes_hold(nodes: list[tuple[int, int]], cpus: int, gpu: bool, number: int) -> None:
    resources = [{"CPU": float(cpu), "GPU": float(gpus)} for cpu, gpus in nodes]
    assert room_for_workers(resources, job(Path("x"), cpus=cpus), gpu) == number


def test_a_worker_that_no_node_holds_is_refused_unless_nodes_will_come() -> None:
    with pytest.raises(ResourceError, match="cpus_per_worker is 4, but the largest node has 3 CPUs: lower it, or add"):
        room_for_workers([{"CPU": 3.0}, {"CPU": 2.0}], job(Path("x"), cpus=4), False)
    with pytest.raises(ResourceError, match="but the largest node has 2 CPUs beside its GPU"):
        room_for_workers([{"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0}], job(Path("x"), cpus=4), True)
    assert room_for_workers([{}], job(Path("x"), "cluster.autoscaled=true", cpus=4), False) == 1
