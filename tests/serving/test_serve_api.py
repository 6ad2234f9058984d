"""The API as the real `openai` client sees it, on the real application (conftest.py)."""

import io
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionUserMessageParam
from peft import PeftModel
from serving import Server
from transformers import AutoModelForCausalLM, AutoTokenizer

from t2l.embedded import BASE_DIR
from t2l.tasks.universe import universe

TASK = universe(None).test[0]
DESCRIPTION = TASK.unseen_descriptions[0]
QUESTIONS: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": TASK.test[0].input}]
ADAPTED = {"task_description": DESCRIPTION}


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return server.client


@pytest.fixture(scope="module")
def adapter(server: Server) -> str:
    reply = server.http.post("/v1/adapters", json={"descriptions": [DESCRIPTION]})
    return reply.json()["data"][0]["id"]


def ask(client: openai.OpenAI, model: str = "embedded", **parameters: object) -> ChatCompletion:
    return client.chat.completions.create(model=model, messages=QUESTIONS, **{"max_tokens": 48, **parameters})  # type: ignore[call-overload]


def test_a_description_changes_the_answer_as_it_asks(client: openai.OpenAI, adapter: str) -> None:
    adapted = ask(client, extra_body=ADAPTED)
    assert adapted.choices[0].message.content == TASK.test[0].output
    assert adapted.choices[0].finish_reason == "stop"
    assert adapted.model == adapter
    assert adapted.model_dump()["t2l"] == {"adapter": adapter, "nearness": pytest.approx(1, abs=1), "warning": None}
    assert ask(client, model=adapter).choices[0].message.content == TASK.test[0].output
    base = ask(client)
    assert base.model == "embedded" and "t2l" not in base.model_dump()
    assert base.choices[0].message.content != TASK.test[0].output


def test_junk_is_answered_with_a_warning(client: openai.OpenAI) -> None:
    note = ask(client, extra_body={"task_description": "xq zzv 77 qqq kjh"}).model_dump()["t2l"]
    assert "far from what T2L was trained on" in note["warning"]


@pytest.mark.parametrize("extra", [{}, ADAPTED])
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, extra: dict[str, str]) -> None:
    whole = ask(client, extra_body=extra)
    chunks = list(
        client.chat.completions.create(
            model="embedded",
            messages=QUESTIONS,
            max_tokens=48,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=extra,
        )
    )
    first, *_, last, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert ("t2l" in first.model_dump()) == bool(extra)
    assert all("t2l" not in chunk.model_dump() for chunk in chunks[1:])
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert usage.choices == [] and usage.usage == whole.usage
    assert {chunk.id for chunk in chunks} == {first.id}


def test_usage_counts_the_tokens_of_prompt_and_answer(client: openai.OpenAI) -> None:
    reply = ask(client, max_tokens=7, extra_body={"ignore_eos": True})
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    prompt = tokenizer.apply_chat_template(QUESTIONS, add_generation_prompt=True, return_dict=False)
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 7
    assert reply.usage.prompt_tokens == len(prompt)
    assert reply.usage.total_tokens == len(prompt) + 7


def test_choices_differ_and_a_seed_repeats_them(client: openai.OpenAI) -> None:
    def draw(seed: int) -> list[str | None]:
        reply = ask(client, n=3, temperature=1.5, seed=seed, max_tokens=16, extra_body={"ignore_eos": True})
        assert [choice.index for choice in reply.choices] == [0, 1, 2]
        return [choice.message.content for choice in reply.choices]

    first = draw(5)
    assert len(set(first)) == 3
    assert draw(5) == first
    assert draw(6)[:2] == first[1:]  # choice i is drawn with seed + i


def test_streamed_choices_keep_apart(client: openai.OpenAI) -> None:
    parameters = {"model": "embedded", "messages": QUESTIONS, "n": 3, "temperature": 1.5, "seed": 3, "max_tokens": 12}
    whole = client.chat.completions.create(**parameters)  # type: ignore[call-overload]
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**parameters, stream=True):  # type: ignore[call-overload]
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_a_stop_string_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    text = ask(client, max_tokens=24, extra_body={"ignore_eos": True}).choices[0].message.content or ""
    stop = text[len(text) // 2 :][:3]
    stopped = ask(client, max_tokens=24, stop=["never there", stop], extra_body={"ignore_eos": True}).choices[0]
    assert stopped.message.content == text[: text.index(stop)]
    assert stopped.finish_reason == "stop"


def test_completions_answer_prompt_by_prompt(client: openai.OpenAI) -> None:
    prompts = ["apple, pear", "one, two, three"]
    parameters = {"model": "embedded", "max_tokens": 8, "temperature": 1, "seed": 1}
    both = client.completions.create(prompt=prompts, n=2, **parameters)  # type: ignore[call-overload]
    alone = [client.completions.create(prompt=prompt, n=2, **parameters) for prompt in prompts]  # type: ignore[call-overload]
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in both.choices] == [choice.text for reply in alone for choice in reply.choices]
    chunks = client.completions.create(prompt=prompts[0], n=1, stream=True, **parameters)  # type: ignore[call-overload]
    assert "".join(chunk.choices[0].text for chunk in chunks) == alone[0].choices[0].text


def test_models_are_the_base_and_its_adapters(client: openai.OpenAI, adapter: str) -> None:
    models = {model.id: model.model_dump() for model in client.models.list()}
    assert models["embedded"]["parent"] is None
    assert models[adapter]["parent"] == "embedded"
    assert client.models.retrieve(adapter).id == adapter
    assert client.models.retrieve("embedded").id == "embedded"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


def test_adapters_are_made_listed_and_deleted(server: Server) -> None:
    texts = [f"Say the word number {number} of the list." for number in ("two", "three", "four")]
    made = server.http.post("/v1/adapters", json={"descriptions": [*texts, texts[0]]}).json()
    ids = [one["id"] for one in made["data"]]
    assert len(set(ids)) == 3 and ids[3] == ids[0]
    assert all(re.fullmatch(r"t2l-[0-9a-f]{32}", id) for id in ids)
    assert made["seconds"]["encode"] > 0 and made["seconds"]["generate"] > 0
    again = server.http.post("/v1/adapters", json={"descriptions": [f"  {texts[0]} "]}).json()
    assert again["data"][0] == made["data"][0] and again["seconds"]["encode"] == 0

    listed, after = [], ""
    while True:
        page = server.http.get(f"/v1/adapters?limit=2{after}").json()
        listed += [one["id"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = f"&after={listed[-1]}"
    assert set(ids) <= set(listed) and len(listed) == len(set(listed))
    lost = server.http.get(f"/v1/adapters?after=t2l-{'0' * 32}")
    assert lost.status_code == 400 and lost.json()["error"]["param"] == "after"

    one = f"/v1/adapters/{ids[0]}"
    assert server.http.get(one).json() == made["data"][0]
    assert server.http.delete(one).json() == {"id": ids[0], "object": "adapter", "deleted": True}
    for call in (server.http.get(one), server.http.delete(one), server.http.get(f"{one}/download")):
        assert call.status_code == 404 and "POST its description" in call.text


def test_a_download_is_a_peft_folder_that_answers_as_the_server_does(
    server: Server, client: openai.OpenAI, adapter: str, tmp_path: Path
) -> None:
    reply = server.http.get(f"/v1/adapters/{adapter}/download")
    assert reply.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(reply.content)) as archive:
        assert {Path(name).parts[0] for name in archive.namelist()} == {adapter}
        archive.extractall(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(BASE_DIR)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE_DIR), str(tmp_path / adapter))
    prompt = tokenizer.apply_chat_template(QUESTIONS, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=48, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(output, skip_special_tokens=True) == ask(client, model=adapter).choices[0].message.content


def test_the_client_raises_openai_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="n is 9; the limit is 8") as refused:
        ask(client, n=9)
    assert refused.value.param == "n" and refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="t2l-" + "0" * 32)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="not supported"):
        ask(client, tools=[{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(openai.BadRequestError, match="characters"):
        ask(client, extra_body={"task_description": "x" * 4001})


def test_over_long_descriptions_are_refused_and_disturb_nobody(server: Server) -> None:
    """4,000 characters are read by models that take as many tokens, which the shipped one does not."""
    long = "Say the word that comes last. "
    texts = [long * 48, long * 133, "x" * 4_001, *(f"Say the word number {number}." for number in range(24))]
    with ThreadPoolExecutor(len(texts)) as pool:  # at once, so that they share batches
        made = list(pool.map(lambda text: server.http.post("/v1/adapters", json={"descriptions": [text]}), texts))
    assert [reply.status_code for reply in made] == [200, 400, 400] + [200] * 24
    assert "tokens, of which the text encoder reads 490: shorten it" in made[1].text


def test_large_bodies_are_refused(server: Server) -> None:
    body = json.dumps({"descriptions": ["x" * (64 << 20)]})
    assert (
        server.http.post("/v1/adapters", content=body, headers={"Content-Type": "application/json"}).status_code == 413
    )


def test_metrics_count_what_was_asked(server: Server, client: openai.OpenAI) -> None:
    names = (
        "t2l_answered_completion_tokens_total",
        "t2l_time_to_first_token_seconds_count",
        "t2l_generated_tokens_total",
    )
    before = [server.metric(name) for name in names]
    ask(client, max_tokens=5, extra_body={"ignore_eos": True})
    after = [server.metric(name) for name in names]
    assert [late - early for early, late in zip(before, after, strict=True)] == [5, 1, 5]
    assert server.metric("t2l_adapter_generation_seconds_count") > 0
    assert server.metric("t2l_adapters_known") > 0
