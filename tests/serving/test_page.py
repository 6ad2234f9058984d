"""The chat page in headless Chromium, against the running application; its screenshots are in runs/screenshots/."""

import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from serving import Server

from t2l.lora.peft_io import load_peft

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "runs" / "screenshots"
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH: apt-get install chromium")

SORT, FIRST_TWO, JUNK = "sort the words from z to a", "take the first two words and put them in capital letters", "zxqv"
WORDS = "owl, shirt, apple, saw"
TIMEOUT_MS = 30_000
expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def address(server: Server) -> Iterator[str]:
    with page_of(server.url) as address:
        yield address


@contextmanager
def page_of(api: str, code: str = "from serve.ui.__main__ import main; main()") -> Iterator[str]:
    """Start the page for an API, by its own command unless other code is given; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", code, "--api", api, "--port", str(port)], cwd=ROOT)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def wait_for(address: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            httpx.get(address).raise_for_status()
            return
        except httpx.TransportError:
            assert time.monotonic() < end, f"nothing answers at {address}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class ChatPage:
    """The page as a visitor sees it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.description = page.get_by_label("What shall the model do?")
        self.card = page.locator(".card")
        self.picker = page.get_by_label("Your adapters")
        self.question = page.get_by_label("Ask both")
        panels = page.locator(".chat-panel")
        expect(panels).to_have_count(2)
        self.base, self.adapted = panels.all()

    def make(self, description: str) -> None:
        self.description.fill(description)
        self.page.get_by_role("button", name="Make the adapter").click()
        expect(self.card).to_contain_text(description)

    def ask(self, text: str) -> None:
        expect(self.question).to_be_enabled()
        self.question.fill(text)
        self.question.press("Enter")

    def choose(self, description: str) -> None:
        self.picker.click()
        self.page.get_by_role("option", name=description).click()
        expect(self.card).to_contain_text(description)

    def screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def last_answer(panel: Locator) -> Locator:
    return panel.get_by_test_id("bot").last


@pytest.fixture
def chat(browser: Browser, address: str, server: Server) -> Iterator[ChatPage]:
    """A first visit: there are no adapters."""
    for adapter in server.http.get("/v1/adapters").json()["data"]:
        server.http.delete(f"/v1/adapters/{adapter['id']}").raise_for_status()
    with opened(browser, address) as chat:
        yield chat


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[ChatPage]:
    """A visit, in which nothing is asked of another host and no script fails."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    hosts: set[str] = set()
    failures: list[str] = []
    page.on("request", lambda request: hosts.add(httpx.URL(request.url).netloc.decode()))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(address)
    page.get_by_role("button", name="Make the adapter").wait_for()
    yield ChatPage(page)
    context.close()
    assert hosts == {httpx.URL(address).netloc.decode()}
    assert not failures


def test_describe_make_and_compare(chat: ChatPage) -> None:
    chat.page.get_by_role("button", name=SORT).click()
    expect(chat.description).to_have_value(SORT)
    chat.make(SORT)
    expect(chat.card).to_have_class(re.compile("made"))
    expect(chat.card).to_contain_text(re.compile(r"made in \d+ ms"))
    expect(chat.card).to_contain_text(re.compile(r"nearness 0\.\d\d"))
    expect(chat.card).to_contain_text(re.compile(r"t2l-[0-9a-f]{32}"))
    chat.ask(WORDS)
    expect(last_answer(chat.adapted)).to_have_text("shirt, saw, owl, apple")
    expect(last_answer(chat.base)).not_to_have_text("…")
    assert last_answer(chat.base).inner_text() != last_answer(chat.adapted).inner_text()
    chat.ask("river, cat, hammer, honey, scarf")
    expect(last_answer(chat.adapted)).to_have_text("scarf, river, honey, hammer, cat")
    expect(chat.question).to_have_value("")
    chat.screenshot("compare")


def test_answers_grow_in_both_panels_at_once(chat: ChatPage) -> None:
    chat.make(SORT)
    watch = """panels => { window.seen = panels.map(() => new Set()); panels.forEach((panel, i) => new MutationObserver(
        () => panel.querySelectorAll('[data-testid=bot]').forEach(bot => window.seen[i].add(bot.innerText.trim()))
    ).observe(panel, {childList: true, subtree: true, characterData: true})) }"""
    chat.page.locator(".chat-panel").evaluate_all(watch)
    chat.ask("lion, park, bread, hat, drill, pear")
    expect(last_answer(chat.adapted)).to_have_text("pear, park, lion, hat, drill, bread")
    for texts in chat.page.evaluate("window.seen.map(texts => [...texts])"):
        grown = sorted((text for text in texts if text != "…"), key=len)
        assert len(grown) >= 2, f"not streamed: {texts}"
        assert all(longer.startswith(shorter) for shorter, longer in pairwise(grown))


def test_each_adapter_has_its_own_chat(chat: ChatPage) -> None:
    expect(chat.question).to_be_disabled()
    chat.make(SORT)
    chat.ask(WORDS)
    expect(last_answer(chat.adapted)).to_have_text("shirt, saw, owl, apple")
    chat.make(FIRST_TWO)
    expect(chat.adapted.get_by_test_id("bot")).to_have_count(0)
    chat.ask(WORDS)
    expect(last_answer(chat.adapted)).to_have_text("OWL, SHIRT")
    chat.choose(SORT)
    expect(last_answer(chat.adapted)).to_have_text("shirt, saw, owl, apple")
    chat.page.get_by_role("button", name="Clear the chat").click()
    expect(chat.adapted.get_by_test_id("bot")).to_have_count(0)
    expect(chat.base.get_by_test_id("bot")).to_have_count(0)
    chat.choose(FIRST_TWO)
    expect(last_answer(chat.adapted)).to_have_text("OWL, SHIRT")


def test_a_download_is_a_peft_adapter(chat: ChatPage, tmp_path: Path) -> None:
    chat.make(SORT)
    with chat.page.expect_download() as download:
        chat.page.get_by_role("link", name="Download this one").click()
    id = chat.card.locator("code").inner_text()
    assert download.value.suggested_filename == f"{id}.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path)
    assert len(load_peft(tmp_path / id)) == 1


def test_a_far_description_warns(chat: ChatPage) -> None:
    chat.make(JUNK)
    expect(chat.card).to_have_class(re.compile("far"))
    expect(chat.card).to_contain_text("may not do what the description says")
    chat.screenshot("far")


def test_it_fits_a_narrow_window(chat: ChatPage) -> None:
    chat.page.set_viewport_size({"width": 420, "height": 900})
    chat.make(SORT)
    chat.ask(WORDS)
    expect(last_answer(chat.adapted)).to_have_text("shirt, saw, owl, apple")
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= 420
    chat.screenshot("narrow")


@pytest.mark.parametrize(("description", "sentence"), [(" ", "There is no description"), ("x" * 100_000, "100,?000")])
def test_a_refusal_is_a_sentence(chat: ChatPage, description: str, sentence: str) -> None:
    chat.description.fill(description)
    chat.page.get_by_role("button", name="Make the adapter").click()
    expect(chat.card).to_have_class(re.compile("failed"))
    expect(chat.card).to_contain_text(re.compile(sentence))
    expect(chat.page.get_by_text("Traceback")).to_have_count(0)


def test_an_adapter_that_was_deleted_elsewhere(chat: ChatPage, server: Server) -> None:
    chat.make(FIRST_TWO)
    id = chat.card.locator("code").inner_text()
    server.http.delete(f"/v1/adapters/{id}").raise_for_status()
    chat.ask(WORDS)
    expect(last_answer(chat.adapted)).to_contain_text(f"⚠ No adapter '{id}'")
    expect(last_answer(chat.base)).not_to_contain_text("⚠")


def test_the_api_is_down(browser: Browser) -> None:
    api = "http://127.0.0.1:9"
    start = (
        "import sys, uvicorn; from serve.ui.client import ApiClient; from serve.ui.page import page_app\n"
        "uvicorn.run(page_app(ApiClient(sys.argv[2], None)), port=int(sys.argv[4]), log_level='warning')"
    )  # its own command would wait for the API
    with page_of(api, start) as address, opened(browser, address) as chat:
        for _ in ("as it opens", "when asked"):
            expect(chat.card).to_have_class(re.compile("failed"))
            expect(chat.card).to_contain_text(f"The API at {api} does not answer")
            chat.description.fill(SORT)
            chat.page.get_by_role("button", name="Make the adapter").click()
        expect(chat.question).to_be_disabled()
        chat.screenshot("api-down")
