"""`t2l describe`: the rules, and the command against a small server that speaks OpenAI's format."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from t2l.cli import app
from t2l.describe import BATCH, PATIENCE, SHOWN, Rules, describe, lines_of
from t2l.errors import DescriptionError
from t2l.tasks.task import Example

REVIEWS = [
    Example(f"The {thing} was {word} and I would go there again any day", "positive" if word == "fine" else "negative")
    for thing in ("food", "room", "staff", "pool")
    for word in ("fine", "awful")
]
VERBS = ("Judge", "Assess", "Sense", "Find", "Weigh", "Tell", "Discern", "Gauge")
GOOD = [f"{verb} the mood of what a guest number {i} says of a place" for i in range(30) for verb in VERBS]


@dataclass
class FakeModel:
    """Answers as it is told to, one reply a request, the last one again and again; an int is an HTTP status."""

    replies: list[str | int]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def reply(self, request: dict[str, Any], key: str | None) -> tuple[int, dict[str, Any]]:
        self.requests.append(request)
        self.keys.append(key)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, int):
            return reply, {"error": {"message": "that went wrong", "type": "x", "code": None, "param": None}}
        message = {"role": "assistant", "content": reply}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return 200, {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


@pytest.fixture
def model() -> Iterator[tuple[FakeModel, str]]:
    fake = FakeModel([""])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = fake.reply(body, self.headers["authorization"])
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield fake, f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"input": e.input, "output": e.output}) + "\n" for e in REVIEWS))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["describe", *map(str, arguments)])


def numbered(texts: list[str]) -> str:
    return "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))


# ---- the rules


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Find out how people feel about the places that they visited.", None),
        ("Judge somebody's mood: is it a happy or an angry guest who writes?", None),
        ("Two sentences are given, and one sentence may follow from the other.", None),
        ("Reason about which word of a sentence a pronoun stands for.", None),
        ("", "too short or too long"),
        ("Judge the mood.", "too short or too long"),
        ("Judge " + "very " * 200 + "well.", "too short or too long"),
        ("I'm sorry, but I cannot describe what this task is about.", "that decline"),
        ("For instance, the food was awful and I would rather stay away.", "that quote an example"),
        ("Say whether someone will GO there again, any day of the week.", None),
        ("Reviews say things like: and I would go there, again any day.", "that quote an example"),
        ("Decide whether the mood of a review is positive or negative.", "that give the answer's format away"),
        ("Find positive reviews among all that guests of a place write.", None),
        ("Tell the mood of a text and answer with a single word.", "that give the answer's format away"),
        ("This multiple-choice task is about the mood of a text.", "that give the answer's format away"),
        ("Is the claim about a text right? Say true or false.", "that give the answer's format away"),
        ("Choose between option A and another by the mood of a text.", "that give the answer's format away"),
        ("Read a text and return its mood as JSON for a program.", "that give the answer's format away"),
        ("Your response should be a comma-separated list of moods.", "that give the answer's format away"),
    ],
)
def test_what_is_refused(text: str, reason: str | None) -> None:
    assert Rules(REVIEWS, []).refuse(text) == reason


def test_what_another_one_says_is_refused_whatever_its_case_order_and_punctuation() -> None:
    rules = Rules(REVIEWS, ["Judge the mood of a guest."])
    assert rules.refuse("judge the MOOD, of a guest") == "that say what another says"
    assert rules.refuse("Of a guest, the mood judge!") == "that say what another says"
    assert rules.refuse("Judge the mood of a visitor.") is None
    assert rules.refuse("Judge the mood of a visitor.") == "that say what another says"


def test_short_examples_are_quoted_only_as_a_whole() -> None:
    rules = Rules([Example("owl, cat, pear", "pear"), Example("sun, tea", "tea")], [])
    assert rules.refuse("Such as with owl, cat, pear, find the last word.") == "that quote an example"
    assert rules.refuse("Find what is last among owl, sun, tea and the like.") is None, "two words are no quotation"


def test_open_answers_have_no_labels() -> None:
    answers = ["paris", "rome", "oslo"]
    rules = Rules([Example(f"The capital of country {i}", answer) for i, answer in enumerate(answers)], [])
    assert rules.refuse("Name capitals of countries, such as paris or rome or oslo.") is None


@pytest.mark.parametrize(
    "reply",
    [
        "1. One is this.\n2. Two is that.",
        "Here are two descriptions:\n\n1) One is this.\n\n2) Two is that.\n\nI hope that helps!",
        "**Description 1:** One is this.\n**Description 2:** Two is that.",
        '- "One is this."\n* Two is that.',
        "One is this.\nTwo is that.",
        "Description 1: One is this.\nDescription 2: Two is that.",
    ],
)
def test_descriptions_are_found_in_replies(reply: str) -> None:
    assert lines_of(reply) == ["One is this.", "Two is that."]


def test_requests_show_other_examples_each_time_and_a_few_descriptions_that_there_are() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return numbered(GOOD[len(asked) * 4 : len(asked) * 4 + 4])

    *_, last = describe(ask, REVIEWS, [], 12)
    assert len(asked) == last.requests == 3
    shown = [[example for example in REVIEWS if example.input in prompt] for prompt in asked]
    assert all(len(few) == SHOWN for few in shown) and len({str(few) for few in shown}) > 1
    assert f"Write {BATCH} descriptions" in asked[0]
    assert "write others" not in asked[0]
    assert sum(text in asked[2] for text in last.descriptions) == SHOWN


# ---- the command


def test_descriptions_are_written_in_batches_and_refusals_are_counted(
    model: tuple[FakeModel, str], examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = model
    bad = ["Positive or negative, tell which mood it is.", GOOD[0].upper(), "The pool was awful and I would say so."]
    fake.replies = [numbered(GOOD[:15]), numbered([*bad, *GOOD[15:30]]), numbered(GOOD[30:60])]
    out = tmp_path / "new" / "descriptions.txt"
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    result = run(examples, "-n", 40, "--base-url", url, "--model", "some-model", "-o", out)
    assert result.exit_code == 0, result.output
    assert out.read_text().splitlines() == GOOD[:40]
    assert "15 of 40 descriptions after 1 request\n" in result.stdout
    assert "30 of 40 descriptions after 2 requests; refused: 1 that give" in result.stdout
    assert "1 that quote an example" in result.stdout and "1 that say what another says" in result.stdout
    assert [request["model"] for request in fake.requests] == ["some-model"] * 3
    assert set(fake.keys) == {"Bearer a-key"}


def test_what_the_file_holds_is_kept(model: tuple[FakeModel, str], examples: Path, tmp_path: Path) -> None:
    fake, url = model
    out = tmp_path / "descriptions.txt"
    fake.replies = [numbered(GOOD[:10]), 400]
    stopped = run(examples, "-n", 20, "--base-url", url, "--model", "m", "-o", out)
    assert stopped.exit_code == 1 and "refused the request (Error code: 400" in stopped.stderr
    assert out.read_text().splitlines() == GOOD[:10], "kept for another start"
    fake.replies = [numbered(GOOD[5:20])]
    assert run(examples, "-n", 20, "--base-url", url, "--model", "m", "-o", out).exit_code == 0
    assert out.read_text().splitlines() == GOOD[:20]
    asked = len(fake.requests)
    assert run(examples, "-n", 20, "--base-url", url, "--model", "m", "-o", out).exit_code == 0
    assert len(fake.requests) == asked, "there is nothing left to do"


def test_a_model_that_has_no_more_to_say(model: tuple[FakeModel, str], examples: Path, tmp_path: Path) -> None:
    fake, url = model
    fake.replies = [numbered(GOOD[:3]), numbered([*GOOD[:2], "too short"])]
    out = tmp_path / "descriptions.txt"
    result = run(examples, "-n", 9, "--base-url", url, "--model", "m", "-o", out)
    assert result.exit_code == 1
    assert f"the model wrote 3 of 9 descriptions after {1 + PATIENCE} requests; refused: 10 that say" in result.stderr
    assert out.read_text().splitlines() == GOOD[:3]
    with pytest.raises(DescriptionError, match="0 of 9 descriptions"):
        list(describe(lambda prompt: "I cannot.", REVIEWS, [], 9))


def test_an_endpoint_that_is_not_there_or_wants_a_key(
    model: tuple[FakeModel, str], examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, url = model
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    fake.replies = [401]
    result = run(examples, "--base-url", url, "--model", "m", "-o", tmp_path / "out.txt")
    assert result.exit_code == 1 and f"{url}/ wants another key: set OPENAI_API_KEY" in result.stderr
    monkeypatch.setattr("openai._constants.MAX_RETRY_DELAY", 0.0)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.0)
    result = run(examples, "--base-url", "http://127.0.0.1:9/v1", "--model", "m", "-o", tmp_path / "out.txt")
    assert result.exit_code == 1 and "http://127.0.0.1:9/v1/ cannot be reached" in result.stderr
    assert not (tmp_path / "out.txt").exists()
