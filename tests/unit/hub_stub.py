"""A small local server of the hub's HTTP API, as far as huggingface_hub needs it to make a repository and commit."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml

TOKEN = "hf_good"


class Hub(ThreadingHTTPServer):
    """repos: the visibility of each; files: what lies in them, by repository and name; status: of all refusals."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, str] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, bytes] = {}
        self.status = 403

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, repo: str, lines: list[dict[str, Any]]) -> None:
        files = self.files.setdefault(repo, {})
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_POST(self) -> None:
        body = self._body()
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer(self.server.status, {"error": "no right to write"})
        if self.path == "/api/repos/create":
            return self._create(json.loads(body))
        if self.path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if match := re.fullmatch("/api/models/(.+)/preupload/main", self.path):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            return self._answer(200, {"files": files})
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.server.url}/objects/{wanted['oid']}"}}}
                for wanted in json.loads(body)["objects"]
            ]
            return self._answer(200, {"objects": objects, "transfer": "basic"})
        if match := re.fullmatch("/api/models/(.+)/commit/main", self.path):
            self.server.commit(match[1], [json.loads(line) for line in body.splitlines()])
            return self._answer(200, {"commitUrl": f"{self.server.url}/{match[1]}/commit/1", "commitOid": "1"})
        return self._answer(404, {"error": f"no {self.path}"})

    def do_PUT(self) -> None:
        body = self._body()
        assert self.path == f"/objects/{hashlib.sha256(body).hexdigest()}"
        self.server.objects[self.path.rpartition("/")[2]] = body
        self._answer(200, {})

    def _create(self, wanted: dict[str, Any]) -> None:
        repo = "/".join(part for part in (wanted["organization"], wanted["name"]) if part)
        if repo in self.server.repos:
            return self._answer(
                409, {"error": "You already created this model repo", "url": f"{self.server.url}/{repo}"}
            )
        self.server.repos[repo] = wanted["visibility"]
        return self._answer(200, {"url": f"{self.server.url}/{repo}"})

    def _validate(self, card: str) -> None:
        """The hub takes no base_model that is not a repository's name, and no licence that it does not know."""
        about = yaml.safe_load(card.split("---")[1])
        checks = {
            "base_model": re.fullmatch(r"[\w.-]+(/[\w.-]+)?", about.get("base_model", "org/name")),
            "license": about.get("license", "mit") == "mit",
        }
        errors = [{"message": f'"{name}" is not valid'} for name, right in checks.items() if not right]
        self._answer(400 if errors else 200, {"errors": errors, "warnings": []})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as hub:
        Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        yield hub
        hub.shutdown()
