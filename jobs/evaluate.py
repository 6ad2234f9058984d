"""Evaluate a T2L checkpoint under every condition, on seen, held-out, novel, new-operation and free-hand descriptions.

    python jobs/evaluate.py -o runs/evaluation                      # the shipped checkpoint
    python jobs/evaluate.py --checkpoint runs/sft/checkpoints/step-001000 --inputs 10 -o runs/evaluation

Writes evaluation.json (exact match with a 95 % margin over tasks, ROUGE-L, per task) and prints the table.
"""

import argparse
import sys
from pathlib import Path

_SEEN_TASKS, _EXTRA_TASKS = 60, 40


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for evaluation.json")
    parser.add_argument("--checkpoint", type=Path, help="folder of a checkpoint; left out: the shipped one")
    parser.add_argument("--inputs", type=int, default=20, help="inputs of each task (default 20)")
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse()
    from rich.console import Console

    from t2l.data.suite import build_suite
    from t2l.errors import T2LError
    from t2l.evaluation.conditions import CONDITIONS
    from t2l.evaluation.suite import Evaluation
    from t2l.evaluation.table import details, score_table, write_json
    from t2l.tasks.freehand import free_hand_tasks
    from t2l.text_to_lora import TextToLora

    console = Console()
    try:
        t2l = TextToLora.from_pretrained(arguments.checkpoint)
        suite = build_suite(t2l.config.data)
        extra = {name: tasks[:_EXTRA_TASKS] for name, tasks in suite.extra.items()}
        splits = {"held_out": suite.test, **extra, "free_hand": free_hand_tasks(), "seen": suite.train[:_SEEN_TASKS]}
        evaluation = Evaluation(t2l.base, t2l.tokenizer, lambda texts: t2l.generate(texts).weights)
        results = evaluation.run(
            splits,
            tuple(CONDITIONS),
            arguments.inputs,
            lambda split, name: console.print(f"evaluating {split}: {name}", style="dim"),
        )
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_json(arguments.output / "evaluation.json", details(results))
    console.print(score_table(results))
    print(f"results: {arguments.output / 'evaluation.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
