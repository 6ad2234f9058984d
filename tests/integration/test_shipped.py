"""The shipped base model and checkpoint are the ones that their cards describe, and do what the README says."""

import hashlib
from pathlib import Path
from statistics import mean

import pytest

from t2l import TextToLora
from t2l.embedded import BASE_DIR, CHECKPOINT_DIR
from t2l.evaluation.methods import METHODS
from t2l.evaluation.questions import questions
from t2l.evaluation.suite import Evaluation
from t2l.tasks.universe import universe


@pytest.fixture(scope="module")
def t2l() -> TextToLora:
    return TextToLora.from_pretrained()


@pytest.mark.parametrize("folder", [BASE_DIR, CHECKPOINT_DIR])
def test_cards_name_the_weights_by_sha256(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()


def test_base_model_is_small(t2l: TextToLora) -> None:
    assert 2e6 <= sum(parameter.numel() for parameter in t2l.base.model.parameters()) <= 10e6
    assert (BASE_DIR / "model.safetensors").stat().st_size <= 16 * 2**20


@pytest.mark.parametrize(
    ("method", "wording", "low", "high"),
    [
        ("base", None, 0, 0.1),
        ("definition", "unseen", 0.85, 1),
        ("t2l", "unseen", 0.85, 1),
        ("t2l", "shuffled", 0, 0.1),
        ("t2l", "junk", 0, 0.1),
    ],
)
def test_held_out_tasks(t2l: TextToLora, method: str, wording: str | None, low: float, high: float) -> None:
    make = (lambda texts: t2l.generate(texts).weights) if "t2l" in method else None
    evaluation = Evaluation(t2l.base, t2l.tokenizer, make, t2l.config.data)
    scores = evaluation.grade(questions(METHODS[method], wording, universe(None).test[::4], inputs_per_task=2))
    assert low <= mean(score.own for score in scores.values()) <= high
