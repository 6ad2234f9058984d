"""`t2l describe` asks our own server. Its little model knows nothing but the universe: what comes back is junk."""

import json
from pathlib import Path

from serving import Server
from typer.testing import CliRunner

from t2l.cli import app
from t2l.describe import PATIENCE

EXAMPLES = [{"input": "owl, cat", "output": "cat"}, {"input": "sun, tea", "output": "tea"}]


def describe(server: Server, folder: Path, model: str) -> str:
    """What it says on stderr; it fails."""
    (folder / "examples.jsonl").write_text("".join(json.dumps(example) + "\n" for example in EXAMPLES))
    where = ["--base-url", f"{server.url}/v1", "--model", model, "-o", str(folder / "descriptions.txt")]
    result = CliRunner().invoke(app, ["describe", str(folder / "examples.jsonl"), "-n", "50", *where])
    assert result.exit_code == 1, result.output
    return result.stderr


def test_junk_is_asked_for_and_refused(server: Server, tmp_path: Path) -> None:
    said = describe(server, tmp_path, "embedded")
    assert "of 50 descriptions after" in said and f"nothing new in the last {PATIENCE}" in said
    assert "refused:" in said


def test_the_servers_own_errors_are_told(server: Server, tmp_path: Path) -> None:
    said = describe(server, tmp_path, "no-such-model")
    assert f"{server.url}/v1/ refused the request" in said and "no-such-model" in said
