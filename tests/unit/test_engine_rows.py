"""Rows that join, leave and move say token by token what transformers says of each of them alone."""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_models import FAMILIES, SHAPE, random_weights, tokens
from transformers import LlamaConfig

from serve.engine.graphs import enough, prompt_sizes, step_sizes
from serve.engine.kv import AttentionMasks
from serve.engine.rows import RowBatch
from serve.protocol import Sampling
from t2l.errors import ConfigError
from t2l.lora import LoraSpec
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout

WINDOW, NEW, ADAPTERS = 5, 9, 2
KINDS = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "gemma2": {"sliding_window": WINDOW},  # every other layer, and its logits are capped
    "qwen3": {"sliding_window": WINDOW, "use_sliding_window": True, "max_window_layers": 1},
}
prompt_lengths = st.sampled_from([1, 2, WINDOW, 2 * WINDOW, 3 * WINDOW])


@dataclass(frozen=True)
class Case:
    """A request of this many tokens, under adapter number `adapter`; None: the base model's."""

    length: int
    adapter: int | None
    arrival: int
    new: int


cases = st.builds(
    Case, prompt_lengths, st.sampled_from([None, *range(ADAPTERS)]), st.integers(0, 2 * NEW), st.integers(1, NEW)
)


@cache
def base(
    family: str,
    attention: str = "eager",
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    **settings: int,
) -> tuple[PerRowLora, torch.Tensor]:
    """A model with a small window, and flat adapters for it; the last one is broken."""
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(0)
    config = config_class(**SHAPE, **{**KINDS[family], **settings}, attn_implementation=attention)
    spec = LoraSpec.from_config(config, ["q_proj", "k_proj", "v_proj", "down_proj"], rank=3)
    lora = PerRowLora(model_class(config).to(device, dtype).eval(), spec)
    flat = FlatLayout(spec).flatten(random_weights(spec, ADAPTERS))
    return lora, torch.cat([flat, torch.full_like(flat[:1], torch.nan)])


@cache
def alone(family: str, length: int, adapter: int | None, **settings: int) -> list[int]:
    """transformers' own greedy answer."""
    lora, flat = base(family, **settings)
    weights = None if adapter is None else FlatLayout(lora.spec).unflatten(flat[adapter : adapter + 1])
    with lora.adapters(weights), torch.no_grad():
        output = lora.model.generate(tokens(1, length, seed=length), max_new_tokens=NEW, do_sample=False)  # type: ignore[operator]
    return output[0, length:].tolist()


def run(
    family: str,
    requests: list[Case],
    rows: int,
    attention: str = "eager",
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    compiled: bool = False,
) -> list[list[int]]:
    """Each request joins at its step of arrival, or at the first later one at which a row is free."""
    lora, flat = base(family, attention, dtype, device)
    batch, running = RowBatch(lora, rows, 64, prefill_tokens=32, compiled=compiled), list[int]()
    said = [list[int]() for _ in requests]
    waiting = sorted(range(len(requests)), key=lambda i: requests[i].arrival)
    step = 0
    with torch.inference_mode():
        while waiting or running:
            prompts = []
            while waiting and len(running) < rows and requests[waiting[0]].arrival <= step:
                running.append(waiting.pop(0))
                case = requests[running[-1]]
                prompts.append(tokens(1, case.length, seed=case.length)[0].tolist())
                adapter = None if case.adapter is None else flat[case.adapter]
                batch.join(prompts[-1], adapter, Sampling(case.new), case.new)
            if prompts:
                batch.read(prompts)
            if running:
                for i, token in zip(running, batch.step(), strict=True):
                    said[i].append(token)
            for row in reversed(range(len(running))):
                if len(said[running[row]]) == requests[running[row]].new:
                    batch.leave(row)
                    running[row] = running[-1]
                    running.pop()
            step += 1
    assert len(batch) == 0
    return said


@pytest.mark.parametrize("family", KINDS)
@settings(max_examples=8, deadline=None)
@given(st.lists(cases, min_size=1, max_size=7), st.integers(1, 4))
def test_any_schedule_gives_what_transformers_gives(family: str, requests: list[Case], rows: int) -> None:
    expected = [alone(family, case.length, case.adapter)[: case.new] for case in requests]
    assert run(family, requests, rows) == expected


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
def test_torchs_fused_attention_takes_the_same_masks(family: str) -> None:
    requests = [Case(length, length % ADAPTERS, length % 4, NEW) for length in (1, 4, 9, 15, 2)]
    assert run(family, requests, 3, "sdpa") == [alone(family, case.length, case.adapter) for case in requests]


def test_adapters_and_windows_matter() -> None:
    """Otherwise the tests above would prove little."""
    adapters = (None, *range(ADAPTERS))
    for family, kind in KINDS.items():
        narrow = [alone(family, 3 * WINDOW, adapter) for adapter in adapters]
        assert len(set(map(tuple, narrow))) == len(adapters)
        if kind:
            assert narrow != [alone(family, 3 * WINDOW, adapter, sliding_window=64) for adapter in adapters]


def test_a_broken_adapter_spoils_nobody_beside_or_after_it() -> None:
    broken = [Case(15, ADAPTERS, 0, 2), Case(1, ADAPTERS, 0, 6)]
    sound = [Case(2, 0, 0, NEW), Case(5, 1, 1, NEW), Case(1, None, 3, NEW), Case(10, 0, 5, NEW)]
    expected = [alone("llama", case.length, case.adapter) for case in sound]
    assert run("llama", broken + sound, 4)[len(broken) :] == expected


def test_unknown_layers_are_refused() -> None:
    config = LlamaConfig()
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ConfigError, match="linear_attention"):
        AttentionMasks(config)


@given(st.integers(1, 300))
def test_a_graph_for_any_number_of_rows_wastes_few_of_them(rows: int) -> None:
    found = step_sizes(rows)
    assert found[-1] == rows and found == sorted(set(found))
    assert all(larger <= 2 * smaller for smaller, larger in pairwise(found))
    assert all(larger <= 1.5 * smaller for smaller, larger in pairwise(found) if smaller >= 16)


@given(st.integers(1, 40_000), st.data())
def test_a_graph_for_prompts_of_any_size_wastes_little(longest: int, data: st.DataObject) -> None:
    sizes = prompt_sizes(longest)
    assert sizes == sorted(set(sizes)) and len(sizes) < 60
    tokens = data.draw(st.integers(1, longest))
    assert tokens <= enough(sizes, tokens) <= max(16, 2 * tokens, tokens + 127)
    assert tokens <= 1024 or enough(sizes, tokens) <= tokens + tokens / 8 + 1
