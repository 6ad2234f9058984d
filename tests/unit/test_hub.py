"""Finding models: a folder, --local-dir, the hub after one probe; and sentences where there is nothing to find.

The hub is a small server with the real one's answers: status codes and the X-Error-Code header.
"""

import json
import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from t2l.cli import app
from t2l.config import BaseConfig
from t2l.errors import ConfigError, HubAccessError
from t2l.hub import LOCAL_DIR, environment, find, use_local_dir
from t2l.train.base import load_base

COMMIT = "a" * 40
ANSWERS = {
    "org/open": (200, None),
    "org/gated": (403, "GatedRepo"),
    "org/secret": (401, "RepoNotFound"),
    "org/down": (503, None),
}


class _Hub(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        name = "/".join(self.path.removeprefix("/datasets").strip("/").split("/")[:2])
        status, code = ANSWERS.get(name, (404, "RepoNotFound"))
        if "/resolve/gone/" in self.path:
            status, code = 404, "RevisionNotFound"
        self.send_response(status)
        headers = {"X-Error-Code": code, "X-Repo-Commit": COMMIT, "ETag": '"1"', "Content-Length": "0"}
        for key, value in headers.items():
            if value is not None:
                self.send_header(key, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


def _point_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does when a process starts."""
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What it was asked."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    _Hub.asked = []
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    _point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield _Hub.asked
    server.shutdown()


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _point_to("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A local directory, as --local-dir sets it."""
    monkeypatch.setenv(LOCAL_DIR, "")  # and so taken back after the test
    use_local_dir(tmp_path)
    return tmp_path


def test_a_folder_is_itself(tmp_path: Path, closed_port: None) -> None:
    assert find(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("place", ["org/model", "model"])
def test_the_local_directory_comes_before_the_hub(place: str, store: Path, closed_port: None) -> None:
    (store / place).mkdir(parents=True)
    assert find("org/model") == str(store / place)
    assert find("org/model", kind="dataset") == str(store / place)
    assert environment() == {LOCAL_DIR: str(store)}


def test_a_local_directory_that_is_none() -> None:
    with pytest.raises(ConfigError, match="the local directory /nowhere does not exist"):
        use_local_dir("/nowhere")
    assert "Invalid value for '--local-dir'" in CliRunner().invoke(app, ["run", "a", "b", "--local-dir", "/no"]).output


def test_one_request_tells_what_is_there(hub: list[str]) -> None:
    assert find("org/open") == "org/open"
    assert find("org/open", kind="dataset") == "org/open"
    assert hub == ["/org/open/resolve/main/config.json", "/datasets/org/open/resolve/main/README.md"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("org/gated", r"the model 'org/gated' is gated: accept its licence at http://\S+/org/gated and log in with"),
        ("org/secret", "the model 'org/secret' is neither a folder nor on the hub .or it is private."),
        ("org/missing", "the model 'org/missing' is neither a folder nor on the hub"),
        ("org/down", "the model 'org/down' cannot be fetched from http://.*503"),
        ("./folder", "there is no folder ./folder, and no hub can have that name: give the folder of a model"),
        ("/a/b/c", "there is no folder /a/b/c"),
    ],
)
def test_what_is_not_there_is_one_sentence_at_once(name: str, sentence: str, hub: list[str]) -> None:
    start = time.perf_counter()
    with pytest.raises(HubAccessError, match=sentence) as error:
        find(name)
    assert time.perf_counter() - start < 5
    assert "\n" not in str(error.value)
    assert len(hub) <= 1


def test_a_revision_that_is_not_there(hub: list[str]) -> None:
    with pytest.raises(HubAccessError, match="the model 'org/open' has no revision 'gone' on the hub"):
        find("org/open", "gone")


def test_a_gated_data_set(hub: list[str]) -> None:
    with pytest.raises(HubAccessError, match=r"the data set 'org/gated' is gated: .*/datasets/org/gated and log in"):
        find("org/gated", kind="dataset")


def test_no_hub_at_all(closed_port: None, store: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(HubAccessError, match=rf"cannot be fetched .*, or --local-dir \({store} does not hold it\)"):
        load_base(BaseConfig(path="org/model"), "cpu")
    assert time.perf_counter() - start < 5


def test_the_hub_s_cache_does_where_the_hub_is_out_of_reach(closed_port: None, tmp_path: Path) -> None:
    repository = tmp_path / "cache" / "models--org--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps({}))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    assert find("org/model") == str(snapshot)
    assert find("org/model", COMMIT) == str(snapshot)


def test_a_command_ends_with_the_sentence(hub: list[str], tiny_checkpoint: Path, tmp_path: Path) -> None:
    copied = _with_base(tiny_checkpoint, tmp_path / "checkpoint", "org/gated")
    outcome = CliRunner().invoke(app, ["run", "a", "b", "--checkpoint", str(copied)])
    assert outcome.exit_code == 1
    assert "error: the model 'org/gated' is gated" in outcome.output
    assert "Traceback" not in outcome.output


def test_a_command_finds_the_base_in_the_local_directory(
    closed_port: None, tiny_base: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOCAL_DIR, "")
    copied = _with_base(tiny_checkpoint, tmp_path / "checkpoint", "org/tiny")
    (tmp_path / "models" / "org").mkdir(parents=True)
    os.symlink(tiny_base, tmp_path / "models" / "org" / "tiny")
    command = ["generate", "sort", "-o", str(tmp_path / "adapter"), "--checkpoint", str(copied)]
    outcome = CliRunner().invoke(app, [*command, "--local-dir", str(tmp_path / "models")])
    assert outcome.exit_code == 0, outcome.output
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/tiny", "the name that holds everywhere"


def _with_base(checkpoint: Path, folder: Path, base: str) -> Path:
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    about = json.loads((folder / "config.json").read_text())
    about["run"]["base"]["path"] = base
    (folder / "config.json").write_text(json.dumps(about))
    return folder
