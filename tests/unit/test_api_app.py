"""The whole FastAPI app, up to where it would ask another deployment: there is none here, so refusals come before."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any, cast

import pytest
from openai.types.chat import ChatCompletionMessage
from prometheus_client import generate_latest
from starlette.testclient import TestClient
from tiny import tiny_tokenizer

from serve.api.about import About
from serve.api.app import build_app
from serve.api.auth import KeyRing
from serve.api.catalog import Catalog
from serve.api.metrics import GatewayMetrics
from serve.api.prompts import Prompts
from serve.api.services import Services
from serve.settings import Limits
from serve.store import AdapterStore

CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "hello"}]}
TEXT: dict[str, Any] = {"model": "base", "prompt": "hello"}
LIMITS = Limits(
    body_bytes=20_000, description_characters=50, descriptions=2, max_tokens=32, n=3, stop=2, adapters_per_key=4
)
ID = "t2l-" + "0" * 32


def services(folder: str) -> Services:
    nobody = cast(Any, None)
    about = About("base", "sha", "fingerprint", folder, max_length=64)
    metrics = GatewayMetrics(lambda: 0)
    catalog = Catalog(about, AdapterStore(LIMITS.adapters_per_key), peers=nobody, backends=nobody)
    return Services(about, LIMITS, Prompts(about), catalog, peers=nobody, backends=nobody, metrics=metrics)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def client(folder: str) -> TestClient:
    return TestClient(build_app(services(folder), KeyRing(())), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def locked(folder: str) -> TestClient:
    digest = hashlib.sha256(b"secret").hexdigest()
    return TestClient(build_app(services(folder), KeyRing((digest,))), raise_server_exceptions=False)


def error(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return body["error"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n": 4}, "n"),
        ({"max_tokens": 33}, "max_tokens"),
        ({"stop": ["a", "b", "c"]}, "stop"),
        ({"task_description": "x" * 51}, "task_description"),
        ({"task_description": " \n"}, "task_description"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"model": 1}, "model"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "x", "refusal": "no"}]}, "messages.0.refusal"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content.0.type"),
    ],
)
def test_chat_refuses_and_names_the_parameter(client: TestClient, changes: dict[str, Any], named: str) -> None:
    assert error(client.post("/v1/chat/completions", json={**CHAT, **changes}), 400)["param"] == named


def test_what_asks_for_nothing_is_accepted(client: TestClient) -> None:
    """An answer goes back into the history with all that the client's object holds."""
    answer = ChatCompletionMessage(role="assistant", content="x").model_dump()
    assert len(answer) > 5
    nothing = dict.fromkeys(
        ("reasoning_effort", "verbosity", "prediction", "tools", "ignore_eos", "max_tokens", "stop")
    )
    body = {**CHAT, "messages": [*CHAT["messages"], answer], **nothing, "model": "no"}
    error(client.post("/v1/chat/completions", json=body), 404)


@pytest.mark.parametrize(
    "changes", [{"prompt": ["a", "b"], "n": 2}, {"prompt": []}, {"prompt": ""}, {"echo": True}, {"best_of": 2}]
)
def test_completions_refuse(client: TestClient, changes: dict[str, Any]) -> None:
    error(client.post("/v1/completions", json={**TEXT, **changes}), 400)


def test_a_prompt_that_leaves_no_room_is_refused_with_its_length(client: TestClient) -> None:
    long = client.post("/v1/completions", json={**TEXT, "prompt": "x" * 64})
    assert error(long, 400)["code"] == "context_length_exceeded"
    assert "64 tokens" in long.text
    too_much = client.post("/v1/completions", json={**TEXT, "prompt": "x" * 40, "max_tokens": 25})
    assert error(too_much, 400)["code"] == "context_length_exceeded"


@pytest.mark.parametrize("model", ["gpt-4", "t2l-123", ID + "\n", "../" + ID, ID.upper()])
def test_other_models_do_not_exist(client: TestClient, model: str) -> None:
    assert error(client.post("/v1/chat/completions", json={**CHAT, "model": model}), 404)["code"] == "model_not_found"


def test_a_description_goes_with_the_base_model_only(client: TestClient) -> None:
    body = {**CHAT, "model": ID, "task_description": "Sort."}
    assert "task_description" in error(client.post("/v1/chat/completions", json=body), 400)["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"model": NaN}',
        b'{"temperature": Infinity}',
        json.dumps({**CHAT, "temperature": 1.0}).replace("1.0", "1e999").encode(),
        b'{"model": "\\ud800"}',
        b'{"model": "\xff"}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
        b'{"seed": ' + b"9" * 5_000 + b"}",
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/adapters"])
def test_what_is_not_json_or_no_object_is_refused(client: TestClient, path: str, body: bytes) -> None:
    error(client.post(path, content=body, headers={"Content-Type": "application/json"}), 400)


def test_a_content_type_other_than_json_is_refused(client: TestClient) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        headers = {"Content-Type": content_type}
        error(client.post("/v1/completions", content=json.dumps(TEXT), headers=headers), 415)
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    error(client.post("/v1/completions", content=json.dumps({**TEXT, "model": "no"}), headers=headers), 404)


def test_too_large_bodies_are_refused_by_their_length_or_as_they_come(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1000
            yield b" " * 1000

    error(client.post("/v1/completions", content=b" " * 20_001, headers=headers), 413)
    error(client.post("/v1/completions", content=endless(), headers=headers), 413)
    error(client.post("/v1/completions", content=b"", headers={**headers, "Content-Length": "9" * 5000}), 413)
    error(client.post("/v1/completions", content=b" " * 20_000, headers=headers), 400)
    error(client.post("/nowhere", content=b" " * 20_001), 413)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/adapters/x",
        f"/v1/adapters/{ID}x",
        f"/v1/adapters/{ID}%0a",
        "/v1/adapters/..%2f..%2fetc%2fpasswd",
        "/v1/adapters/%00",
        "/v1/adapters/%ff/download",
        "/v1/models/..%2f..",
        "/v1/models/t2l-zz",
        "/nowhere",
    ],
)
def test_ids_match_exactly_or_there_is_nothing(client: TestClient, path: str) -> None:
    error(client.get(path), 404)


def test_descriptions_are_bounded_in_number_and_length(client: TestClient) -> None:
    for descriptions in ([], ["a", "b", "c"], ["x" * 51], ["x" * 10_000], [""], ["\x1c"], [1], "text"):
        error(client.post("/v1/adapters", json={"descriptions": descriptions}), 400)


def test_unknown_methods_and_query_values(client: TestClient) -> None:
    assert client.get("/v1/chat/completions").headers["Allow"] == "POST"
    assert client.put("/v1/adapters").headers["Allow"] == "POST, GET"
    error(client.get("/v1/chat/completions"), 405)
    for query in ("limit=0", "limit=1001", "limit=x", "after=x"):
        error(client.get(f"/v1/adapters?{query}"), 400)


def test_with_keys_only_health_answers_without_one(locked: TestClient) -> None:
    paths = [*cast(Any, locked.app).openapi()["paths"], "/docs", "/redoc", "/openapi.json", "/nowhere", "/"]
    for path in set(paths) - {"/health"}:
        for method in ("GET", "POST", "DELETE"):
            refused = locked.request(method, path.replace("{id}", ID))
            assert error(refused, 401)["code"] == "invalid_api_key"
            assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert locked.get("/health").json() == {"status": "ok"}
    for bad in ("Bearer wrong", "Bearer", "Basic secret", "secret", "Bearer secretx", "Bearer sécret"):
        error(locked.get("/openapi.json", headers={"Authorization": bad.encode("latin-1")}), 401)  # type: ignore[dict-item]
    assert locked.get("/openapi.json", headers={"Authorization": "bearer secret"}).status_code == 200


def test_a_body_is_not_read_without_a_key(locked: TestClient) -> None:
    error(locked.post("/v1/completions", content=b" " * 30_000), 401)


def test_the_document_declares_limits_errors_and_keys(client: TestClient, locked: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert schemas["ChatBody"]["properties"]["n"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 3}
    assert schemas["ChatBody"]["properties"]["max_completion_tokens"]["anyOf"][0]["maximum"] == 32
    assert schemas["ChatBody"]["properties"]["seed"]["anyOf"][0]["maximum"] == 2**63 - 1
    assert schemas["AdapterBody"]["properties"]["descriptions"]["maxItems"] == 2
    assert schemas["AdapterBody"]["properties"]["descriptions"]["items"]["maxLength"] == 50
    for path in document["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"]
            assert {"401", "404", "413", "503", "504"} <= set(operation["responses"])
            assert "security" not in operation
    with_keys = locked.get("/openapi.json", headers={"Authorization": "Bearer secret"}).json()
    assert with_keys["paths"]["/v1/adapters"]["post"]["security"] == [{"HTTPBearer": []}]


def test_requests_are_counted_by_route_and_status(folder: str) -> None:
    own = services(folder)
    client = TestClient(build_app(own, KeyRing(())))
    client.get("/health")
    client.get("/nowhere")
    client.get("/v1/adapters/1")
    client.get("/v1/adapters/2")
    text = generate_latest(own.metrics.registry).decode()
    assert 't2l_http_requests_total{route="/health",status="200"} 1.0' in text
    assert 't2l_http_requests_total{route="none",status="404"} 1.0' in text
    assert 't2l_http_requests_total{route="/v1/adapters/{id}",status="404"} 2.0' in text
    assert "t2l_http_requests_in_flight 0.0" in text


def test_a_bug_answers_500_in_the_same_shape(client: TestClient) -> None:
    error(client.post("/v1/chat/completions", json=CHAT), 500)  # there is no LLM here
