"""Tokens/s of a whole SFT step (forward, backward, optimizer): ours beside two peers, alternating in one run.

    python benchmarks/sft_step.py --out benchmarks/results/sft_step_cpu.json
    python benchmarks/sft_step.py --device cuda --base mistral-7b --rows 128 --parts 2 --peer-parts 16 --prompt 160 \
        --rounds 2 --compile --out benchmarks/results/sft_step_h200.json

ours: the job's own step (t2l/train): hypernetwork -> one adapter per row -> logits at label positions -> loss, with the
    rows of a step in micro-batches of like length, on a GPU packed without padding.
peft: PEFT with ONE shared LoRA and no hypernetwork, as a plain Hugging Face Trainer trains it: logits of all tokens.
per_token: our hypernetwork and loss, but adapters applied as upstream does (benchmarks/per_token.py), and three host
    syncs a micro-batch.

All attend without cuDNN, which plans anew for every new shape (t2l/train/base.py): peers are faster by it too.

A base of random weights and rows of random tokens, lengths log-normal; fp32 on a CPU and bf16 on a GPU. All take the
same rows in a step; the peers in the order that they are drawn in, in as many micro-batches as they have memory for.
In its turn a peer takes STEPS steps to get its memory back from the others, then STEPS that are timed, all of new rows
and one after the other as in a run. Before all turns, on a GPU, each takes WARM_UP micro-batches: new shapes ask for
kernels that have not been loaded, 4 ms for each, which a run is soon through with. Left out of the timing: making
batches and encoding descriptions (the job does that once).
`losses`, `gradient_norms`: of the first step's rows before any training, without dropout and noise. `memory_gib`: the
most that a step takes on a GPU beyond what lies there between steps.

Axes: B rows, T tokens of the longest row.
"""

import argparse
import gc
import math
import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from statistics import mean
from typing import Any

import peft
import torch
from harness import Round, finish, head, in_turn, median_seconds, ratios
from per_token import IGNORED, PerTokenModule, spread
from shapes import EMBEDDING, random_base, shaped_parser
from torch import Tensor, nn

from t2l.config import RunConfig, SftConfig, load_config
from t2l.data.collate import Row, SftBatch, collate, in_parts, micro_batches
from t2l.data.descriptions import DescriptionTable
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.apply import PerRowLora
from t2l.train.base import build_spec
from t2l.train.engine import TorchEngine, adamw, set_lr
from t2l.train.packed import can_pack
from t2l.train.step import SftModule, seed_step

STEPS, WARM_UP = 2, 48
LR = 1e-4
VOCABULARY = 1000
"""Of the random tokens."""
GIB = 1 << 30

Batches = Sequence[SftBatch]
"""The micro-batches of one step."""


class HypernetPeer:
    """A step as t2l/train/loop.py takes it, on a base of its own; for the per-token peer with its host syncs."""

    def __init__(self, kind: type[SftModule], base: str, config: RunConfig, device: str) -> None:
        assert isinstance(config.train, SftConfig)
        model = random_base(base, device)
        spec = build_spec(config.lora, model.config)
        torch.manual_seed(config.seed)
        self._module = kind(PerRowLora(model, spec), build_model(config, spec, EMBEDDING), config.train)
        self._engine = TorchEngine(self._module, config.train, device)
        self._device, self._syncs = device, kind is PerTokenModule
        states = torch.randn(config.train.tasks_per_step, 1, EMBEDDING, generator=torch.Generator().manual_seed(0))
        texts = list(states.half().numpy())
        self._table = DescriptionTable(len(texts), lambda numbers: [texts[number] for number in numbers], device)

    def step(self, batches: Batches) -> None:
        self._module.train()
        for batch in batches:
            losses = self._forward(batch)
            self._engine.backward(losses)
            if self._syncs:
                for part in losses:
                    part.item()
        self._engine.step(LR)

    def first(self, batches: Batches) -> tuple[float, float]:
        """Loss, and norm of its gradient."""
        self._module.eval()
        loss = 0.0
        for batch in batches:
            losses = self._forward(batch)
            self._engine.backward(losses)
            loss += float(losses.total.detach())
        norm = nn.utils.clip_grad_norm_(self._module.parameters(), math.inf)  # measures alone
        self._module.zero_grad()
        return loss, float(norm)

    def computed(self, batch: SftBatch) -> int:
        """Tokens, with padding where there is any."""
        packed = not self._syncs and can_pack(self._module.base)
        return batch.count if packed else batch.input_ids_B_T.numel()

    def _forward(self, batch: SftBatch) -> Any:
        return self._engine.forward(batch.to(self._device), self._table.lookup(batch.description_index_B))


class PeftPeer:
    """One LoRA for all rows. No attention mask: padding stands on the right, and without one attention is faster."""

    def __init__(self, base: str, config: RunConfig, device: str) -> None:
        lora = peft.LoraConfig(
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=config.lora.dropout,
            use_rslora=config.lora.use_rslora,
            target_modules=list(config.lora.target_modules),
            task_type="CAUSAL_LM",
        )
        self._model = peft.get_peft_model(random_base(base, device), lora)
        self._optimizer, self._clip, self._device = adamw(self._model, config.train), config.train.clip, device

    def step(self, batches: Batches) -> None:
        self._model.train()
        for batch in batches:
            (self._mean_loss(batch) / len(batches)).backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        set_lr(self._optimizer, LR)
        self._optimizer.step()
        self._optimizer.zero_grad()

    @torch.no_grad()
    def first(self, batches: Batches) -> tuple[float, None]:
        """Loss: the mean over tokens, not ours over sequences. The gradient is of other weights."""
        self._model.eval()
        return mean(float(self._mean_loss(batch)) for batch in batches), None

    def computed(self, batch: SftBatch) -> int:
        return batch.input_ids_B_T.numel()

    def _mean_loss(self, batch: SftBatch) -> Tensor:
        batch = batch.to(self._device)
        labels_B_T = spread(batch, batch.label_ids_K, IGNORED)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._device == "cuda"):
            # Our batches hold no last token, so labels come shifted already.
            return self._model(batch.input_ids_B_T, labels=labels_B_T, shift_labels=labels_B_T, use_cache=False).loss


def draw_rows(number: int, prompt: int, answer: int, vocabulary: int, rng: random.Random) -> list[Row]:
    """Prompts log-normal around a median length, answers from half to twice a mean length."""

    def tokens(length: int) -> list[int]:
        return [rng.randrange(vocabulary) for _ in range(length)]

    def row(description: int) -> Row:
        length = min(max(4, round(rng.lognormvariate(math.log(prompt), 0.5))), 4 * prompt)
        return Row(tokens(length), tokens(rng.randint(max(1, answer // 2), 2 * answer - answer // 2)), description)

    return [row(i) for i in range(number)]


def cut(rows: Sequence[Row], arguments: argparse.Namespace, ours: bool) -> Batches:
    parts = micro_batches(rows, arguments.parts) if ours else in_parts(rows, arguments.peer_parts)
    batches = [collate(part, len(rows), pad_id=0) for part in parts]
    return [batch.pin_memory() for batch in batches] if arguments.device == "cuda" else batches


def warm_up(peer: HypernetPeer | PeftPeer, arguments: argparse.Namespace, ours: bool, rng: random.Random) -> None:
    taken = 0
    while taken < WARM_UP:
        batches = cut(draw_rows(arguments.rows, arguments.prompt, arguments.answer, VOCABULARY, rng), arguments, ours)
        peer.step(batches)
        taken += len(batches)


def memory_of(step: Callable[[], None]) -> float:
    """GiB that it takes at most beyond what lies there before; 0 on a CPU."""
    if not torch.cuda.is_available():
        step()
        return 0.0
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / GIB


def summary(rounds: Sequence[Round[float]], tokens: Sequence[int]) -> dict[str, Any]:
    """tokens: of each step, timed or not."""
    mean_tokens = mean(count for number, count in enumerate(tokens) if number // STEPS % 2)
    peers = {
        name: {
            "tokens_per_s": mean_tokens * STEPS / median_seconds(rounds, name),
            "ms_per_step": median_seconds(rounds, name) / STEPS * 1e3,
            "memory_gib": max(taken[name].value for taken in rounds),
        }
        for name in rounds[0]
    }
    return {"peers": peers, "ratios": ratios(rounds), "tokens_per_step": mean_tokens}


def parse() -> argparse.Namespace:
    parser = shaped_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help=f"measured, of {STEPS} steps each (default 5)")
    parser.add_argument("--rows", type=int, default=64, help="of a step, each with an adapter of its own (default 64)")
    parser.add_argument("--parts", type=int, default=4, help="micro-batches of our step (default 4)")
    parser.add_argument("--peer-parts", type=int, default=4, help="micro-batches of the peers' steps (default 4)")
    parser.add_argument("--prompt", type=int, default=24, help="median tokens of a prompt (default 24)")
    parser.add_argument("--answer", type=int, default=8, help="mean tokens of an answer (default 8)")
    parser.add_argument("--compile", action="store_true", help="compile the layers of our base (train.compile_base)")
    return parser.parse_args()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device, rng = arguments.device, random.Random(0)
    overrides = ["hypernet.variant=L", "encoder.kinds=[sentence]", f"train.tasks_per_step={arguments.rows}"]
    overrides.append(f"train.compile_base={arguments.compile}")
    config = load_config(None, overrides)  # sizes of hypernetwork and LoRA are the paper's by default
    peers = {
        "ours": HypernetPeer(SftModule, arguments.base, config, device),
        "peft": PeftPeer(arguments.base, config, device),
        "per_token": HypernetPeer(PerTokenModule, arguments.base, config, device),
    }
    steps = range(arguments.rounds * 2 * STEPS)
    drawn = [draw_rows(arguments.rows, arguments.prompt, arguments.answer, VOCABULARY, rng) for _ in steps]
    batches = {name: [cut(rows, arguments, name == "ours") for rows in drawn] for name in peers}
    first = {name: peer.first(batches[name][0]) for name, peer in peers.items()}
    if device == "cuda":
        for name, peer in peers.items():
            warm_up(peer, arguments, name == "ours", rng)

    numbers = {name: iter(steps) for name in peers}

    def take_steps(name: str) -> None:
        for number in islice(numbers[name], STEPS):
            seed_step(config.seed, number, 0)
            peers[name].step(batches[name][number])

    def turn(name: str, _: int) -> float:
        gc.freeze()  # as the job does after its first step
        return memory_of(partial(take_steps, name))

    rounds = in_turn({name: partial(turn, name) for name in peers}, arguments.rounds, warm_up=0, settle=True)
    gc.unfreeze()
    tokens = [sum(batch.count for batch in one) for one in batches["ours"]]
    computed = {
        name: mean(sum(peer.computed(batch) for batch in one) for one in batches[name]) for name, peer in peers.items()
    }
    checked = {
        "losses": {name: loss for name, (loss, _) in first.items()},
        "gradient_norms": {name: norm for name, (_, norm) in first.items() if norm is not None},
    }
    return {**checked, "tokens_computed": computed, **summary(rounds, tokens)}


def main() -> None:
    arguments = parse()
    settings = {name: value for name, value in vars(arguments).items() if name not in ("device", "out")}
    result = head("sft_step", arguments.device, **settings) | measure(arguments)
    for name, peer in result["peers"].items():
        print(f"{name:10} {peer['tokens_per_s']:10,.0f} tokens/s {peer['ms_per_step']:10,.1f} ms a step")
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
