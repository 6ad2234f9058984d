"""pass@1 of written code: one greedy answer, run against the reference's tests in a process that is held short."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from t2l.tasks.references import check_reference

_ROOT = str(Path(__file__).parents[2])
# -I forgets PYTHONPATH, by which a Ray worker may have come to this package.
_PROGRAM = f"""
import sys
sys.path.insert(0, {_ROOT!r})
from t2l.evaluation.answer_process import main
del sys.path[0]
main()
"""


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
    network (``answer_process``). On Linux the kernel sees to that, and other files are not readable either; elsewhere
    Python does, which stops accidents and not attackers. What no harness stops is an answer made to please the tests,
    such as an object that equals everything.

    Raises DataError for a reference without tests, which any answer would pass.
    """
    check_reference("pass_at_1", reference)
    token = secrets.token_hex(16)
    order = {"answer": answer, "reference": reference, "limits": asdict(limits), "token": token}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _started(folder) as process:
        deadline = threading.Timer(limits.wall_seconds, _kill, [process])
        deadline.start()
        try:
            return float(_asked(process, json.dumps(order).encode(), len(token) + 1) == token.encode())
        finally:
            deadline.cancel()
            _kill(process)


def _started(folder: str) -> subprocess.Popen[bytes]:
    """In a session of its own, so that all of it can be killed; with no tokens or keys in its environment."""
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", _PROGRAM],
        cwd=folder,
        env={"HOME": folder, "TMPDIR": folder, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _asked(process: subprocess.Popen[bytes], order: bytes, most: int) -> bytes:
    """The first bytes of its reply to an order: however much it writes, no more is kept."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError), process.stdin as stdin:
        stdin.write(order)
    return process.stdout.read(most)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
