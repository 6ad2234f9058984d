"""Benchmarks on a few rows: they run, and what they compare is comparable."""

import json
import math
import sys
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_three_peers_are_measured_on_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"
    options = ["--device", "cpu", "--steps", "2", "--batch", "4", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["sft_step.py", *options])
    import_module("sft_step").main()
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result == json.loads(out.read_text())
    peers = result["peers"]
    assert peers.keys() == {"ours", "peft", "per_token"}
    assert result["ratios"].keys() == {"ours/peft", "ours/per_token"}
    for peer in peers.values():
        assert peer["tokens_per_s"] > 0
        assert all(map(math.isfinite, peer["losses"]))
    assert peers["per_token"]["losses"] == pytest.approx(peers["ours"]["losses"], rel=1e-4), "one method, done twice"


def test_the_evaluation_and_peft_give_the_same_answers() -> None:
    result = import_module("evaluate_peft").compare(tasks=1, inputs=3, device="cpu")
    assert (result["questions"], result["adapters"], result["same_answers"]) == (3, 3, 1)
    assert result["scores"]["ours"] == result["scores"]["peft"]
    assert result["ratio"] > 0
