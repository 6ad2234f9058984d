"""The page: describe a task, make its adapter, ask the base model and the adapted one the same thing."""

from collections.abc import AsyncGenerator, Iterable
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any

import gradio as gr
from fastapi import FastAPI, Path, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import PlainTextResponse
from gradio import themes

from serve.ui.cards import failed_card, made_card
from serve.ui.client import ApiClient, PageError
from serve.ui.examples import EXAMPLES, inputs_for
from serve.ui.session import Chat, Session, messages

INTRO = """<h1>Text-to-LoRA</h1>
<p>Describe a task. A hypernetwork turns the sentence into a LoRA adapter,
and the same model does it without being told again.</p>"""
STYLE = FilePath(__file__).with_name("style.css")


def page_app(client: ApiClient) -> FastAPI:
    """The page and its downloads; nothing in it comes from another host."""
    app = FastAPI(openapi_url=None)
    # Otherwise another site could give its own name this address, and use the page and its key.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    @app.get("/download/{id}")
    async def download(id: Annotated[str, Path(pattern="^t2l-[0-9a-f]+$")]) -> Response:
        """The API's zip, by way of this server: a link in the browser could not carry the key."""
        try:
            archive = await client.archive(id)
        except PageError as failure:
            return PlainTextResponse(str(failure), 502)
        disposition = f'attachment; filename="{id}.zip"'
        return Response(archive, media_type="application/zip", headers={"Content-Disposition": disposition})

    theme = themes.Base(primary_hue="teal", neutral_hue="slate", font=["sans-serif"], font_mono=["monospace"])
    blocks = Page(client).blocks.queue(default_concurrency_limit=None)  # the API has the limits
    return gr.mount_gradio_app(app, blocks, "/", theme=theme, css_paths=STYLE, footer_links=[], ssr_mode=False)


class Page:
    """The components, and what they do."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        with gr.Blocks(title="Text-to-LoRA", analytics_enabled=False) as self.blocks:
            self._session = gr.State(Session())
            gr.HTML(INTRO, elem_id="intro", padding=False)
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    self._lay_out_making()
                with gr.Column(scale=5, min_width=320):
                    self._lay_out_chats()
            self._connect()

    def _lay_out_making(self) -> None:
        # Neither takes anything before `_load` is done, which would put its own view in place of what came of it.
        self._description = gr.Textbox(
            label="What shall the model do?", placeholder="in your words", max_lines=6, interactive=False
        )
        self._examples = _chips(EXAMPLES, "For example")
        self._make_button = gr.Button("Make the adapter", variant="primary", size="md", interactive=False)
        self._card = gr.HTML(padding=False)
        with gr.Column(visible=False) as self._made_before:
            self._picker = gr.Dropdown(label="Your adapters", interactive=True)
            self._download = gr.Button("Download this one (zip)", size="md")

    def _lay_out_chats(self) -> None:
        with gr.Row():
            self._base = _panel("Base model", "Answers without being told what to do")
            self._adapted = _panel("With your adapter", "Answers as you described")
        self._text = _question(enabled=False)
        with gr.Row():
            self._inputs = _chips(inputs_for(""), "Inputs that fit")
            self._clear = gr.Button("Clear the chat", size="sm", scale=0, min_width=120)

    def _connect(self) -> None:
        panels = [self._base, self._adapted]
        chosen = [self._made_before, self._picker, self._download, self._text, self._inputs]
        view = [self._session, self._card, *chosen, *panels]
        asking = self._text.submit(
            self._ask,
            [self._session, self._text, *panels],
            [self._text, *panels],
            show_progress="hidden",
            trigger_mode="always_last",  # what is sent while an answer still streams comes next
        )
        making = [self._description, self._make_button]
        self.blocks.load(self._load, self._session, [*making, *view], show_progress="hidden")
        # First the answers stop, then the panels change: at once, a late word could land in another adapter's chat.
        stop = partial(gr.on, fn=None, cancels=[asking], queue=False)
        make = stop([self._make_button.click, self._description.submit])
        # Nor may one begin while the adapter is made.
        make.then(lambda: gr.Textbox(interactive=False), None, self._text).then(
            self._make, [self._session, self._description, *panels], view
        )
        stop(self._picker.input).then(self._choose, [self._session, self._picker, *panels], view)
        stop(self._clear.click).then(lambda: ([], []), None, panels)
        self._examples.click(_text_of, self._examples, self._description)
        self._inputs.click(_text_of, self._inputs, self._text)

    async def _load(self, session: Session) -> list[Any]:
        ready = [gr.Textbox(interactive=True), gr.Button(interactive=True)]
        try:
            adapters = await self._client.adapters()
        except PageError as failure:
            return [*ready, *_view(session, failed_card(failure))]
        session.adapters = {adapter.id: adapter for adapter in adapters}
        session.chosen = adapters[0].id if adapters else None
        return [*ready, *_view(session)]

    async def _make(self, session: Session, description: str, base: Chat, adapted: Chat) -> list[Any]:
        session.leave(base, adapted)
        try:
            if not description.strip():
                raise PageError("There is no description: write what the model shall do.")
            adapter = await self._client.make(description)
        except PageError as failure:
            return _view(session, failed_card(failure))
        session.add(adapter)
        return _view(session)

    def _choose(self, session: Session, id: str, base: Chat, adapted: Chat) -> Any:
        if id == session.chosen:  # Gradio's dropdown may say it twice
            return gr.skip()
        session.leave(base, adapted)
        session.chosen = id
        return _view(session)

    async def _ask(
        self, session: Session, text: str, base: Chat, adapted: Chat
    ) -> AsyncGenerator[tuple[Any, Chat, Chat], None]:
        """Each input is answered on its own: what was said before is shown, not sent."""
        adapter = session.adapter
        assert adapter is not None  # there is no box to ask in before
        if not text.strip():
            yield "", base, adapted
            return
        asked = [{"role": "user", "content": text}]
        yield "", base + asked, adapted + asked
        async for base_answer, adapted_answer in self._client.ask(adapter, text):
            # The box is left alone: the next input may be in it already.
            yield gr.skip(), base + asked + messages(base_answer), adapted + asked + messages(adapted_answer)


def _view(session: Session, card: str | None = None) -> list[Any]:
    """Everything that depends on the chosen adapter, in the order of `view`; card: instead of the adapter's own."""
    adapter = session.adapter
    choices = [(adapter.description, adapter.id) for adapter in session.adapters.values()]
    return [
        session,
        card or ("" if adapter is None else made_card(adapter)),
        gr.Column(visible=adapter is not None),
        gr.Dropdown(choices=choices, value=session.chosen),
        gr.Button(link=None if adapter is None else f"/download/{adapter.id}"),
        _question(enabled=adapter is not None),
        gr.Dataset(samples=_samples(inputs_for("" if adapter is None else adapter.description))),
        *session.chat,
    ]


def _panel(label: str, placeholder: str) -> gr.Chatbot:
    return gr.Chatbot(
        label=label,
        placeholder=placeholder,
        height="max(300px, 100vh - 340px)",
        min_width=320,
        render_markdown=False,  # an answer is text, whatever it looks like
        buttons=[],
        feedback_options=None,
        elem_classes="chat-panel",
    )


def _question(enabled: bool) -> gr.Textbox:
    placeholder = "owl, shirt, apple, saw" if enabled else "make an adapter first"
    return gr.Textbox(label="Ask both", placeholder=placeholder, interactive=enabled, max_lines=4, submit_btn=enabled)


def _chips(texts: Iterable[str], label: str) -> gr.Dataset:
    """Texts to click on."""
    return gr.Dataset(label=label, components=[gr.Textbox(visible=False)], samples=_samples(texts))


def _text_of(sample: list[str]) -> str:
    return sample[0]


def _samples(texts: Iterable[str]) -> list[list[str]]:
    return [[text] for text in texts]
