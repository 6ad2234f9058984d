"""`t2l describe` asks our own server. Its little model knows nothing but the universe: what comes back is junk."""

import json
from pathlib import Path

from serving import Server
from typer.testing import CliRunner, Result

from t2l.cli import app

EXAMPLES = [{"input": "owl, cat", "output": "cat"}, {"input": "sun, tea", "output": "tea"}]


def describe(server: Server, folder: Path, model: str) -> Result:
    (folder / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES))
    where = ["--base-url", f"{server.url}/v1", "--model", model, "-o", str(folder / "descriptions.txt")]
    return CliRunner().invoke(app, ["describe", str(folder / "examples.jsonl"), "-n", "2", *where])


def test_what_it_answers_is_read_and_judged(server: Server, tmp_path: Path) -> None:
    result = describe(server, tmp_path, "embedded")
    assert "of 2 descriptions after 1 request" in result.stdout, result.output
    written = (tmp_path / "descriptions.txt").read_text().splitlines()
    assert len(written) == 2 if result.exit_code == 0 else "nothing new in the last" in result.stderr


def test_its_errors_are_told(server: Server, tmp_path: Path) -> None:
    result = describe(server, tmp_path, "no-such-model")
    assert result.exit_code == 1
    assert f"{server.url}/v1/ refused the request" in result.stderr and "no such model" in result.stderr
