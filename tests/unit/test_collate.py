"""Batches: labels stand where the model predicts them, and weights add up to a mean of means."""

from collections.abc import Sequence
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2l.data.collate import PAD_TO, Row, collate, cut_left, micro_batches
from t2l.errors import DataError

tokens = st.lists(st.integers(1, 99), min_size=1, max_size=20)
rows_of = st.lists(st.builds(Row, tokens, tokens, st.integers(0, 9)), min_size=1, max_size=6)


@given(rows_of)
def test_labels_follow_the_states_that_predict_them(rows: list[Row]) -> None:
    batch = collate(rows, len(rows), pad_id=0)
    assert batch.input_ids_B_T.shape[1] % PAD_TO == 0
    flat = batch.input_ids_B_T.flatten()
    place = 0
    for i, row in enumerate(rows):
        whole = row.prompt + row.answer
        for j, label in enumerate(row.answer):
            position = int(batch.label_positions_K[place])
            assert batch.label_ids_K[place] == label
            seen = flat[i * batch.input_ids_B_T.shape[1] : position + 1].tolist()
            assert seen == whole[: len(row.prompt) + j], "the state has read all before the label, and not the label"
            place += 1
    assert place == len(batch.label_ids_K)
    assert batch.count == int((batch.input_ids_B_T != 0).sum())


@given(rows_of, st.integers(1, 4))
def test_weights_are_shares_of_the_mean_over_sequences(rows: list[Row], parts: int) -> None:
    parts = min(parts, len(rows))
    batches = [collate(part, len(rows), pad_id=0) for part in micro_batches(rows, parts)]
    assert sum(len(batch.lengths_B) for batch in batches) == len(rows)
    for batch in batches:
        row_of_label = batch.label_positions_K // batch.input_ids_B_T.shape[1]
        shares = torch.zeros(len(batch.lengths_B)).index_add_(0, row_of_label, batch.label_weights_K)
        torch.testing.assert_close(shares, torch.full_like(shares, 1 / len(rows)))


@given(rows_of, st.integers(1, 4))
def test_micro_batches_are_cut_where_padding_is_least(rows: list[Row], parts: int) -> None:
    def computed(batches: Sequence[Sequence[Row]]) -> int:
        return sum(collate(part, len(rows), pad_id=0).input_ids_B_T.numel() for part in batches)

    parts = min(parts, len(rows))
    ordered = sorted(rows, key=len)
    found = micro_batches(rows, parts)
    assert [row for part in found for row in part] == ordered and all(found) and len(found) == parts
    cuts = combinations(range(1, len(rows)), parts - 1)
    every = ([ordered[start:end] for start, end in pairwise([0, *cut, len(rows)])] for cut in cuts)
    assert computed(found) == min(map(computed, every))


def test_cutting_keeps_the_end() -> None:
    assert cut_left([1, 2, 3, 4], 3) == [2, 3, 4]
    assert cut_left([1, 2], 3) == [1, 2]


def test_a_sample_without_prompt_or_answer_is_refused() -> None:
    with pytest.raises(DataError, match="tokens in both"):
        collate([Row([1], [], 0)], 1, 0)
