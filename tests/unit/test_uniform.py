"""A text's embedding and its adapter have the same bits in whatever company they are computed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2l import TextToLora
from t2l.tasks.universe import universe
from t2l.text.uniform import in_uniform_batches


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_every_batch_has_one_shape_and_results_keep_their_order(shapes: list[int], rows: int) -> None:
    def run(batch: list[int]) -> torch.Tensor:
        assert len(batch) == rows and len({shapes[i] for i in batch}) == 1
        return torch.tensor(batch, dtype=torch.float32)[:, None]

    assert in_uniform_batches(run, shapes, rows).flatten().tolist() == list(range(len(shapes)))


@pytest.fixture(scope="module")
def t2l() -> TextToLora:
    return TextToLora.from_pretrained()


def test_bits_do_not_depend_on_company(t2l: TextToLora) -> None:
    texts = [task.unseen_descriptions[0] for task in universe(None).test[:12]]

    def embed(texts: list[str]) -> torch.Tensor:
        counts = t2l.encoder.token_counts(texts)
        return in_uniform_batches(lambda batch: t2l.embed([texts[i] for i in batch]), counts, rows=2)

    def adapters(embedding: torch.Tensor) -> torch.Tensor:
        run = lambda batch: t2l.from_embeddings(embedding[batch]).weights.B["q_proj"]  # noqa: E731
        return in_uniform_batches(run, [None] * len(embedding), rows=4)

    together, alone = embed(texts), torch.cat([embed([text]) for text in texts])
    assert torch.equal(together, alone)
    assert torch.equal(embed(texts[::-1]).flip(0), together)
    assert torch.equal(adapters(together), torch.cat([adapters(row[None]) for row in together]))
    plain = t2l.embed(texts)
    torch.testing.assert_close(together, plain, rtol=1e-4, atol=1e-4)
