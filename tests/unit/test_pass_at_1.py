"""pass@1 on answers that are right, wrong, wordy, endless and ill-behaved."""

import ctypes
import subprocess
import sys
import time
from pathlib import Path

import pytest

from t2l.errors import DataError
from t2l.evaluation.answer_process import code_of
from t2l.evaluation.pass_at_1 import Limits, pass_at_1

ADD = "def add(a, b):\n    return a + b"
MBPP = "assert add(1, 2) == 3\nassert add(-1, 1) == 0"
HUMAN_EVAL = '''from typing import List

def double(x: int) -> int:
    return 2 * x

def doubles(xs: List[int]) -> List[int]:
    """Each number twice."""
# <answer>
METADATA = {}

def check(candidate):
    assert candidate([1, 2]) == [2, 4]

check(doubles)
'''


def _has_landlock() -> bool:
    return sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, 0, 1) >= 1


@pytest.mark.parametrize(
    "answer",
    [
        ADD,
        f"Here you go:\n\n```python\n{ADD}\n```\nIt adds, e.g. `add(1, 2)`.",
        f"```\n{ADD}",
        f"{ADD}\n```\nThat is all.",
        f"python\n{ADD}\n\nThis function adds its arguments.",
        f"Use this:\n\n    {ADD.replace(chr(10), chr(10) + '    ')}\n\nDone.",
        f"{ADD}\n\ndef another(a,\n",  # cut off
    ],
)
def test_code_is_found_among_prose(answer: str) -> None:
    assert code_of(answer).strip() == ADD


@pytest.mark.parametrize("head", ["MAX, MIN = 3, 4", "N: int = 3", "if True:\n    N = 3", "@staticmethod"])
def test_code_that_parses_loses_nothing(head: str) -> None:
    code = f"{head}\n{ADD}"
    for answer in (code, f"Here:\n```python\n{code}\n```", f"python\n{code}", f"Answer: code\n{code}"):
        assert code_of(answer).strip() == code


def test_constants_above_a_function_are_run() -> None:
    answer = "MAX, MIN = 1, 0\nZERO: int = MIN\n\ndef add(a, b):\n    return a + b + ZERO"
    assert pass_at_1(answer, MBPP) == 1


def test_an_answer_without_code_is_left_alone() -> None:
    assert code_of("I cannot say.") == "I cannot say."


@pytest.mark.parametrize(
    "answer",
    [
        f"Sure!\n```python\n{ADD}\n```",
        f"{ADD}\nprint('x' * 10**6)",
        f"{ADD}\nif __name__ == '__main__':\n    add(int(input()), 1)",
        f"from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n{ADD}",
        f"import os, tempfile\nopen('mine', 'w').write('x')\ntempfile.mkstemp()\nos.remove('mine')\n{ADD}",
    ],
)
def test_right_answers_to_mbpp(answer: str) -> None:
    assert pass_at_1(answer, MBPP) == 1


def test_human_eval_runs_its_prompt_before_the_answer() -> None:
    right = "def doubles(xs: List[int]) -> List[int]:\n    return [double(x) for x in xs]"
    assert pass_at_1(right, HUMAN_EVAL) == 1
    assert pass_at_1(right.replace("double(x)", "x"), HUMAN_EVAL) == 0
    assert pass_at_1("", HUMAN_EVAL) == 0


@pytest.mark.parametrize(
    "answer",
    [
        "def add(a, b):\n    return a - b",
        "def add(a, b)\n    return a + b",
        "I cannot say.",
        "",
        f"{ADD}\nraise SystemExit(0)",
        f"{ADD}\nimport os\nos._exit(0)",
        f"def add(a, b):\n    return {'(' * 5000}a + b{')' * 5000}",
    ],
)
def test_wrong_answers(answer: str) -> None:
    assert pass_at_1(answer, MBPP) == 0


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("import os\nwhile True:\n    os.fork()", "PermissionError"),
        ("import subprocess\nsubprocess.run(['true'])", "PermissionError"),
        ("import multiprocessing as m\nm.get_context('spawn').Process(target=print).start()", "PermissionError"),
        ("import os\nos.kill(os.getppid(), 0)", "PermissionError"),
        ("import socket\nsocket.create_connection(('127.0.0.1', 9), 1)", "PermissionError"),
        ("x = bytearray(10**10)", "MemoryError"),
        ("open('big', 'wb').write(bytes(2 * 2**20))", "OSError"),
        ("import ctypes", "ImportError"),
    ],
)
def test_ill_behaved_answers_are_refused(line: str, error: str) -> None:
    indented = line.replace("\n", "\n    ")
    caught = f"{ADD}\ntry:\n    {indented}\nexcept {error}:\n    pass\nelse:\n    raise SystemExit"
    assert pass_at_1(caught, MBPP) == 1


@pytest.mark.parametrize(
    "line",
    [
        "for file in range(3, 64):\n    try: os.write(file, b'passed')\n    except OSError: pass\nos._exit(0)",
        "for file in range(3, 64):\n    try: os.write(file, bytes(2**24))\n    except OSError: pass",
        "check = lambda candidate: None\nadd = None",
        "import builtins\nbuiltins.AssertionError = ValueError\nadd = lambda a, b: 0",
        "sys.excepthook = lambda *error: None\nadd = lambda a, b: 0",
        "add = lambda a, b: sys.exit(0)",
        "add = lambda a, b: 0\n'''",
    ],
)
def test_answers_cannot_say_that_they_passed(line: str) -> None:
    tests = "def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n'''"
    tests = tests.removesuffix("" if line.endswith("'''") else "'''")
    assert pass_at_1(f"import os, sys\n{ADD}\n{line}", tests) == 0


def test_answers_may_begin_with_imports_from_the_future() -> None:
    answer = "from __future__ import annotations\n\ndef doubles(xs: list[int]) -> L:\n    return [2 * x for x in xs]"
    assert pass_at_1(answer, HUMAN_EVAL) == 1, "though HumanEval's prompt runs before them"


KERNEL = """
import os, socket, sys, threading
from t2l.evaluation.confine import confine
parent, outside, folder = os.getppid(), *sys.argv[1:]
confine(folder)
def refused(deed):
    try: deed()
    except PermissionError: return True
    return False
deeds = [
    os.fork, socket.socket, lambda: os.execv("/bin/true", ["true"]), lambda: os.kill(parent, 0),
    lambda: os.setpriority(os.PRIO_PROCESS, parent, 5), lambda: os.pidfd_open(parent),
    lambda: open(outside), lambda: open(outside, "w"), lambda: os.remove(outside), lambda: os.mkfifo(outside + "2"),
    lambda: open(f"/proc/{parent}/environ"), lambda: os.listdir("/"),
]
assert all([refused(deed) for deed in deeds]), [refused(deed) for deed in deeds]
open(folder + "/mine", "w").write("x")
thread = threading.Thread(target=print, args=("walled in",))
thread.start()
thread.join()
"""


@pytest.mark.skipif(not _has_landlock(), reason="this kernel has no Landlock: Python's own guard is all there is")
def test_the_kernel_confines_whatever_python_would_let_through(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.write_text("as it was")
    folder.mkdir()
    command = [sys.executable, "-c", KERNEL, str(outside), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "walled in\n", done.stderr
    assert outside.read_text() == "as it was"


@pytest.mark.skipif(not _has_landlock(), reason="this kernel has no Landlock: files can be read")
def test_the_callers_environment_and_files_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    for path in ("/proc/{os.getppid()}/environ", "/proc/self/environ", str(tmp_path / "token")):
        tried = f"import os\ntry:\n    open(f'{path}').read()\nexcept PermissionError:\n    pass\nelse:\n    sys.exit()"
        assert pass_at_1(f"{tried}\n{ADD}", MBPP) == 1


def test_a_reference_must_test_something() -> None:
    with pytest.raises(DataError, match="no tests"):
        pass_at_1(ADD, "import math\n# <answer>\n")


def test_endless_answers_end() -> None:
    assert 0.9 < _seconds_of_failure("while True:\n    pass", Limits(cpu_seconds=1)) < 15
    assert 0.4 < _seconds_of_failure("import time\ntime.sleep(60)", Limits(wall_seconds=0.5)) < 15


def _seconds_of_failure(end: str, limits: Limits) -> float:
    start = time.monotonic()
    assert pass_at_1(f"{ADD}\n{end}", MBPP, limits) == 0
    return time.monotonic() - start


@pytest.mark.parametrize(
    "line", ["open({!r}, 'w')", "import os; os.remove({!r})", "import shutil; shutil.rmtree({!r})"]
)
def test_files_elsewhere_are_safe(tmp_path: Path, line: str) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    target = str(tmp_path if "rmtree" in line else kept)
    assert pass_at_1(f"{ADD}\nimport os\nos.chdir('/')\n{line.format(target)}", MBPP) == 0
    assert kept.read_text() == "as it was"


def test_the_environment_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert pass_at_1(f"import os\nassert 'HF_TOKEN' not in os.environ\n{ADD}", MBPP) == 1
