"""The shipped nearness index: small, of the shipped weights, near for held-out descriptions and far for junk."""

from collections.abc import Callable, Sequence

import pytest

from t2l import TextToLora
from t2l.embedded import CHECKPOINT_DIR
from t2l.evaluation.junk import WRITTEN_JUNK, random_junk
from t2l.evaluation.methods import METHODS
from t2l.evaluation.questions import questions
from t2l.tasks.universe import universe
from t2l.text.nearness import NEARNESS_FILE, NearnessIndex, mean_states

ShareFar = Callable[[Sequence[str]], float]


@pytest.fixture(scope="module")
def share_far() -> ShareFar:
    """The share of these texts that would be warned of. Loading checks that the index is of the shipped weights."""
    t2l = TextToLora.from_pretrained()
    index = NearnessIndex.load(CHECKPOINT_DIR, t2l.origin.sha256)
    assert index is not None

    def share(texts: Sequence[str]) -> float:
        return index.is_far(index.nearness(mean_states(t2l.encoder.encode(texts)))).float().mean().item()

    return share


def test_the_file_is_small() -> None:
    assert (CHECKPOINT_DIR / NEARNESS_FILE).stat().st_size <= 4 * 2**20


@pytest.mark.parametrize("split", ["test", "novel"])
def test_held_out_descriptions_are_near(share_far: ShareFar, split: str) -> None:
    tasks = universe(None).test[:40] if split == "test" else universe(None).extra[split]
    assert share_far([task.unseen_descriptions[10] for task in tasks]) <= 0.05


def test_random_junk_is_far(share_far: ShareFar) -> None:
    texts = [text for kind in random_junk(seed=7, number=6).values() for text in kind]
    assert share_far(texts) >= 0.95


def test_the_junk_of_the_evaluation_is_far(share_far: ShareFar) -> None:
    tasks = universe(None).test[:10]
    texts = [question.key or "" for question in questions(METHODS["t2l"], "junk", tasks, inputs_per_task=4)]
    assert len(texts) == 40
    assert share_far(texts) == 1


@pytest.mark.parametrize(("kind", "least"), [("code", 0.9), ("other_languages", 0.9), ("small_talk", 0.4)])
def test_written_junk_is_far(share_far: ShareFar, kind: str, least: float) -> None:
    """Some small talk is as near as a description, and the report says so."""
    assert share_far(WRITTEN_JUNK[kind]) >= least
