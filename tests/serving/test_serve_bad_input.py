"""Whatever is sent to the live application: no 5xx, no hang, no growth, and it answers as before."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from serving import Server, ask

CHAT, ADAPTERS = "/v1/chat/completions", "/v1/adapters"
JSON = {"content-type": "application/json"}
NESTED = b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def bodies() -> Iterator[tuple[str, bytes]]:
    message = b'{"model": "embedded", "messages": [{"role": "user", "content": %s}], "max_tokens": 2 %s}'
    yield CHAT, b""
    yield CHAT, b"{"
    yield CHAT, b"\xff\xfe\x00"
    yield CHAT, NESTED
    yield CHAT, message % (b"NaN", b"")
    yield CHAT, message % (b'"owl"', b', "temperature": NaN')
    yield CHAT, message % (b'"owl"', b', "temperature": 1e999')
    yield CHAT, message % (b'"owl"', b', "seed": ' + b"9" * 5000)
    yield CHAT, message % (rb'"\ud800"', b"")
    yield CHAT, message % (b'"owl"', rb', "task_description": "\udfff"')
    yield CHAT, message % (b'"owl"', b', "task_description": ""')
    yield CHAT, message % (b'"' + b"owl " * 250_000 + b'"', b"")
    yield CHAT, message % (b'"owl"', b', "task_description": "' + b"x" * 1_000_000 + b'"')
    yield ADAPTERS, b'{"descriptions": [""]}'
    yield ADAPTERS, b'{"descriptions": []}'
    yield ADAPTERS, b'{"descriptions": ["' + b"x" * 1_000_000 + b'"]}'
    yield ADAPTERS, b'{"descriptions": [' + b'"a",' * 1000 + b'"a"]}'


@pytest.mark.parametrize(("path", "body"), bodies(), ids=lambda value: str(value)[:40])
def test_nonsense_is_refused_in_openai_form(server: Server, path: str, body: bytes) -> None:
    reply = server.http.post(path, content=body, headers=JSON)
    assert 400 <= reply.status_code < 500
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/config.json", "t2l-" + "g" * 32, "t2l-", "%00", "a" * 9000],
)
@pytest.mark.parametrize("end", ["", "/download"])
def test_names_never_become_paths(server: Server, name: str, end: str) -> None:
    reply = server.http.get(f"/v1/adapters/{name}{end}")
    assert reply.status_code in (404, 414)
    assert "root:" not in reply.text


def test_64_mb_bodies_are_refused_and_leave_no_trace(server: Server) -> None:
    def post(_: int) -> int:
        try:
            return server.http.post(CHAT, content=b" " * (64 << 20), headers=JSON).status_code
        except httpx.TransportError:  # refused while it was still being sent
            return 413

    def memory() -> int:
        names = ("ServeReplica:t2l", "ProxyActor")
        return sum(
            process.memory_info().rss
            for process in psutil.process_iter(["cmdline"])
            if any(name in " ".join(process.info["cmdline"] or []) for name in names)
        )

    post(0)
    before = memory()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(post, range(12))) == {413}
    assert memory() - before < 512 << 20  # 768 MB were sent
    assert ask(server, None, "owl, saw")


def test_schemathesis_finds_no_fault(server: Server, tmp_path: Path) -> None:
    """Left out: valid by the schema, yet refused. A document cannot say that prompts × n or prompt + answer fit."""
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert command is not None
    arguments = ["--max-examples", "5", "--phases", "coverage,fuzzing", "--request-timeout", "60"]
    checks = ["--exclude-checks", "positive_data_acceptance", "--generation-deterministic", "--no-color"]
    run = subprocess.run(
        [command, "run", f"{server.url}/openapi.json", *arguments, *checks],
        capture_output=True, text=True, cwd=tmp_path, timeout=280,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-5000:]
    assert ask(server, None, "owl, saw")
