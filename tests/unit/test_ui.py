"""The parts of the chat page that need neither a browser nor a server."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serve.ui.cards import failed_card, made_card
from serve.ui.client import Adapter, Answer, ApiClient, PageError
from serve.ui.examples import EXAMPLES, inputs_for
from serve.ui.session import Session, messages

ROOT = Path(__file__).parents[2]
LONGEST_CHIP = 60
NEAR = Adapter("t2l-1", "sort the words", "base", 0.93, None, 0.0421)
FAR = Adapter("t2l-2", "<b>zxqv</b>", "base", 0.41, "this is far from what T2L was trained on")


@pytest.fixture
def nobody() -> str:
    """A local address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_card_of_a_near_description() -> None:
    card = made_card(NEAR)
    assert all(fact in card for fact in ("card made", "sort the words", "made in 42 ms", "nearness 0.93", "t2l-1"))
    assert "⚠" not in card


def test_the_card_of_a_far_one_warns_and_holds_no_markup_of_its_description() -> None:
    card = made_card(FAR)
    assert all(fact in card for fact in ("card far", "This is far from what T2L was trained on.", "&lt;b&gt;zxqv"))
    assert "made before" in card
    assert "&lt;b&gt;" in failed_card(PageError("<b>"))


def test_each_adapter_keeps_its_chat_and_the_newest_comes_first() -> None:
    said = [{"role": "user", "content": "owl"}]
    session = Session()
    session.leave([], [])
    session.add(NEAR)
    session.leave(said, said)
    session.add(FAR)
    assert session.chat == ([], [])
    assert list(session.adapters) == ["t2l-2", "t2l-1"]
    session.add(NEAR)
    assert session.chat == (said, said)
    assert list(session.adapters) == ["t2l-1", "t2l-2"]


def test_an_answer_as_it_stands() -> None:
    def texts(answer: Answer) -> list[str]:
        return [message["content"] for message in messages(answer)]

    assert texts(Answer()) == ["…"]
    assert texts(Answer("OW")) == ["OW"]
    assert texts(Answer(ended=True)) == []
    assert texts(Answer("OW", "It broke.", ended=True)) == ["OW", "⚠ It broke."]


def test_examples_fit_on_their_chips() -> None:
    for description, inputs in EXAMPLES.items():
        assert max(map(len, (description, *inputs))) <= LONGEST_CHIP, "Gradio cuts it there"
        assert inputs_for(f"{description}.") == inputs, "as the API writes it"
    assert len(inputs_for("of my own")) == 3


def test_an_api_that_is_down_is_named_in_one_sentence(nobody: str) -> None:
    async def ask() -> tuple[Answer, Answer]:
        async for answers in ApiClient(nobody, None).ask(NEAR, "owl"):
            last = answers
        return last

    sentence = f"The API at {nobody} does not answer: start it with make serve and try again."
    with pytest.raises(PageError) as failure:
        asyncio.run(ApiClient(nobody, None).make("sort"))
    assert str(failure.value) == sentence
    assert asyncio.run(ask()) == (Answer("", sentence, True), Answer("", sentence, True))


def test_the_command_says_that_it_waits(nobody: str) -> None:
    command = [sys.executable, "-m", "serve.ui", "--api", nobody]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Waiting for the API at {nobody} to be ready ...\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.terminate()


def test_help_is_instant_and_shows_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T2L_API_KEY", "secret")
    code = (
        "import sys; from serve.ui.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: assert not {'gradio', 'openai', 'torch'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--api-key" in run.stdout
    assert "secret" not in run.stdout
