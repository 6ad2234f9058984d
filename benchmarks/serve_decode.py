"""Tokens/s of the serving engine's rows: every row under an adapter of its own, beside the base model and beside PEFT.

    python benchmarks/serve_decode.py --out benchmarks/results/serve_decode_cpu.json
    python benchmarks/serve_decode.py --device cuda --base mistral-7b --rows 64 --prompt 160 --steps 4 --rounds 7 \
        --out benchmarks/results/serve_decode_h200.json

One process, no HTTP and no Ray: serve/engine/rows.py on a base of random weights, as the engine's thread drives it.

base, adapted: decoding steps of the same rows without adapters, and with as many as there are rows.
prefill: reading the prompts of all rows, without and with adapters, in passes of the engine's own size. Their tokens
    are drawn: where all are the same, a GPU multiplies equal numbers, takes less power, and is a tenth faster.
peft: `generate(adapter_names=[...])`, PEFT's way to serve different adapters in one batch; prompts of one token, so
    that what is timed is decoding.

`floor_ms`: bytes that a step must read (weights, the cache so far, adapters) over the bandwidth of a copy in this run.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import peft
import torch
from harness import bandwidth, finish, head, in_turn, median_seconds, ratios, timed
from shapes import RANK, TARGETS, random_base, shaped_parser
from torch import Tensor

from serve.engine.kv import RowCache
from serve.engine.rows import RowBatch
from serve.protocol import Sampling
from serve.settings import EngineSettings
from t2l.lora.apply import PerRowLora
from t2l.lora.flat import FlatLayout
from t2l.lora.spec import LoraSpec

GREEDY = Sampling(max_tokens=1 << 20)
READ_AT_ONCE = EngineSettings().prefill_tokens
TOKEN = 1
"""Which token PEFT begins with does not matter."""


@dataclass(frozen=True)
class Load:
    """What is decoded: so many rows at once, of so many distinct adapters, after prompts of so many tokens."""

    rows: int
    adapters: int
    prompt: int
    steps: int
    rounds: int

    @property
    def length(self) -> int:
        """Positions that a row comes to."""
        return self.prompt + self.steps * 2 * (1 + self.rounds) + 1


class Side:
    """Rows that all run under adapters, or all without."""

    def __init__(self, base: PerRowLora, load: Load, adapters: Sequence[Tensor | None]) -> None:
        self._batch = RowBatch(base, load.rows, load.length, READ_AT_ONCE, compiled=True)
        self._load, self._adapters = load, adapters
        vocabulary, drawn = base.model.config.get_text_config().vocab_size, torch.Generator().manual_seed(0)
        self._prompts = torch.randint(vocabulary, (load.rows, load.prompt), generator=drawn).tolist()

    def read(self, _: int) -> float:
        """Seconds that reading all prompts takes; those that were there before leave first."""
        for row in reversed(range(len(self._batch))):
            self._batch.leave(row)
        return timed(self._read).seconds

    def _read(self) -> None:
        """All rows join, as many in a pass as the engine lets."""
        at_once = max(1, READ_AT_ONCE // self._load.prompt)
        for start in range(0, self._load.rows, at_once):
            prompts = self._prompts[start : start + at_once]
            for row, prompt in enumerate(prompts, start):
                self._batch.join(prompt, self._adapters[row % len(self._adapters)], GREEDY, 1)
            self._batch.read(prompts)

    def decode(self, _: int) -> None:
        for _ in range(self._load.steps):
            self._batch.step()


def random_lora(name: str, device: str) -> PerRowLora:
    model = random_base(name, device)
    return PerRowLora(model, LoraSpec.from_config(model.config, TARGETS, rank=RANK))


def peft_decode(name: str, device: str, load: Load) -> Callable[[int], object]:
    """Writes as many tokens as a round has steps, in every row."""
    config = peft.LoraConfig(r=RANK, target_modules=TARGETS, init_lora_weights=False, task_type="CAUSAL_LM")
    names = [f"adapter{i}" for i in range(load.adapters)]
    mixed = peft.get_peft_model(random_base(name, device), config, adapter_name=names[0])
    for own in names[1:]:
        mixed.add_adapter(own, config)
    ids = torch.full((load.rows, 1), TOKEN, device=device)
    of_rows = [names[row % len(names)] for row in range(load.rows)]
    prompts = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "adapter_names": of_rows}
    length = {"max_new_tokens": load.steps, "min_new_tokens": load.steps, "do_sample": False}
    return lambda _: mixed.eval().generate(**prompts, **length)


def floor_bytes(base: PerRowLora, load: Load) -> dict[str, float]:
    """What a decoding step must read: all weights but the input embeddings, keys and values so far, adapters."""
    config, model = base.model.config.get_text_config(), base.model
    size = model.dtype.itemsize
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight  # type: ignore[union-attr]
    embeddings = 0 if tied else config.vocab_size * config.hidden_size
    weights = size * (sum(parameter.numel() for parameter in model.parameters()) - embeddings)
    positions = load.rows * (load.prompt + load.length) / 2
    cache = RowCache(model, rows=1, max_length=1).buffer.nbytes * positions
    return {"base": weights + cache, "adapted": weights + cache + size * base.spec.num_parameters * load.rows}


@torch.inference_mode()
def measure(base: PerRowLora, load: Load, peft_peer: Callable[[int], object] | None = None) -> dict[str, Any]:
    model, size = base.model, FlatLayout(base.spec).size
    adapters = [torch.randn(size, dtype=model.dtype, device=model.device) * 0.01 for _ in range(load.adapters)]
    sides = {"base": Side(base, load, [None]), "adapted": Side(base, load, adapters)}
    peers: dict[str, Callable[[int], object]] = {name: side.decode for name, side in sides.items()}
    if peft_peer is not None:
        peers["peft"] = peft_peer
    read = in_turn({name: side.read for name, side in sides.items()}, load.rounds)
    decoded = in_turn(peers, load.rounds, settle=True)
    step_ms = {name: median_seconds(decoded, name) / load.steps * 1e3 for name in peers}
    bytes_per_s = bandwidth(model.device.type)
    floor_ms = {name: moved / bytes_per_s * 1e3 for name, moved in floor_bytes(base, load).items()}
    read_s = {name: median(taken[name].value for taken in read) for name in sides}
    return {
        "tokens_per_s": {name: load.rows / ms * 1e3 for name, ms in step_ms.items()},
        "ms_per_step": step_ms,
        "ratios": ratios(decoded, "adapted"),
        "floor_ms": floor_ms,
        "over_floor": {name: step_ms[name] / floor for name, floor in floor_ms.items()},
        "prefill_tokens_per_s": {name: load.rows * load.prompt / seconds for name, seconds in read_s.items()},
        "prefill_adapted_over_base": read_s["base"] / read_s["adapted"],
        "bandwidth_gb_s": bytes_per_s / 1e9,
    }


def parse() -> argparse.Namespace:
    parser = shaped_parser(__doc__)
    parser.add_argument("--rows", type=int, default=64, help="that decode together, an adapter each (default 64)")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt (default 32)")
    parser.add_argument("--steps", type=int, default=8, help="of each round (default 8)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds, after one to warm up (default 7)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    load = Load(arguments.rows, arguments.rows, arguments.prompt, arguments.steps, arguments.rounds)
    result = head("serve_decode", arguments.device, base=arguments.base, **asdict(load))
    peft_peer = peft_decode(arguments.base, arguments.device, load)
    result |= measure(random_lora(arguments.base, arguments.device), load, peft_peer)
    for name, rate in result["tokens_per_s"].items():
        print(f"{name:8} {rate:10,.0f} tokens/s {result['ms_per_step'][name]:10,.2f} ms a step")
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
