"""Benchmarks on a few rows: they run, and what they compare is comparable."""

import json
import math
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Name and options of a benchmark -> its result, the same in its file and in the last line that it prints."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")

    def run(name: str, *options: object) -> dict[str, Any]:
        out = tmp_path / f"{name}.json"
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, options), "--out", str(out)])
        import_module(name).main()
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert result == json.loads(out.read_text())
        assert result["benchmark"] == name
        return result

    return run


def test_three_peers_train_on_the_same_rows(run: Run) -> None:
    result = run("sft_step", "--rounds", 1, "--rows", 6, "--parts", 2, "--peer-parts", 3)
    assert result["ratios"].keys() == {"ours/peft", "ours/per_token"}
    assert all(peer["tokens_per_s"] > 0 for peer in result["peers"].values())
    losses = result["losses"]
    assert losses["per_token"] == pytest.approx(losses["ours"], rel=1e-4), "one method, done twice"
    gradients = result["gradient_norms"]
    assert gradients["per_token"] == pytest.approx(gradients["ours"], rel=1e-4)
    assert gradients["ours"] > 0
    assert losses["peft"] == pytest.approx(losses["ours"], rel=0.1), "a fresh LoRA changes nothing"
    assert result["tokens_computed"]["ours"] >= result["tokens_per_step"]


def test_both_ways_generate_the_same_adapters(run: Run) -> None:
    result = run("generate", "--rounds", 1, "--adapters", 2)
    assert [row["variant"] for row in result["runs"]] == ["S", "M", "L"]
    assert all(row["largest_difference"] < 1e-5 for row in result["runs"])
    assert all(row["floor_ms"] > 0 for row in result["runs"])


def test_rows_decode_under_adapters_and_without(run: Run) -> None:
    result = run("serve_decode", "--rows", 2, "--prompt", 3, "--steps", 2, "--rounds", 1)
    assert result["tokens_per_s"].keys() == {"base", "adapted", "peft"}
    assert result["floor_ms"]["adapted"] > result["floor_ms"]["base"] > 0


def test_cost_is_measured_along_curves(run: Run) -> None:
    result = run("growth", "--rows", 5, "--prompts", 3, 9, "--steps", 1, "--rounds", 1)
    curves = {name: [point["x"] for point in points] for name, points in result["decode"].items()}
    assert curves == {"adapters": [1, 4, 5], "rows": [1, 4, 5], "prompt": [3, 9], "base": ["embedded"]}
    assert [row["adapters"] for row in result["generate"]] == [1, 4, 5] * 3


@pytest.mark.usefixtures("run")
def test_the_evaluation_and_peft_give_the_same_answers() -> None:
    result = import_module("evaluate_peft").compare(tasks=1, inputs=3, device="cpu")
    assert (result["questions"], result["adapters"], result["same_answers"]) == (3, 3, 1)
    assert result["scores"]["ours"] == result["scores"]["peft"]
    assert result["ratio"] > 0


@pytest.mark.usefixtures("run")
def test_the_readme_shows_the_committed_results() -> None:
    draw = import_module("draw")
    assert draw.table(draw.found()) in (ROOT / "README.md").read_text(), "run `make bench`"
    assert all(math.isfinite(claim.ratio) for own in draw.found().values() for claim in own)
