"""pass@1 of written code: one greedy answer, run against the reference's tests in a process that is held short."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from t2l.errors import DataError
from t2l.evaluation.answer_process import ANSWER_LINE, PASSED


@dataclass(frozen=True, slots=True)
class Limits:
    """What one answer may use. HumanEval's own harness allows 3 s; a busy machine needs a longer wall clock."""

    cpu_seconds: int = 5
    wall_seconds: float = 20.0
    memory_bytes: int = 2**30
    file_bytes: int = 2**20


def pass_at_1(answer: str, reference: str, limits: Limits = Limits()) -> float:
    """1 if the answer's Python passes the reference's tests (HumanEval, Chen et al. 2021; MBPP, Austin et al. 2021).

    answer: whole functions; prose and code fences around them are dropped (``answer_process.code_of``).
    reference: Python that runs after the answer's code and raises if it is wrong. HumanEval: its ``test``, then
        ``check(<entry point>)``; MBPP: its lines of ``assert``. What stands above a line ``# <answer>`` runs before the
        answer: HumanEval's prompt, with imports and helper functions that answers count on.

    All tests must run to their end: an answer that exits early, even with status 0, has not passed. The answer runs
    under ``limits`` in an isolated interpreter, with a temporary folder as its only place to write, no processes and no
    network (``answer_process``). That stops accidents, not attackers: it may read what the user may read.

    Raises DataError for a reference without tests, which any answer would pass.
    """
    if not reference.rpartition(ANSWER_LINE)[2].strip():
        raise DataError(f"the reference {reference!r} holds no tests: give Python that raises if the answer is wrong")
    script = Path(__file__).with_name("answer_process.py")
    order = json.dumps({"answer": answer, "reference": reference, "limits": asdict(limits)}).encode()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        # Own session: whatever the answer starts can be killed as one group. No tokens or keys in its environment.
        subprocess.Popen(
            [sys.executable, "-I", "-B", str(script)],
            cwd=folder,
            env={"HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process,
    ):
        try:
            written, _ = process.communicate(order, timeout=limits.wall_seconds)
        except subprocess.TimeoutExpired:
            return 0.0
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return float(written == PASSED)
