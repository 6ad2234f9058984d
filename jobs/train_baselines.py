"""Train and evaluate the LoRAs that T2L is held against: an oracle for each held-out task, or one for all tasks.

    python jobs/train_baselines.py oracle --tasks 120 --steps 250 --tasks-at-once 12 -o runs/oracles
    python jobs/train_baselines.py multitask --steps 1000 --rows 96 -o runs/multitask

An oracle trains on the task's own examples; the multi-task LoRA trains on all training tasks and is asked about the
held-out ones. Writes PEFT folders and results.json; started again, it leaves out what is finished.
"""

import argparse
import sys
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("oracle", "multitask"))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for adapters and results.json")
    parser.add_argument("--tasks", type=int, default=120, help="the first so many held-out tasks (default 120)")
    parser.add_argument("--tasks-at-once", type=int, default=12, help="oracles trained as one batch (default 12)")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rows", type=int, default=8, help="samples of each LoRA and step (default 8)")
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--inputs", type=int, default=20, help="test inputs of each task (default 20)")
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse()
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress
    from rich.table import Table

    from t2l.checkpoint import read_info
    from t2l.cluster.baselines import Baselines, LoraJob
    from t2l.embedded import CHECKPOINT_DIR
    from t2l.errors import T2LError
    from t2l.tasks.universe import universe
    from t2l.train.lora import LoraTraining

    suite = universe(None)
    asked = suite.test[: arguments.tasks]
    jobs = [LoraJob(task.name, (task,), (task,)) for task in asked]
    if arguments.kind == "multitask":
        jobs = [LoraJob("multitask", suite.train, asked)]
    settings = LoraTraining(steps=arguments.steps, rows=arguments.rows, lr=arguments.lr)
    try:
        run = read_info(CHECKPOINT_DIR).config  # the same base model and the same shape of adapter
        baselines = Baselines(run, settings, arguments.inputs, arguments.output)
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as bar:
            row = bar.add_task("training")

            def show(done: int, of: int) -> None:
                bar.update(row, completed=done, total=of)
                if not bar.console.is_terminal and done % 10 == 0:  # a log shows no bar
                    print(f"step {done:,}/{of:,}", flush=True)

            baselines.run(jobs, arguments.tasks_at_once, show)
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    results = baselines.results
    table = Table("tasks", "exact match", "ROUGE-L", title=f"{arguments.kind}: held-out tasks, no definition")
    table.add_row(str(results["num_tasks"]), f"{results['exact_match']:.3f}", f"{results['rouge_l']:.3f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
