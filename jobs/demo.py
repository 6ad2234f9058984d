"""The whole of t2l in one command: a local Ray, the real job on a small world, adapters for tasks it never saw.

    python jobs/demo.py        # or: make demo

Trains T2L from scratch (jobs/configs/embedded_demo.yaml) against the shipped base model, then shows what adapters made
from held-out descriptions change. Everything it starts, it stops; the run stays in runs/demo.
"""

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "jobs/configs/embedded_demo.yaml"
_SHOWN = 6


def submit(address: str) -> int:
    """`ray job submit` of the training job; its output streams here."""
    job = ["python", "jobs/train_sft.py", "--config", CONFIG, f"output_dir={ROOT / 'runs'}"]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", address, "--working-dir", "."]
    return subprocess.run([*ray, "--", *job], cwd=ROOT, check=False).returncode


def train_on_local_ray() -> int:
    """Start a Ray of our own with a dashboard (which takes jobs), submit, and stop it again."""
    import ray

    context = ray.init(address="local", include_dashboard=True, dashboard_port=0, log_to_driver=False)
    try:
        return submit(f"http://{context.dashboard_url}")
    finally:
        ray.shutdown()


def show_answers(run_dir: Path) -> None:
    """Base and adapted answers for descriptions of held-out tasks, in wording that training never used."""
    from rich.console import Console
    from rich.table import Table

    from t2l.cluster.run import outcome
    from t2l.config import load_config
    from t2l.data.suite import build_suite
    from t2l.text_to_lora import TextToLora

    config = load_config(run_dir / "config.yaml")
    tasks = build_suite(config.data).test[:_SHOWN]
    descriptions = [min(task.unseen_descriptions[:], key=len) for task in tasks]
    inputs = [task.test[0].input for task in tasks]
    t2l = TextToLora.from_pretrained(outcome(config).checkpoint)
    base, adapted = t2l.run(descriptions, inputs, adapted=False), t2l.run(descriptions, inputs)
    table = Table(title="held-out tasks, unseen wording, prompts without a definition", show_lines=True)
    for column in ("description", "input", "base model", "with the generated adapter", "right answer"):
        table.add_column(column, overflow="fold")
    for row in zip(descriptions, inputs, base, adapted, (task.test[0].output for task in tasks), strict=True):
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 110)
    console.print(table)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    code = train_on_local_ray()
    if code == 0:
        show_answers(ROOT / "runs" / "demo")
        print("results: runs/demo/results.json")
    return code


if __name__ == "__main__":
    sys.exit(main())
