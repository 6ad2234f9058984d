"""Everything that README and report claim, from training to one result file; see docs/reproduce.md.

    python jobs/reproduce.py -o runs/evidence --list                            # print the commands and stop
    python jobs/reproduce.py -o runs/evidence --only 'sft_L_0' 'static_0'       # some of it
    python jobs/reproduce.py -o runs/evidence --no-ray --gpus 4 --at-once 16    # one machine of four GPUs

Started again, it goes on where it stopped. Ends with <output>/evidence.json.
"""

import argparse
import sys
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of names; what these need is not added")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    parser.add_argument("--at-once", type=int, default=1, help="commands at a time (default 1)")
    parser.add_argument(
        "--gpus", type=int, default=0, help="share out to so many GPUs (default: jobs take what they find)"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop then, to be started again")
    parser.add_argument("--no-ray", action="store_true")
    found = parser.parse_args(arguments)
    if found.at_once < 1 or found.gpus < 0:
        parser.error(f"--at-once is {found.at_once} and --gpus {found.gpus}: give at least 1, and at least 0")
    return found


def main() -> int:
    arguments = parse()
    import shlex

    from t2l.errors import T2LError
    from t2l.evaluation.records import ResultFile
    from t2l.evidence.plan import chosen
    from t2l.evidence.runner import Settings, carry_out, commands

    out: Path = arguments.output.absolute()
    settings = Settings(out, arguments.at_once, arguments.gpus, arguments.minutes, not arguments.no_ray)
    try:
        runs = chosen(arguments.only)
        if arguments.list:
            print("\n".join(shlex.join(command) for run in runs for command in commands(run, settings)))
            return 0
        left = carry_out(runs, settings, lambda news: print(news, flush=True))
        parts = [ResultFile.read(path) for path in sorted((out / "results").glob("*.json"))]
        ResultFile.merged(" ".join(["python", *sys.argv]), parts).write(out / "evidence.json")
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"results: {out / 'evidence.json'}" + (f"; not finished: {', '.join(left)}" if left else ""))
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
