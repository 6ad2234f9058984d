"""Parts of the HTTP side on their own: keys, store, events, merged streams, metrics, errors of other deployments."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from serve.api.auth import KeyRing, check_bind
from serve.api.backends import api_error
from serve.api.completions import side_by_side
from serve.api.errors import ApiError
from serve.api.generation import merged
from serve.api.metrics import merged_metrics
from serve.api.requests import AdapterBody, ChatBody, CompletionBody
from serve.api.sse import DONE, event_stream
from serve.protocol import BusyError, Delta
from serve.replica_metrics import ReplicaMetrics
from serve.store import AdapterEntry, AdapterStore
from t2l.errors import ConfigError, DescriptionError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted({*ChatBody.model_fields, *CompletionBody.model_fields})


def entry(id: str, created: int = 0) -> AdapterEntry:
    return AdapterEntry(id, f"description of {id}", np.zeros(2, np.float32), 0.5, None, created)


@settings(max_examples=200, deadline=None)
@given(body=st.dictionaries(st.sampled_from(FIELDS) | st.text(), JSON, max_size=6) | JSON)
def test_any_json_is_valid_or_a_validation_error(body: object) -> None:
    for model in (ChatBody, CompletionBody, AdapterBody):
        try:
            checked = model.model_validate(body)
        except ValidationError:
            continue
        assert isinstance(body, dict) and set(body) <= set(model.model_fields)
        assert checked.model_dump_json(exclude_unset=True)


def test_of_a_list_the_first_wrong_item_is_told_of() -> None:
    with pytest.raises(ValidationError) as refused:
        AdapterBody.model_validate({"descriptions": ["fine", 1, 2, 3]})
    assert [error["loc"] for error in refused.value.errors()] == [("descriptions", 1)]
    with pytest.raises(ValidationError) as refused:
        ChatBody.model_validate({"model": "m", "messages": [{}, {}, {}]})
    assert {error["loc"][:2] for error in refused.value.errors()} == {("messages", 0)}


def test_openai_parameters_without_effect_are_accepted() -> None:
    body = {"model": "m", "messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}]}
    neutral = {"tools": [], "logit_bias": {}, "presence_penalty": 0, "response_format": {"type": "text"}}
    checked = ChatBody.model_validate({**body, **neutral, "user": "me", "store": True, "metadata": {"a": "b"}})
    assert checked.messages[0].for_template() == {"role": "system", "content": "a"}


def test_keys_tell_tenants_apart() -> None:
    digests = tuple(hashlib.sha256(key.encode()).hexdigest() for key in ("one", "schlüssel"))
    keys = KeyRing(digests)
    assert keys.tenant("Bearer one") == digests[0][:16]
    assert keys.tenant("Bearer schlüssel".encode().decode("latin-1")) == digests[1][:16]
    assert keys.tenant("Bearer ") is None and keys.tenant("") is None and keys.tenant(f"Bearer {digests[0]}") is None
    assert KeyRing(()).tenant("") == ""


def test_public_addresses_need_keys() -> None:
    for host in ("0.0.0.0", "::", "", "10.0.0.1", "example.org"):
        with pytest.raises(ConfigError, match="T2L_API_KEYS"):
            check_bind(host, KeyRing(()))
        check_bind(host, KeyRing(("digest",)))
    for host in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        check_bind(host, KeyRing(()))


def test_store_drops_the_least_recently_used_of_that_tenant() -> None:
    store = AdapterStore(per_tenant=2)
    for id in ("a", "b"):
        store.put("one", entry(id))
    store.put("two", entry("a"))
    assert store.get("one", "a") is not None
    store.put("one", entry("c"))
    assert store.get("one", "b") is None
    assert {(tenant, known.id) for tenant, known in store} == {("one", "a"), ("one", "c"), ("two", "a")}
    assert len(store) == 3
    assert store.forget("one", "a") and not store.forget("one", "a") and store.get("two", "a") is not None


def test_store_keeps_the_first_date_and_lists_newest_first() -> None:
    store = AdapterStore(per_tenant=3)
    for id, created in (("a", 1), ("b", 2), ("a", 9)):
        store.put("", entry(id, created))
    assert [(known.id, known.created) for known in store.listing("")] == [("b", 2), ("a", 1)]
    assert store.listing("other") == []


class Number(BaseModel):
    value: int
    unset: int | None = None


async def numbers(fail_after: int | None = None) -> AsyncGenerator[list[Number], None]:
    for value in range(3):
        if value == fail_after:
            raise ApiError(503, "gone")
        yield [Number(value=value)]


async def collect(events: AsyncGenerator[bytes, None]) -> list[bytes]:
    return [piece async for piece in events]


def test_events_are_framed_and_end_with_done() -> None:
    pieces = asyncio.run(collect(event_stream(numbers())))
    assert pieces == [b'data: {"value":0}\n\n', b'data: {"value":1}\n\n', b'data: {"value":2}\n\n', DONE]


def test_an_error_is_raised_before_the_first_event_and_the_last_event_afterwards() -> None:
    with pytest.raises(ApiError):
        asyncio.run(collect(event_stream(numbers(fail_after=0))))
    *_, last = asyncio.run(collect(event_stream(numbers(fail_after=2))))
    assert last.startswith(b'data: {"error":{"message":"gone"') and last.endswith(b"\n\n")


async def letters(text: str, closed: list[str], fail: bool = False) -> AsyncGenerator[Delta, None]:
    try:
        for letter in text:
            await asyncio.sleep(0)
            yield Delta(letter, 1)
        if fail:
            raise ApiError(503, "gone")
    finally:
        closed.append(text)


def test_merged_streams_keep_their_order_and_arrive_in_batches_when_the_consumer_is_slow() -> None:
    async def run() -> tuple[list[str], int]:
        texts, batches = ["", ""], 0
        async for batch in merged([letters("abcdef", []), letters("xyz", [])]):
            batches += 1
            await asyncio.sleep(0.01)
            for index, delta in batch:
                texts[index] += delta.text
        return texts, batches

    texts, batches = asyncio.run(run())
    assert texts == ["abcdef", "xyz"]
    assert batches < 9


def test_merged_streams_are_all_closed_after_an_error_and_when_the_consumer_leaves() -> None:
    async def failing(closed: list[str]) -> None:
        async for _ in merged([letters("ab", closed, fail=True), letters("x" * 1000, closed)]):
            pass

    async def leaving(closed: list[str]) -> None:
        streams = merged([letters("a" * 1000, closed), letters("x" * 1000, closed)])
        await anext(streams)
        await streams.aclose()

    for consumer in (failing, leaving):
        closed: list[str] = []
        if consumer is failing:
            with pytest.raises(ApiError, match="gone"):
                asyncio.run(consumer(closed))
        else:
            asyncio.run(consumer(closed))
        assert len(closed) == 2


def test_metrics_of_replicas_become_one_text() -> None:
    text = '# HELP t2l_x_total X\n# TYPE t2l_x_total counter\nt2l_x_total{cache="slot"} 2.0\n'
    merged_text = merged_metrics(
        {
            "LLM": [ReplicaMetrics("a1", text), ReplicaMetrics("b2", text)],
            "Gateway": [ReplicaMetrics("c3", "# TYPE t2l_y gauge\nt2l_y 1.0\n")],
            "None": [],
        }
    )
    assert 't2l_x_total{cache="slot",replica="LLM-a1"} 2.0' in merged_text
    assert 't2l_x_total{cache="slot",replica="LLM-b2"} 2.0' in merged_text
    assert 't2l_y{replica="Gateway-c3"} 1.0' in merged_text
    assert merged_text.count("# TYPE t2l_x_total counter") == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BusyError("full"), 429),
        (DescriptionError("empty"), 400),
        (TimeoutError(), 504),
        (ActorUnavailableError("gone", b"1" * 16), 503),
        (RuntimeError("bug"), 500),
    ],
)
def test_errors_of_other_deployments_have_a_status_however_deep_they_come_from(error: Exception, status: int) -> None:
    once = RayTaskError("f", "traceback", error)
    twice = RayTaskError("g", "traceback", once.as_instanceof_cause())
    for wrapped in (error, once, once.as_instanceof_cause(), twice, twice.as_instanceof_cause()):
        assert api_error(wrapped).status_code == status


def test_busy_says_when_to_come_again() -> None:
    for error in (BusyError("full"), BackPressureError(3, 2)):
        refused = api_error(error)
        assert refused.status_code == 429 and int((refused.headers or {})["Retry-After"]) > 0


@pytest.mark.parametrize(("first_s", "second_s"), [(0.0, 0.05), (0.05, 0.0)])
def test_side_by_side_the_first_error_is_the_clients_and_ends_the_other(first_s: float, second_s: float) -> None:
    done: list[str] = []

    async def work(name: str, seconds: float, fails: bool) -> str:
        await asyncio.sleep(seconds)
        if fails:
            raise ApiError(400, name)
        done.append(name)
        return name

    async def both(first_fails: bool, second_fails: bool) -> tuple[str, str]:
        try:
            first = work("first", first_s, first_fails)
            return await side_by_side(first, work("second", second_s, second_fails))
        finally:
            assert len(asyncio.all_tasks()) == 1, "nothing goes on by itself"

    assert asyncio.run(both(False, False)) == ("first", "second")
    for second_fails in (False, True):
        done.clear()
        with pytest.raises(ApiError, match="first"):
            asyncio.run(both(True, second_fails))
        assert done == ([] if second_fails or first_s < second_s else ["second"])
    with pytest.raises(ApiError, match="second"):
        asyncio.run(both(False, True))
