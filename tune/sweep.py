"""Sweep over architecture and compression settings: Ray Tune over Ray Train and DeepSpeed, with ASHA.

    python tune/sweep.py --space small -o runs/sweep                         # two CPU cores, minutes
    python tune/sweep.py --space paper --budget scaled -o runs/paper_sweep   # a cluster of GPUs, see RAY_ADDRESS

Killed and started again with the same command, it goes on: ended trials are not repeated, the others go on from their
newest checkpoints. Leaves a run a trial in OUTPUT/trials, results.csv, and figures; prints the ranking.
"""

import argparse
import sys
from pathlib import Path

from t2l.hub import LOCAL_DIR_HELP, use_local_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for this folder's other files


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", required=True, help="what to vary: a name from tune/spaces.py")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the sweep")
    parser.add_argument("--config", type=Path, help="YAML file of the settings that do not vary; default: the space's")
    parser.add_argument(
        "--budget",
        choices=("fixed", "scaled"),
        default="fixed",
        help="train.steps for every trial, or in proportion to its number of training tasks (default fixed)",
    )
    parser.add_argument("--local-dir", type=Path, metavar="DIR", help=LOCAL_DIR_HELP)
    parser.add_argument("--concurrent", type=int, help="trials at a time; default: as many as the cluster holds")
    parser.add_argument("--samples", type=int, help="try so many of the space's trials, drawn at random; default: all")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings over the file's")
    found = parser.parse_args(arguments)
    for option, number in (("--concurrent", found.concurrent), ("--samples", found.samples)):
        if number is not None and number < 1:
            parser.error(f"{option} is {number}; it must be 1 or more")
    return found


def main() -> int:
    arguments = parse()
    from t2l.errors import T2LError
    from tune.spaces import plan, space_of

    output = arguments.output.absolute()
    try:
        use_local_dir(arguments.local_dir)
        space = space_of(arguments.space)
        base = arguments.config or ROOT / space.base
        runs = plan(space, base, arguments.overrides, output, arguments.budget, arguments.samples)
        from t2l.cluster.sweep import Halving, run_sweep
        from t2l.files import sole_user

        with sole_user(output):
            errors = run_sweep(runs, Halving(space.parts, space.reduction), output / "ray", arguments.concurrent)
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    from rich.console import Console

    from tune.plots import draw
    from tune.results import ranked_table, read_rows, write_csv

    rows = read_rows(runs, space.keys, errors)
    write_csv(rows, output / "results.csv")
    figures = draw(rows, {name: run.hypernet.variant for name, run in runs.items()}, output)
    console = Console()
    console.width = max(console.width, 100)
    console.print(ranked_table(rows, f"{arguments.space}: {len(rows)} trials"))
    print("results:", *(output / "results.csv", *figures), sep="\n  ")
    for name, error in errors.items():
        print(f"error: trial {name} failed: {error}", file=sys.stderr)
    return 0 if all(row.ended in ("finished", "stopped") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
