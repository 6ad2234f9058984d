"""All tests, in three lanes at once. Most of them wait for processes to start, so one lane runs in the gaps of another.

    python tests/lanes.py            # what `make test` runs; each lane's log is in runs/tests/ too
    python -m pytest tests/unit      # one lane by itself

Serving and training have a Ray of their own each; unit tests give way to both.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "runs" / "tests"
LANES = {"serving": ["tests/serving"], "training": ["tests/integration", "tests/gpu"], "unit": ["tests/unit"]}
NICE = {"unit": 19}  # Ray runs its workers at 15


def start(name: str) -> subprocess.Popen[bytes]:
    command = ["nice", "-n", str(NICE.get(name, 0)), sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["--durations=12", "--durations-min=5"]
    with (LOGS / f"{name}.log").open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command + LANES[name], cwd=ROOT, env=environment, stdout=log, stderr=log)


def main() -> int:
    LOGS.mkdir(parents=True, exist_ok=True)
    begun, failed = time.monotonic(), 0
    running = {name: start(name) for name in LANES}
    while running:
        time.sleep(0.5)
        for name in [name for name, lane in running.items() if lane.poll() is not None]:
            code = running.pop(name).returncode
            failed += code != 0
            print(f"==== {name}: {'FAILED' if code else 'passed'} after {time.monotonic() - begun:.0f} s", flush=True)
            print((LOGS / f"{name}.log").read_text(errors="replace"), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
