"""Benchmarks on a few rows: they run, and what they compare is comparable."""

import json
import math
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sft_step.py"


def test_three_peers_are_measured_on_the_same_batches(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--steps", "2", "--batch", "4", "--out", str(out)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # two would wait for each other wherever other tests run besides
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240, env=one_thread)
    result = json.loads(run.stdout.splitlines()[-1])
    assert result == json.loads(out.read_text())
    peers = result["peers"]
    assert peers.keys() == {"ours", "peft", "per_token"}
    assert result["ratios"].keys() == {"ours/peft", "ours/per_token"}
    for peer in peers.values():
        assert peer["tokens_per_s"] > 0
        assert all(map(math.isfinite, peer["losses"]))
    assert peers["per_token"]["losses"] == pytest.approx(peers["ours"]["losses"], rel=1e-4), "one method, done twice"


def test_the_evaluation_and_peft_give_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    result = import_module("evaluate_peft").compare(tasks=1, inputs=3, device="cpu")
    assert (result["questions"], result["adapters"], result["same_answers"]) == (3, 3, 1)
    assert result["scores"]["ours"] == result["scores"]["peft"]
    assert result["ratio"] > 0
