"""A library of adapters: ours with a manifest, anybody's without one, and what is wrong with some."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from t2l.errors import CheckpointError, SpecMismatchError
from t2l.lora.library import MANIFEST_FILE, Library, LibraryEntry, Manifest
from t2l.lora.peft_io import WEIGHTS_FILE, save_peft
from t2l.lora.spec import LoraSpec, TargetModule
from t2l.lora.weights import LoraWeights

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
    ("text", "says"), [("{", "is damaged"), ("{}", "is damaged"), (json.dumps({"format": 9}), "has format 9")]
)
def test_bad_manifests(text: str, says: str, ours: Path) -> None:
    (ours / MANIFEST_FILE).write_text(text)
    with pytest.raises(CheckpointError, match=says):
        Library.open(ours)
