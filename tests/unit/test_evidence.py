"""The plan's commands are ones that the jobs understand; the runner keeps order, resumes and names what failed."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from t2l.config import load_config
from t2l.errors import ConfigError
from t2l.evidence.plan import Run, chosen, plan
from t2l.evidence.runner import EvidenceError, Settings, carry_out, commands

PLAN = plan()
ROOT = Path(__file__).parents[2]


def test_names_are_unique_and_needs_are_planned() -> None:
    names = [run.name for run in PLAN]
    assert len(set(names)) == len(names)
    assert {need for run in PLAN for need in run.needs} <= set(names)


def test_runs_are_chosen_by_patterns() -> None:
    assert chosen(["*"]) == PLAN
    assert [run.name for run in chosen(["static_0", "sft_?_1"])] == ["sft_L_1", "sft_M_1", "sft_S_1", "static_0"]
    with pytest.raises(ConfigError, match="no run is called 'nope': choose from library, oracles, sft_L_0"):
        chosen(["static_0", "nope"])


@pytest.mark.parametrize("run", [run for run in PLAN if run.name.endswith(("_0", "library"))], ids=lambda run: run.name)
def test_jobs_and_settings_exist(run: Run) -> None:
    for command in commands(run, Settings(Path("/tmp/evidence"))):
        assert (ROOT / command[1]).is_file()
        if "--config" not in command:
            continue
        at = command.index("--config") + 1
        config = load_config(ROOT / command[at], command[at + 1 :])
        assert config.name == run.name
        assert config.run_dir == Path("/tmp/evidence/runs") / run.name
        assert config.train.objective == ("recon" if run.name.startswith("recon") else config.train.objective)


def test_runs_of_one_kind_differ_in_what_they_are_called_after() -> None:
    sft = {run.name: run for run in PLAN if run.name.startswith(("sft_", "tasks"))}
    texts = [shlex.join(commands(run, Settings(Path("x")))[0]) for run in sft.values()]
    assert len(set(texts)) == len(texts)
    assert all("jobs/configs/evidence.yaml" in text for text in texts)


def script(folder: Path, name: str, body: str, needs: tuple[str, ...] = ()) -> Run:
    """A run whose job is a small script; `{out}/../..` reaches it from the checkout's jobs folder."""
    (folder / f"{name}.py").write_text(body)
    return Run(name, (str(folder / f"{name}.py"),), None, needs)


def test_it_runs_in_order_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = f"open({str(tmp_path / 'order')!r}, 'a').write({{name!r}})"
    runs = [
        script(tmp_path, "b", append.format(name="b"), needs=("a",)),
        script(tmp_path, "a", append.format(name="a")),
        script(tmp_path, "c", "raise SystemExit(3)"),
    ]
    monkeypatch.chdir(tmp_path)
    settings = Settings(tmp_path / "out", at_once=2)
    with pytest.raises(EvidenceError, match="1 runs failed, first 'c'"):
        carry_out(runs, settings, lambda news: None)
    assert (tmp_path / "order").read_text() == "ab"
    mended = [*runs[:2], replace(runs[2], train=runs[1].train)]
    assert carry_out(mended, settings, lambda news: None) == []
    assert (tmp_path / "order").read_text() == "aba", "what was finished is not run again"


def test_time_up_is_no_failure(tmp_path: Path) -> None:
    runs = [script(tmp_path, "slow", "import time; time.sleep(60)")]
    assert carry_out(runs, Settings(tmp_path / "out", minutes=0.01), lambda news: None) == ["slow"]
    assert not (tmp_path / "out" / "done" / "slow").exists()
