"""Tokens/s of a whole SFT step (forward, backward, optimizer): ours beside two peers, alternating in one run.

    python benchmarks/sft_step.py --device cpu --out benchmarks/results/sft_step_cpu.json
    python benchmarks/sft_step.py --device cuda --batch 256 --steps 50

ours: the job's own step (t2l/train): hypernetwork -> one adapter per row -> logits at label positions -> loss.
peft: PEFT with ONE shared LoRA and no hypernetwork, as a plain Hugging Face Trainer trains it: logits of all tokens.
per_token: our hypernetwork and loss, but adapters applied as upstream does (benchmarks/per_token.py), and three host
    syncs a step.

All take the same real batches of the universe on the embedded base, fp32 on a CPU and bf16 on a GPU. Left out of the
timing: making batches and encoding descriptions (the job does that once). A ratio is the median over rounds of one
round's times, so that what else the machine does hits both sides.

Axes: B rows, T tokens of the longest row.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import peft
import torch
import transformers
from per_token import IGNORED, PerTokenModule, spread
from result import finish
from torch import Tensor, nn

from t2l.config import RunConfig, SftConfig, load_config
from t2l.data.collate import SftBatch
from t2l.data.descriptions import DescriptionNumbers, DescriptionTable
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.apply import PerRowLora
from t2l.text.encoder import build_encoder
from t2l.train.base import build_spec, load_base
from t2l.train.engine import TorchEngine, adamw, set_lr
from t2l.train.loop import learning_rate
from t2l.train.step import SftModule, seed_step

WARM_UP_ROUNDS = 3

Step = Callable[[SftBatch, float], Tensor]
"""Trains on one batch at a learning rate; gives the loss without waiting for it."""


def hypernet_step(kind: type[SftModule], config: RunConfig, table: DescriptionTable, device: str) -> Step:
    """A step as t2l/train/loop.py takes it, on a base of its own; for the per-token peer with its three syncs."""
    assert isinstance(config.train, SftConfig)
    base, _ = load_base(config.base, device)
    spec = build_spec(config.lora, base.config)
    torch.manual_seed(config.seed)
    module = kind(PerRowLora(base, spec), build_model(config, spec, base.config.hidden_size), config.train)
    engine = TorchEngine(module, config.train, device)
    module.train()

    def step(batch: SftBatch, lr: float) -> Tensor:
        losses = engine.forward(batch.to(device), table.lookup(batch.description_index_B))
        engine.backward(losses)
        engine.step(lr)
        if kind is PerTokenModule:
            for part in losses:
                part.item()
        return losses.total.detach()

    return step


def peft_step(config: RunConfig, device: str) -> Step:
    """One LoRA for all rows. No attention mask: padding stands on the right, and without one attention is faster."""
    base, _ = load_base(config.base, device)
    lora = peft.LoraConfig(
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=config.lora.dropout,
        use_rslora=config.lora.use_rslora,
        target_modules=list(config.lora.target_modules),
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(base, lora).train()
    optimizer = adamw(model, config.train)
    is_bf16 = base.dtype == torch.bfloat16

    def step(batch: SftBatch, lr: float) -> Tensor:
        batch = batch.to(device)
        labels_B_T = spread(batch, batch.label_ids_K, IGNORED)
        with torch.autocast(device, torch.bfloat16, enabled=is_bf16):
            # Our batches hold no last token, so labels come shifted already.
            loss = model(batch.input_ids_B_T, labels=labels_B_T, shift_labels=labels_B_T, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.train.clip)
        set_lr(optimizer, lr)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


class Taken(NamedTuple):
    seconds: float
    loss: float


Round = dict[str, Taken]
"""What each peer took for the same batch."""


def measure(steps: dict[str, Step], batches: list[SftBatch], config: RunConfig) -> list[Round]:
    """One round a batch; who goes first changes from round to round."""
    names, rounds = list(steps), []
    for number, batch in enumerate(batches):
        turn = number % len(names)
        found: Round = {}
        for name in names[turn:] + names[:turn]:
            seed_step(config.seed, number, 0)
            wait()
            start = time.perf_counter()
            loss = steps[name](batch, learning_rate(config, number))
            wait()
            found[name] = Taken(time.perf_counter() - start, float(loss))
        rounds.append(found)
    return rounds


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(rounds: list[Round], batches: list[SftBatch]) -> dict[str, Any]:
    """Medians over the rounds after warm-up; losses of all rounds."""
    timed, tokens = rounds[WARM_UP_ROUNDS:], [batch.count for batch in batches[WARM_UP_ROUNDS:]]
    peers = {
        name: {
            "tokens_per_s": statistics.median(n / r[name].seconds for n, r in zip(tokens, timed, strict=True)),
            "ms_per_step": statistics.median(r[name].seconds for r in timed) * 1e3,
            "losses": [r[name].loss for r in rounds],
        }
        for name in rounds[0]
    }
    others = [name for name in peers if name != "ours"]
    ratios = {name: [r[name].seconds / r["ours"].seconds for r in timed] for name in others}
    return {
        "peers": peers,
        "ratios": {f"ours/{name}": statistics.median(values) for name, values in ratios.items()},
        "ratio_ranges": {f"ours/{name}": [min(values), max(values)] for name, values in ratios.items()},
        "tokens_per_step": statistics.mean(tokens),
        "tokens_with_padding": statistics.mean(batch.input_ids_B_T.numel() for batch in batches[WARM_UP_ROUNDS:]),
    }


def machine(device: str) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }


def prepare(config: RunConfig, device: str) -> tuple[list[SftBatch], DescriptionTable]:
    """All batches and encoded descriptions, by a base that no peer changes."""
    base, tokenizer = load_base(config.base, device)
    tasks = build_suite(config.data).train
    numbers = DescriptionNumbers.of("description", tasks, config.data.num_descriptions)
    encoder = build_encoder(config.encoder, base, tokenizer)
    steps = SftSteps(config, tasks, numbers, tokenizer)
    batches = [batch for (batch,) in steps.loader(0, pin=device == "cuda")]
    return batches, DescriptionTable.encode(numbers.texts, encoder, device)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--steps", type=int, default=30, help="measured rounds (default 30)")
    parser.add_argument("--batch", type=int, default=64, help="rows, each with an adapter of its own (default 64)")
    parser.add_argument("--out", type=Path, help="file for the JSON, which is also the last line printed")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    overrides = {
        "base.dtype": "bfloat16" if arguments.device == "cuda" else "float32",
        "hypernet.variant": "L",  # its sizes, and those of the LoRA, are the paper's by default
        "encoder.kinds": "[llm]",
        "data.num_descriptions": 1,  # of each task; more would take longer to encode and change nothing in a step
        "train.tasks_per_step": arguments.batch,
        "train.steps": WARM_UP_ROUNDS + arguments.steps,
    }
    config = load_config(None, [f"{key}={value}" for key, value in overrides.items()])
    machine_now = machine(arguments.device)
    batches, table = prepare(config, arguments.device)
    steps: dict[str, Step] = {
        "ours": hypernet_step(SftModule, config, table, arguments.device),
        "peft": peft_step(config, arguments.device),
        "per_token": hypernet_step(PerTokenModule, config, table, arguments.device),
    }
    results = summary(measure(steps, batches, config), batches)
    for name, peer in results["peers"].items():
        print(f"{name:10} {peer['tokens_per_s']:10,.0f} tokens/s {peer['ms_per_step']:10,.1f} ms a step")
    head = {"benchmark": "sft_step", "rows": arguments.batch, "steps": arguments.steps, "machine": machine_now}
    finish(head | results, arguments.out)


if __name__ == "__main__":
    main()
