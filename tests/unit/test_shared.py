"""Work on texts is shared out over workers, and a second run is spared it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from t2l.data.shared import SharedWork
from t2l.errors import DataError

TEXTS = ["sort", "take the last one", "two words"]


class Lengths:
    """Counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        self.asked += len(texts)
        return {"lengths": torch.tensor([len(text) for text in texts])}


def test_workers_share_the_work_and_a_second_run_spares_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2l.data.shared.CHUNK", 1)
    makers = [Lengths(), Lengths()]
    shares = [SharedWork(tmp_path, "key", rank, 2) for rank in (0, 1)]
    for share, make in zip(shares, makers, strict=True):
        share.do_share(TEXTS, make)
    assert [make.asked for make in makers] == [2, 1]
    assert [part["lengths"].item() for part in shares[1].parts(TEXTS)] == [len(text) for text in TEXTS]
    next(iter(tmp_path.glob("*.safetensors"))).write_bytes(b"damaged")
    again = Lengths()
    SharedWork(tmp_path, "key").do_share(TEXTS, again)
    assert again.asked == 1
    with pytest.raises(DataError, match="storage that all workers share"):
        SharedWork(tmp_path, "another key").parts(TEXTS)
