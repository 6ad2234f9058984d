"""The engine on the shipped model: many adapters at once, few slots, people who leave, a thread that dies."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM

from serve.engine import EngineRequest
from serve.engine.batching import SILENT, BatchingEngine
from serve.protocol import BusyError, Delta, EngineError, Sampling
from serve.settings import EngineSettings
from t2l import TextToLora
from t2l.embedded import BASE_DIR
from t2l.errors import ConfigError, DataError, SpecMismatchError
from t2l.evaluation.generate import greedy_answers
from t2l.lora.flat import FlatLayout
from t2l.tasks.universe import universe
from t2l.text.prompts import PromptFormat

ADAPTERS, NEW = 32, 24
TASKS = universe(None).test[:ADAPTERS]
DESCRIPTIONS = [task.unseen_descriptions[0] for task in TASKS]
GREEDY, LONG = Sampling(NEW), Sampling(400, ignore_eos=True)


@pytest.fixture(scope="module")
def t2l() -> TextToLora:
    return TextToLora.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def adapters(t2l: TextToLora) -> Tensor:
    """[32, P], one for each description."""
    return FlatLayout(t2l.base.spec).flatten(t2l.generate(DESCRIPTIONS).weights)


@pytest.fixture(scope="module")
def texts(t2l: TextToLora) -> list[str]:
    """Prompts of many lengths, one for each task."""
    chat = PromptFormat.of(t2l.tokenizer)
    inputs = [" and ".join(example.input for example in task.test[: 1 + i % 4]) for i, task in enumerate(TASKS)]
    return [chat.prompt(text) for text in inputs]


@pytest.fixture(scope="module")
def prompts(t2l: TextToLora, texts: list[str]) -> list[list[int]]:
    return [t2l.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]  # type: ignore[misc]


class Desk:
    """An engine, and what it has delivered. Only one of them may work at a time: they share the base model."""

    def __init__(self, t2l: TextToLora, **settings: int) -> None:
        self.deltas: defaultdict[str, list[Delta]] = defaultdict(list)
        self.order: list[str] = []
        """Ids by their first delta."""
        self._news = threading.Condition()
        self.engine = BatchingEngine(t2l.base, t2l.tokenizer, EngineSettings.model_validate(settings), self._deliver)

    def submit(self, id: str, prompt: list[int], adapter: Tensor | None = None, sampling: Sampling = GREEDY) -> None:
        self.engine.submit(
            EngineRequest(id, prompt, sampling, None if adapter is None else str(adapter.sum()), adapter)
        )

    def until(self, condition: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(condition, timeout=120)

    def text(self, id: str) -> str:
        """Waits for the end."""
        self.until(lambda: id in self.deltas and self.deltas[id][-1].finish_reason is not None)
        return "".join(delta.text for delta in self.deltas[id])

    def begun(self, ids: Sequence[str]) -> None:
        self.until(lambda: all(id in self.deltas for id in ids))

    def _deliver(self, deltas: list[tuple[str, Delta]]) -> None:
        with self._news:
            for id, delta in deltas:
                if id not in self.deltas:
                    self.order.append(id)
                self.deltas[id].append(delta)
            self._news.notify_all()


@pytest.fixture
def desk(t2l: TextToLora) -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def make(**settings: int) -> Desk:
        desks.append(Desk(t2l, **settings))
        return desks[-1]

    yield make
    for each in desks:
        each.engine.close()


def alone(t2l: TextToLora, text: str, adapter: Tensor | None, new: int = NEW) -> str:
    """transformers' own greedy answer, through the trusted per-row LoRA."""
    weights = None if adapter is None else FlatLayout(t2l.base.spec).unflatten(adapter[None])
    return greedy_answers(t2l.base, t2l.tokenizer, [text], weights, new)[0]


# ---- isolation


def test_one_prompt_under_32_adapters_through_4_slots(
    t2l: TextToLora,
    adapters: Tensor,
    texts: list[str],
    prompts: list[list[int]],
    desk: Callable[..., Desk],
    tmp_path: Path,
) -> None:
    expected = [alone(t2l, texts[0], adapter) for adapter in adapters]
    together = desk(rows=8, adapter_slots=4)
    for i, adapter in enumerate(adapters):
        together.submit(str(i), prompts[0], adapter)
    found = [together.text(str(i)).strip() for i in range(ADAPTERS)]
    assert found == expected
    assert len(set(found)) > ADAPTERS / 2, "adapters that all say the same would prove nothing"
    stats = together.engine.stats()
    assert (stats.resident, stats.slot_misses, stats.slot_evictions) == (4, ADAPTERS, ADAPTERS - 4)
    assert stats.prompt_tokens == ADAPTERS * len(prompts[0])
    for i in range(0, ADAPTERS, 8):
        t2l.generate([DESCRIPTIONS[i]])[0].save_pretrained(tmp_path / str(i))
        assert peft_answer(t2l, tmp_path / str(i), prompts[0]) == found[i]


def peft_answer(t2l: TextToLora, folder: Path, prompt: list[int]) -> str:
    base = AutoModelForCausalLM.from_pretrained(BASE_DIR, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(folder)).eval()
    end = t2l.tokenizer.eos_token_id
    output = model.generate(
        input_ids=torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=end, pad_token_id=0
    )
    return str(t2l.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)).strip()


def test_random_arrivals_with_and_without_adapters(
    t2l: TextToLora, adapters: Tensor, texts: list[str], prompts: list[list[int]], desk: Callable[..., Desk]
) -> None:
    chance = random.Random(0)
    chosen = [None if i % 5 == 0 else adapters[i] for i in range(ADAPTERS)]
    expected = [alone(t2l, text, adapter) for text, adapter in zip(texts, chosen, strict=True)]
    busy = desk(rows=5, adapter_slots=3, prefill_tokens=100)
    order = list(range(ADAPTERS))
    chance.shuffle(order)
    for i in order:
        busy.submit(str(i), prompts[i], chosen[i])
        time.sleep(chance.choice([0, 0, 0.02]))
    assert [busy.text(str(i)).strip() for i in range(ADAPTERS)] == expected
    assert sum(delta.tokens for i in order for delta in busy.deltas[str(i)]) == busy.engine.stats().generated_tokens


def test_a_seed_says_the_same_alone_and_in_company(
    adapters: Tensor, prompts: list[list[int]], desk: Callable[..., Desk]
) -> None:
    drawn = [Sampling(NEW, 3.0, 0.95, seed=i) if i % 2 else Sampling(NEW, 2.0, seed=i) for i in range(8)]
    single, crowd = desk(rows=1), desk(rows=6)
    expected = []
    for i, sampling in enumerate(drawn):
        single.submit(str(i), prompts[i], adapters[i], sampling)
        expected.append(single.text(str(i)))
    for i in reversed(range(len(drawn))):
        crowd.submit(str(i), prompts[i], adapters[i], drawn[i])
        crowd.submit(f"beside {i}", prompts[-i], adapters[-i])
    assert [crowd.text(str(i)) for i in range(len(drawn))] == expected
    crowd.submit("other seed", prompts[0], adapters[0], Sampling(NEW, 2.0, seed=99))
    assert crowd.text("other seed") != expected[0]


# ---- ends


def test_ends_of_answers(
    t2l: TextToLora, adapters: Tensor, texts: list[str], prompts: list[list[int]], desk: Callable[..., Desk]
) -> None:
    whole = alone(t2l, texts[0], adapters[0], 100)
    ours = desk(rows=8, max_length=len(prompts[0]) + 100)
    samplings = {
        "eos": Sampling(99),
        "short": Sampling(2),
        "stop": Sampling(99, stop=(whole[2:5], "never")),
        "on and on": Sampling(60, ignore_eos=True),
        "full": Sampling(10_000, ignore_eos=True),
    }
    for id, sampling in samplings.items():
        ours.submit(id, prompts[0], adapters[0], sampling)
    found = {id: ours.text(id) for id in samplings}
    reasons = {id: ours.deltas[id][-1].finish_reason for id in samplings}
    assert reasons == {"eos": "stop", "short": "length", "stop": "stop", "on and on": "length", "full": "length"}
    tokens = {id: sum(delta.tokens for delta in ours.deltas[id]) for id in samplings}
    assert (tokens["short"], tokens["on and on"], tokens["full"]) == (2, 60, 100)
    assert found["eos"].strip() == whole
    assert whole.startswith(found["short"].strip()) and found["short"].strip() != whole
    assert found["stop"] == found["eos"][: found["eos"].index(whole[2:5])]
    assert found["full"].startswith(found["on and on"])


def test_an_answer_without_text_gives_signs_of_life(
    t2l: TextToLora, prompts: list[list[int]], desk: Callable[..., Desk]
) -> None:
    ours = desk(rows=8, max_length=len(prompts[0]) + 200)
    ours.submit("free", prompts[0], None, Sampling(200, ignore_eos=True))
    ours.submit("held", prompts[0], None, Sampling(200, ignore_eos=True, stop=(ours.text("free") + "never",)))
    assert ours.text("held") == ours.text("free")
    assert [delta.tokens for delta in ours.deltas["held"]] == [SILENT, SILENT, SILENT, 200 - 3 * SILENT]


def test_of_50_requests_25_leave_midway_and_the_others_notice_nothing(
    adapters: Tensor, prompts: list[list[int]], desk: Callable[..., Desk]
) -> None:
    sampling = Sampling(40, ignore_eos=True)
    ids = [str(i) for i in range(50)]

    def started() -> Desk:
        ours = desk(rows=50)
        for i, id in enumerate(ids):
            ours.submit(id, prompts[i % ADAPTERS], adapters[-i % ADAPTERS], sampling)
        return ours

    calm = started()
    expected = [calm.text(id) for id in ids[1::2]]
    stormy = started()
    stormy.begun(ids)
    for id in ids[::2]:
        stormy.engine.cancel(id)
    stormy.engine.cancel("nobody")
    cancelled = {id: len(stormy.deltas[id]) for id in ids[::2]}
    assert [stormy.text(id) for id in ids[1::2]] == expected
    for id in ids[::2]:
        assert len(stormy.deltas[id]) <= cancelled[id] + 1, "one delta at most was under way"
        assert stormy.deltas[id][-1].finish_reason is None
    stats = stormy.engine.stats()
    assert (stats.running, stats.waiting, stats.free_rows) == (0, 0, 50)


# ---- the queue


def test_a_full_queue_is_refused_and_who_waits_may_leave(prompts: list[list[int]], desk: Callable[..., Desk]) -> None:
    small = desk(rows=2, max_waiting=2)
    for id in "abcd":
        small.submit(id, prompts[0], sampling=LONG)
    with pytest.raises(BusyError, match="2 requests wait already"):
        small.submit("e", prompts[0])
    with pytest.raises(BusyError, match="2 requests wait already"):
        small.engine.check_room()
    small.begun("ab")
    assert (small.engine.stats().free_rows, small.engine.stats().waiting) == (0, 2)
    small.engine.cancel("c")
    small.until(lambda: small.engine.stats().waiting == 1)
    small.engine.check_room()
    small.submit("e", prompts[0])
    small.engine.cancel("a")
    small.engine.cancel("d")
    assert small.text("e")
    assert "c" not in small.deltas and "d" not in small.deltas


def test_without_a_queue_free_rows_still_serve(prompts: list[list[int]], desk: Callable[..., Desk]) -> None:
    none = desk(rows=1, max_waiting=0)
    none.submit("a", prompts[0], sampling=LONG)
    with pytest.raises(BusyError):
        none.submit("b", prompts[0])


def test_nobody_is_overtaken(adapters: Tensor, prompts: list[list[int]], desk: Callable[..., Desk]) -> None:
    """Neither by those whose adapter is resident nor by those with a shorter prompt."""
    line = desk(rows=2, adapter_slots=1, prefill_tokens=16)
    ids = [str(i) for i in range(20)]
    line.submit("first", prompts[0], sampling=Sampling(30, ignore_eos=True))
    for i, id in enumerate(ids):
        prompt = prompts[0] if i % 3 else prompts[3] + prompts[2]
        line.submit(id, prompt, adapters[0] if i % 2 else adapters[i], Sampling(3, ignore_eos=True))
    for id in ids:
        line.text(id)
    assert line.order == ["first", *ids]


# ---- errors


def test_what_cannot_be_served_is_refused_at_once(
    t2l: TextToLora, adapters: Tensor, prompts: list[list[int]], desk: Callable[..., Desk]
) -> None:
    ours = desk(rows=1)
    limit = ours.engine.max_length
    with pytest.raises(SpecMismatchError, match="flat adapter of 7 weights"):
        ours.submit("a", prompts[0], adapters[0, :7])
    for length in (0, limit):
        with pytest.raises(DataError, match=f"a prompt of {length} tokens does not fit"):
            ours.submit("a", [5] * length)
    ours.submit("a", [5] * (limit - 1))
    ours.text("a")
    assert sum(delta.tokens for delta in ours.deltas["a"]) == 1
    with pytest.raises(ConfigError, match=r"max_length 100000 exceeds the base model's 512"):
        desk(max_length=100_000)


def test_a_closed_engine_refuses(prompts: list[list[int]], desk: Callable[..., Desk]) -> None:
    ours = desk(rows=2)
    ours.engine.close()
    with pytest.raises(EngineError, match="is closed"):
        ours.submit("late", prompts[0])


def test_when_the_thread_dies_everybody_is_told(
    t2l: TextToLora, prompts: list[list[int]], desk: Callable[..., Desk]
) -> None:
    ours = desk(rows=2)
    ours.engine.check()
    for id in "abc":
        ours.submit(id, prompts[0], sampling=LONG)
    ours.begun("ab")

    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    hook = t2l.base.model.register_forward_pre_hook(out_of_memory)
    ours.until(lambda: all(ours.deltas[id] and ours.deltas[id][-1].error for id in "abc"))
    hook.remove()
    with pytest.raises(EngineError, match="no memory left"):
        ours.engine.check()
    with pytest.raises(EngineError):
        ours.submit("d", prompts[0])
    assert (ours.engine.stats().running, ours.engine.stats().waiting) == (0, 0)
    ours.engine.close()
