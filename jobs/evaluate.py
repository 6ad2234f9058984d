"""Evaluate checkpoints, libraries of LoRAs and the base model's prompts, on Ray or with --no-ray in this process.

    python jobs/evaluate.py -o runs/evaluation.json                 # the shipped checkpoint
    python jobs/evaluate.py -o runs/evaluation.json --checkpoint runs/sft runs/recon --library runs/oracles --inputs 10
    python jobs/evaluate.py -o runs/ten.json --checkpoint runs/mistral --benchmarks --run-code --splits benchmarks

Writes one result file, from which every table and figure is made, and prints a table. Started again with the same
file, it measures only what that lacks.
"""

import argparse
import sys
from pathlib import Path

from t2l.hub import LOCAL_DIR_HELP, use_local_dir


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="result file (JSON)")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        help="checkpoint or run folders (the best one) or addresses; left out: the shipped one",
    )
    parser.add_argument("--library", type=Path, nargs="+", default=[], help="folders of jobs/train_oracles.py")
    parser.add_argument("--splits", help="such as held_out,seen,novel,new_operations,free_hand; left out: all")
    parser.add_argument("--methods", help="such as base,definition,t2l; left out: all but slow ones")
    parser.add_argument("--slow", action="store_true", help="also Arrow routing, and adapters refined by 8 examples")
    parser.add_argument("--inputs", type=int, default=20, help="inputs of each task (default 20)")
    parser.add_argument("--seen-tasks", type=int, default=60, help="training tasks of the split 'seen' (default 60)")
    parser.add_argument(
        "--benchmarks", nargs="*", metavar="NAME", help="also the paper's ten benchmarks, or those named"
    )
    parser.add_argument("--benchmark-dir", default="", metavar="DIR", help="folder of one folder a benchmark")
    parser.add_argument(
        "--upstream", default="", metavar="DIR", help="checkout of text-to-lora: the paper's own prompts"
    )
    parser.add_argument("--run-code", action="store_true", help="run code that the model writes (HumanEval, MBPP)")
    parser.add_argument("--local-dir", type=Path, metavar="DIR", help=LOCAL_DIR_HELP)
    parser.add_argument("--no-ray", action="store_true", help="in this process, on one device")
    found = parser.parse_args(arguments)
    for option, number in (("--inputs", found.inputs), ("--seen-tasks", found.seen_tasks)):
        if number < 1:
            parser.error(f"{option} is {number}; it must be 1 or more")
    return found


def main() -> int:
    arguments = parse()
    from rich.console import Console

    from t2l.cluster.aims import Request
    from t2l.cluster.evaluators import alone, evaluate, on_ray
    from t2l.cluster.progress import LiveLine
    from t2l.config import BenchmarksConfig
    from t2l.embedded import CHECKPOINT_DIR
    from t2l.errors import T2LError
    from t2l.evaluation.records import ResultFile
    from t2l.evaluation.table import score_table

    names, folder, upstream = arguments.benchmarks, arguments.benchmark_dir, arguments.upstream
    benchmarks = None if names is None else BenchmarksConfig(names=tuple(names), path=folder, descriptions=upstream)
    request = Request(
        checkpoints=tuple(arguments.checkpoint or [CHECKPOINT_DIR]),
        libraries=tuple(arguments.library),
        splits=arguments.splits and tuple(arguments.splits.split(",")),
        methods=arguments.methods and tuple(arguments.methods.split(",")),
        inputs=arguments.inputs,
        seen_tasks=arguments.seen_tasks,
        slow=arguments.slow,
        benchmarks=benchmarks,
        run_code=arguments.run_code,
    )
    path: Path = arguments.output
    try:
        use_local_dir(arguments.local_dir)
        results = ResultFile.read(path) if path.exists() else ResultFile(command=" ".join(["python", *sys.argv]))
        with LiveLine(steps=0) as line:
            carry = alone if arguments.no_ray else on_ray
            evaluate(request, results, carry, path, lambda news: line.show({"phase": news}, []))
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    Console().print(score_table(results.records))
    print(f"results: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
