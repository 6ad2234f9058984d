"""Nearness: the mean of the largest cosines, a threshold between held-out texts and junk, one file that comes back.

Axes: N texts, T tokens, D features, M references.
"""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from t2l.errors import CheckpointError
from t2l.text.encoder import TextFeatures
from t2l.text.nearness import NEARNESS_FILE, NEIGHBOURS, NearnessIndex, mean_states
from t2l.text_to_lora import TextToLora

SHA256 = "5" * 64
ROOT = Path(__file__).resolve().parents[2]


def around(direction_D: Tensor, number: int, seed: int) -> Tensor:
    """Vectors [number, D] near one direction, of very different lengths."""
    generator = torch.Generator().manual_seed(seed)
    vectors = direction_D + 0.1 * torch.randn(number, len(direction_D), generator=generator)
    return vectors * torch.logspace(-2, 2, number)[:, None]


@pytest.fixture
def index() -> NearnessIndex:
    """Knows texts along the first axis; its junk lies along the second."""
    known, junk = torch.eye(16)[:2]
    return NearnessIndex.build(around(known, 60, 0), around(known, 200, 1), around(junk, 200, 2), SHA256)


def test_nearness_is_the_mean_of_the_largest_cosines() -> None:
    references = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    asked = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    index = NearnessIndex.build(references, asked, asked, SHA256)
    for vector, found in zip(asked, index.nearness(asked), strict=True):
        cosines = sorted(torch.cosine_similarity(vector, row, dim=0).item() for row in references)
        assert found.item() == pytest.approx(sum(cosines[-NEIGHBOURS:]) / NEIGHBOURS, abs=1e-3)


def test_fewer_references_than_neighbours() -> None:
    index = NearnessIndex.build(torch.eye(4)[:2], torch.eye(4), torch.eye(4), SHA256)
    assert index.nearness(torch.eye(4)).tolist() == pytest.approx([0.5, 0.5, 0, 0])


def test_junk_is_far_and_the_known_is_near(index: NearnessIndex) -> None:
    known, junk = torch.eye(16)[:2]
    assert index.is_far(index.nearness(around(junk, 200, 3))).float().mean() >= 0.95
    assert not index.is_far(index.nearness(around(known, 200, 4))).any()


def test_threshold_gives_way_where_it_would_raise_false_alarms() -> None:
    """Junk that cannot be told from descriptions is let through."""
    known = torch.eye(16)[0]
    held_out = around(known, 500, 1)
    index = NearnessIndex.build(around(known, 60, 0), held_out, around(known, 500, 2), SHA256)
    assert 0 < index.is_far(index.nearness(held_out)).float().mean() <= 0.02


def test_length_company_and_order_do_not_matter(index: NearnessIndex) -> None:
    states = torch.randn(7, 16, generator=torch.Generator().manual_seed(5))
    expected = index.nearness(states)
    torch.testing.assert_close(index.nearness(1000 * states), expected)
    torch.testing.assert_close(index.nearness(states.flip(0)).flip(0), expected)
    torch.testing.assert_close(torch.cat([index.nearness(row[None]) for row in states]), expected)


def test_mean_states_leave_out_padding() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [99.0, 99.0]], [[1.0, 1.0], [2.0, 2.0], [6.0, 6.0]]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert mean_states(TextFeatures(states, mask)).tolist() == [[2, 3], [3, 3]]


def test_round_trip(index: NearnessIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    index.save(tmp_path)  # in place of the first
    found = NearnessIndex.load(tmp_path, SHA256)
    assert found is not None
    assert [file.name for file in tmp_path.iterdir()] == [NEARNESS_FILE]
    assert found.threshold == index.threshold
    states = torch.randn(5, 16)
    assert torch.equal(found.nearness(states), index.nearness(states))


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    assert NearnessIndex.load(tmp_path, SHA256) is None


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_damaged_file_is_named(index: NearnessIndex, tmp_path: Path, keep: int) -> None:
    file = index.save(tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=f"{NEARNESS_FILE} is damaged"):
        NearnessIndex.load(tmp_path, SHA256)


def test_a_file_of_something_else_is_damaged(tmp_path: Path) -> None:
    save_file({"references": torch.eye(2)}, tmp_path / NEARNESS_FILE)
    with pytest.raises(CheckpointError, match="damaged"):
        NearnessIndex.load(tmp_path, SHA256)


def test_an_index_of_other_weights_is_refused(index: NearnessIndex, tmp_path: Path) -> None:
    index.save(tmp_path)
    with pytest.raises(CheckpointError, match=f"{SHA256}, not {'6' * 64}: build it again"):
        NearnessIndex.load(tmp_path, "6" * 64)


def test_the_job_builds_the_index_of_a_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    arguments = ["--checkpoint", str(checkpoint), "-o", str(tmp_path), "--descriptions-per-task", "3"]
    monkeypatch.setattr("sys.argv", ["build_nearness.py", *arguments])
    assert runpy.run_path(str(ROOT / "jobs" / "build_nearness.py"))["main"]() == 0
    t2l = TextToLora.from_pretrained(checkpoint)
    index = NearnessIndex.load(checkpoint, t2l.origin.sha256)
    report = json.loads((tmp_path / "nearness.json").read_text())
    assert index is not None
    assert index.threshold == report["threshold"]
    assert report["references"] == len(index.references_M_D)
    assert {"test", "free_hand"} <= set(report["descriptions"])
    assert {"letters", "code"} <= set(report["junk"])
