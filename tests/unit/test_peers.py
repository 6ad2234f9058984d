"""News between Gateway replicas: who is told when, and what becomes of them where a replica does not answer."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from serve.api import peers as module
from serve.api.backends import Answers
from serve.api.errors import ApiError
from serve.api.peers import LATER_S, Peers
from serve.store import AdapterEntry, AdapterStore


def entry(id: str) -> AdapterEntry:
    return AdapterEntry(id, f"description of {id}", np.zeros(2, np.float32), 0.5, None, 0)


class Others:
    """Stands for Serve's calls to the other replicas: notes them, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.calls: list[tuple[float, str, tuple[Any, ...]]] = []
        self.answers: dict[str, Answers] = {}

    async def ask_all(self, peers: Peers, method: str, *args: Any) -> Answers:
        self.calls.append((time.monotonic(), method, args))
        await asyncio.sleep(self.seconds)
        return self.answers.get(method, Answers([], []))

    @property
    def told(self) -> list[list[str]]:
        """Ids, round by round."""
        return [[entry.id for _, entry in args[0]] for _, method, args in self.calls if method == "remember"]


Scene = Callable[[Peers, Others, AdapterStore], Coroutine[Any, Any, None]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene, Others], None]:
    def run(scene: Scene, others: Others) -> None:
        async def ask_all(self: Peers, method: str, *args: Any) -> Answers:
            return await others.ask_all(self, method, *args)

        monkeypatch.setattr(module.Peers, "_ask_all", ask_all)
        store = AdapterStore(per_tenant=9)
        asyncio.run(asyncio.wait_for(scene(Peers(store), others, store), 20))

    return run


Play = Callable[[Scene, Others], None]


def test_news_that_nobody_waits_for_are_told_later_and_together(play: Play) -> None:
    async def scene(peers: Peers, others: Others, store: AdapterStore) -> None:
        start = time.monotonic()
        peers.share("me", [entry("a")], urgent=False)
        await peers.share("me", [entry("b")], urgent=False)
        assert time.monotonic() - start >= LATER_S and others.told == [["a", "b"]]
        start = time.monotonic()
        late = peers.share("me", [entry("c")], urgent=False)
        assert peers.share("me", [entry("d")], urgent=True) is late
        await late
        assert time.monotonic() - start < LATER_S and others.told[1:] == [["c", "d"]]

    play(scene, Others())


def test_who_waits_waits_for_his_own_news_alone(play: Play) -> None:
    """Others' news keep coming during every round, so some are always unsent."""

    async def scene(peers: Peers, others: Others, store: AdapterStore) -> None:
        async def keep_sharing() -> None:
            for number in range(1_000):
                peers.share("other", [entry(str(number))], urgent=True)
                await asyncio.sleep(others.seconds / 3)

        busy = asyncio.create_task(keep_sharing())
        await asyncio.sleep(3 * others.seconds)
        start = time.monotonic()
        await peers.share("me", [entry("mine")], urgent=True)
        await peers.withdraw("me", "mine")
        assert time.monotonic() - start < 4 * others.seconds, "a round under way, one of its own, and one more at most"
        assert any("mine" in ids for ids in others.told) and not busy.done()
        busy.cancel()

    play(scene, Others(seconds=0.2))


def test_withdrawn_news_are_not_told(play: Play) -> None:
    async def scene(peers: Peers, others: Others, store: AdapterStore) -> None:
        told = peers.share("me", [entry("a"), entry("b")], urgent=False)
        await peers.withdraw("me", "a")
        await told
        assert others.told == [["b"]]
        told = peers.share("me", [entry("a")], urgent=False)
        await peers.withdraw("me", "a")
        await told
        assert others.told == [["b"]]

    play(scene, Others())


def test_what_one_replica_does_not_tell_is_asked_for_again(play: Play) -> None:
    async def scene(peers: Peers, others: Others, store: AdapterStore) -> None:
        late = ApiError(504, "too late")
        others.answers["everything"] = Answers([[("me", entry("a"))]], [late])
        await peers.catch_up()
        assert [known.id for known in store.listing("me")] == ["a"], "what was told is used"
        others.answers["everything"] = Answers([[("me", entry("a"))], [("me", entry("b"))]], [])
        await peers.catch_up()
        await peers.catch_up()
        assert [known.id for known in store.listing("me")] == ["a", "b"]
        assert len(others.calls) == 2, "once all have told, nobody is asked"

    play(scene, Others())


def test_what_is_deleted_while_replicas_tell_what_they_know_stays_deleted(play: Play) -> None:
    async def scene(peers: Peers, others: Others, store: AdapterStore) -> None:
        others.answers["everything"] = Answers([[("me", entry("a"))]], [])
        learning = asyncio.create_task(peers.catch_up())
        await asyncio.sleep(others.seconds / 2)
        store.forget("me", "a")
        await learning
        assert store.listing("me") == []

    play(scene, Others(seconds=0.1))


def test_nobody_knows_is_said_only_if_all_have_answered(play: Play) -> None:
    async def scene(peers: Peers, others: Others, store: AdapterStore) -> None:
        known = entry("a")
        others.answers["recall"] = Answers([None, known], [ApiError(504, "too late")])
        assert await peers.recall("me", "a") is known
        others.answers["recall"] = Answers([None], [ApiError(504, "too late")])
        with pytest.raises(ApiError, match="too late"):
            await peers.recall("me", "a")
        others.answers["recall"] = Answers([None, None], [])
        assert await peers.recall("me", "a") is None

    play(scene, Others())
