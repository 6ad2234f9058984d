"""The process that runs one answer of ``pass_at_1``; only the standard library is imported, so it starts at once.

stdin: JSON {"answer", "reference", "limits", "token"}; stdout: the token if all tests ran to their end, else nothing.
The answer is not told the token, so what it prints or an early exit is no pass. But the token is in this process: code
that walks the interpreter's frames can find it, and say that it passed. Even parsing is done here, not by the caller:
Python's parser can crash on deeply nested text.
"""

import ast
import json
import os
import re
import resource
import sys
import textwrap
import types

from t2l.evaluation.confine import confine

ANSWER_LINE = "# <answer>\n"

_FENCE = re.compile(r"```[\w+-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENS_CODE = re.compile(r"\s*(?:(?:async\s+)?def\s|class\s|import\s|from\s+\S+\s+import\s|@\w|try:|\w+\s*=[^=])")

_FORBIDDEN = ("os.exec", "os.fork", "os.kill", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn", "subprocess.")
_WRITING = {f"os.{name}" for name in "chmod chown link mkdir remove rename rmdir symlink truncate utime".split()}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main() -> None:
    """Take the order from stdin, hold this process short, run the program."""
    order = json.load(sys.stdin)
    report = _silence()
    _limit(**order["limits"])
    _guard(os.getcwd())
    before, _, after = order["reference"].rpartition(ANSWER_LINE)
    _run(before, code_of(order["answer"]), after)
    os.write(report, order["token"].encode())


def code_of(answer: str) -> str:
    """The code in a model's answer: its first code block, or the whole of it, without prose above and below.

    Text that parses is kept whole, but for lines above that only look like code ("Answer: python"). In other text, code
    starts at the first line that opens some (def, class, import, decorator, try or assignment) and goes on as long as
    it parses, so that an answer cut off amid a second function keeps the first. An answer without such a line comes
    back as it is.
    """
    fenced = _FENCE.search(answer)
    for text in [fenced[1], answer] if fenced else [answer]:
        lines = text.splitlines()
        opening = next((i for i, line in enumerate(lines) if _OPENS_CODE.match(line)), len(lines))
        start = opening if opening == len(lines) else _first_statement(lines, opening)
        for end in range(len(lines), start, -1):
            code = textwrap.dedent("\n".join(lines[start:end]))
            if _parses(code):
                return code
    return answer


def _first_statement(lines: list[str], otherwise: int) -> int:
    """The line of the first statement that does something, if all of the text parses."""
    code = textwrap.dedent("\n".join(lines))
    doing = [one for one in ast.parse(code).body if not _is_idle(one)] if _parses(code) else []
    if not doing:
        return otherwise
    return min(part.lineno for part in (doing[0], *getattr(doing[0], "decorator_list", ()))) - 1


def _is_idle(statement: ast.stmt) -> bool:
    """An expression without a call, such as a docstring, or an annotation without a value."""
    if isinstance(statement, ast.Expr):
        return not any(isinstance(node, ast.Call) for node in ast.walk(statement))
    return isinstance(statement, ast.AnnAssign) and statement.value is None


def _parses(code: str) -> bool:
    try:
        compile(code, "answer.py", "exec")
    except (SyntaxError, ValueError):
        return False
    return True


def _silence() -> int:
    """What the answer prints goes nowhere; the true stdout is kept as the file descriptor that is returned."""
    report = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return report


def _limit(cpu_seconds: int, wall_seconds: float, memory_bytes: int, file_bytes: int) -> None:
    """Limits of the kernel. The caller keeps the wall clock. Linux binds root by all but the number of processes."""
    limits = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, limit in limits.items():
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _guard(folder: str) -> None:
    """From here on it starts no processes, reaches no network, and leaves files outside ``folder`` as they are.

    By the kernel where it can (confine.py), and by Python itself: an audit hook (PEP 578) is portable, and no Python
    code can take it off again. C code is not bound by it, so ctypes cannot be imported any more.
    """
    confine(folder)
    for name in ("ctypes", "ctypes._endian", "_ctypes"):
        sys.modules.pop(name, None)
    root = os.path.realpath(folder)

    def inside(path: object) -> bool:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return True  # a file descriptor: it was opened under this same guard
        real = os.path.realpath(os.fsdecode(path))
        return real == os.devnull or os.path.commonpath([root, real]) == root

    def hook(event: str, args: tuple) -> None:
        if event == "import" and args[0] == "_ctypes":
            raise ImportError(f"{args[0]} is not allowed")  # what works without, as numpy does, goes on
        network = event.startswith("socket.") and event != "socket.__new__"  # asyncio makes a pair for itself
        spawns = event == "import" and args[0].startswith("multiprocessing.popen")  # which raises no event of its own
        if network or spawns or event.startswith(_FORBIDDEN):
            raise PermissionError(f"{event} is not allowed")
        written = args[:1] if event == "open" and args[2] & _WRITE_FLAGS else args[:2] if event in _WRITING else ()
        if not all(inside(path) for path in written):
            raise PermissionError(f"{event} outside {root} is not allowed")

    sys.addaudithook(hook)


def _run(*parts: str) -> None:
    """One after another in one module, which is not ``__main__``: an answer's own command line is not what is tested.

    Each is compiled by itself, so that no answer's text can change how the tests are read.
    """
    module = types.ModuleType("answer")
    sys.modules["answer"] = module  # dataclasses and typing look their module up there
    for source in parts:
        exec(compile(source, "answer.py", "exec"), module.__dict__)
