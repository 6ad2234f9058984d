"""Readers: what stands in the padding must not matter."""

import pytest
import torch
from torch.nn.functional import pad

from t2l.config import ReaderConfig
from t2l.hypernet.reader import SentenceReader, TokenReader

FEATURES = 12


def reader(**settings: int) -> TokenReader:
    torch.manual_seed(0)
    return TokenReader(FEATURES, ReaderConfig(width=16, num_heads=2, **settings)).eval()


@pytest.mark.parametrize("extra", [1, 5])
def test_extra_padding_changes_nothing(extra: int) -> None:
    states_N_T_D = torch.randn(3, 6, FEATURES)
    mask_N_T = torch.arange(6) < torch.tensor([[6], [2], [4]])
    expected = reader()(states_N_T_D, mask_N_T)
    padded = pad(states_N_T_D, (0, 0, 0, extra), value=9.0)
    torch.testing.assert_close(reader()(padded, pad(mask_N_T, (0, extra))), expected, atol=1e-5, rtol=1e-5)


def test_a_row_is_the_same_alone() -> None:
    states_N_T_D = torch.randn(2, 5, FEATURES)
    mask_N_T = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    alone = reader()(states_N_T_D[1:, :3], mask_N_T[1:, :3])
    torch.testing.assert_close(reader()(states_N_T_D, mask_N_T)[1:], alone, atol=1e-5, rtol=1e-5)


def test_its_size_is_queries_times_width() -> None:
    tokens = reader(num_queries=3)
    assert tokens.embedding_dim == 48
    assert tokens(torch.randn(2, 4, FEATURES).half(), torch.ones(2, 4, dtype=torch.bool)).shape == (2, 48)


def test_every_real_token_counts() -> None:
    states_N_T_D = torch.randn(1, 4, FEATURES, requires_grad=True)
    reader()(states_N_T_D, torch.tensor([[True, True, True, False]])).pow(3).sum().backward()
    assert states_N_T_D.grad is not None
    assert (states_N_T_D.grad[0].abs().sum(-1) > 0).tolist() == [True, True, True, False]


def test_a_sentence_vector_passes_through() -> None:
    states_N_T_D = torch.randn(2, 1, FEATURES)
    sentence = SentenceReader(FEATURES)
    assert torch.equal(sentence(states_N_T_D, torch.ones(2, 1, dtype=torch.bool)), states_N_T_D[:, 0])
    assert sentence.embedding_dim == FEATURES
    assert not list(sentence.parameters())
