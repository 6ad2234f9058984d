"""Runs the small CPU benchmarks and holds their ratios to the committed ones, with a wide margin: `make bench-check`.

A ratio to a peer in the same run changes little from machine to machine; what falls below MARGIN of the committed one
has become slow. Exits with 1 then, and names it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from claims import claims, read

MARGIN = 0.6


def fresh(name: str) -> dict:
    """The result of a new run, in a process of its own."""
    script = Path(__file__).with_name(f"{name}.py")
    output = subprocess.run([sys.executable, str(script)], check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    slower = 0
    for name, committed in read("cpu").items():
        print(f"benchmarks/{name}.py ...", flush=True)
        for now, before in zip(claims(fresh(name)), claims(committed), strict=True):
            bad = now.ratio < MARGIN * before.ratio
            slower += bad
            verdict = "SLOWER" if bad else "ok"
            print(f"{verdict:7} {now.work} / {now.peer}: {now.ratio:.2f} (committed {before.ratio:.2f})", flush=True)
    return min(slower, 1)


if __name__ == "__main__":
    sys.exit(main())
