"""Lint and all tests, in four lanes at once. Much of it waits for processes to start: one runs in the gaps of others.

    python tests/lanes.py            # what `make test` runs; each lane's log is in runs/tests/ too
    python -m pytest tests/unit      # one lane by itself

Serving and training have a Ray of their own each; what needs none gives way to both.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "runs" / "tests"
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=12", "--durations-min=5")
GIVE_WAY = ("nice", "-n", "19")  # Ray runs its workers at 15
LANES = {
    "serving": (*PYTEST, "tests/serving"),
    "training": (*PYTEST, "tests/integration", "tests/gpu"),
    "unit": (*GIVE_WAY, *PYTEST, "tests/unit"),
    "lint": (*GIVE_WAY, "make", "lint"),
}
# One thread a process, as there are many; each of them reads our own modules as bytecode.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}


def start(name: str) -> subprocess.Popen[bytes]:
    with (LOGS / f"{name}.log").open("wb") as log:
        return subprocess.Popen(LANES[name], cwd=ROOT, env=ENVIRONMENT, stdout=log, stderr=log)


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
