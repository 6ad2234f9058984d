"""Functions recorded by shape give what they give unrecorded; on a CPU they are just called."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from t2l import graphs
from t2l.graphs import GraphByShape

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = pytest.mark.skipif(DEVICE.type == "cpu", reason="needs a GPU, where there are CUDA graphs")


def inputs(rows: int, seed: int) -> dict[str, Tensor]:
    x, y = torch.randn(2, rows, 5, generator=torch.Generator().manual_seed(seed))
    return {"x": x, "y": y}


def test_every_shape_and_every_value() -> None:
    calls = []

    def product(tensors: Mapping[str, Tensor]) -> Tensor:
        calls.append(len(tensors["x"]))
        return tensors["x"] * tensors["y"] + 1

    recorded = GraphByShape(product, DEVICE)
    found = {(rows, seed): recorded(inputs(rows, seed)) for seed in range(2) for rows in (3, 4)}
    assert (len(calls) == 4) == (DEVICE.type == "cpu"), "recorded, the function is not called again"
    for (rows, seed), result in found.items():
        x, y = inputs(rows, seed).values()
        assert result.device.type == DEVICE.type and torch.equal(result.cpu(), x * y + 1)


@on_gpu
def test_what_waits_for_the_device_is_called_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    def waits(tensors: Mapping[str, Tensor]) -> Tensor:
        return tensors["x"] * float(tensors["y"].sum())

    recorded, stream = GraphByShape(waits, DEVICE), torch.cuda.current_stream()
    for seed in range(2):
        x, y = inputs(3, seed).values()
        torch.testing.assert_close(recorded(inputs(3, seed)).cpu(), x * float(y.sum()))
    assert "cannot be recorded" in caplog.text and caplog.text.count("cannot") == 1
    assert torch.cuda.current_stream() == stream
    assert torch.randn(3, device=DEVICE).shape == (3,), "random numbers are drawn as before"


@on_gpu
def test_one_shape_that_cannot_be_recorded_leaves_the_others() -> None:
    def sometimes_waits(tensors: Mapping[str, Tensor]) -> Tensor:
        calls.append(len(tensors["x"]))
        return tensors["x"] * (float(tensors["y"].sum()) if len(tensors["x"]) == 3 else 2)

    calls: list[int] = []
    recorded = GraphByShape(sometimes_waits, DEVICE)
    for rows in (4, 3, 5):
        recorded(inputs(rows, 0))
    calls.clear()
    for rows in (4, 3, 5):
        recorded(inputs(rows, 1))
    assert calls == [3]


def test_shapes_are_recorded_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    recorded = GraphByShape(lambda tensors: tensors["x"] + 1, DEVICE)
    for rows in (3, 4, 5, 6):
        x = inputs(rows, 0)["x"]
        assert torch.equal(recorded(inputs(rows, 0)).cpu(), x + 1)
    assert len(recorded._graphs) == (2 if DEVICE.type == "cuda" else 0)
