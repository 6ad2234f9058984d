"""Adapters a minute: LoRAs of many tasks trained in one batch, against one at a time, alternating in one run.

    python benchmarks/oracles.py --out benchmarks/results/oracles_cpu.json
    python benchmarks/oracles.py --device cuda --tasks 24 --steps 250 --out benchmarks/results/oracles_h200.json

Both sides are t2l/train/lora.py on the same tasks, with the shipped model's base and shape of adapter, validation
included, early stopping left out so that both take the same steps: `at_once` gives every task a slot of one batch, one
at a time is the same queue with a single slot. The adapters that come out are compared too. The ratio is the median
over rounds of one round's times; who goes first changes from round to round.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from result import finish
from sft_step import machine, wait
from transformers import PreTrainedTokenizerBase

from t2l.checkpoint import read_info
from t2l.embedded import CHECKPOINT_DIR
from t2l.lora.apply import PerRowLora
from t2l.lora.weights import LoraWeights
from t2l.tasks.task import Task
from t2l.tasks.universe import universe
from t2l.train.base import build_spec, load_base
from t2l.train.lora import train_loras
from t2l.train.lora_settings import OracleTraining


def alike(tasks: Sequence[Task], number: int) -> list[Task]:
    """Neighbours in the order of length, in which the job takes its tasks; from the middle."""
    ordered = sorted(tasks, key=lambda task: len(task.train[0].input))
    first = (len(ordered) - number) // 2
    return ordered[first : first + number]


class Taken(NamedTuple):
    seconds: float
    adapters: dict[str, LoraWeights]


def train_all(
    base: PerRowLora,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    training: OracleTraining,
    at_once: int,
) -> Taken:
    wait()
    start = time.perf_counter()
    rounds = train_loras(base, tokenizer, tasks, training, at_once)
    adapters = {done.task.name: done.weights for round_ in rounds for done in round_.finished}
    wait()
    return Taken(time.perf_counter() - start, adapters)


def largest_difference(one: Taken, other: Taken) -> float:
    """Of any weight, relative to the largest weight of its tensor."""
    pairs = (
        (a, b)
        for task, weights in one.adapters.items()
        for a, b in zip(weights.tensors(), other.adapters[task].tensors(), strict=True)
    )
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def summary(rounds: Sequence[dict[str, Taken]], num_tasks: int) -> dict[str, Any]:
    per_minute = {
        name: statistics.median(num_tasks / r[name].seconds * 60 for r in rounds) for name in ("at_once", "one")
    }
    ratios = [r["one"].seconds / r["at_once"].seconds for r in rounds]
    return {
        "adapters_per_minute": per_minute,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "largest_difference": largest_difference(rounds[0]["one"], rounds[0]["at_once"]),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tasks", type=int, default=8, help="as many in one batch (default 8)")
    parser.add_argument("--steps", type=int, default=10, help="of each adapter (default 10)")
    parser.add_argument("--rows", type=int, default=8, help="samples of each adapter and step (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up (default 5)")
    parser.add_argument("--out", type=Path, help="file for the JSON, which is also the last line printed")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    run = read_info(CHECKPOINT_DIR).config
    model, tokenizer = load_base(run.base, arguments.device)
    base = PerRowLora(model, build_spec(run.lora, model.config))
    tasks = alike(universe(None).train, arguments.tasks)
    training = OracleTraining(
        steps=arguments.steps, rows=arguments.rows, eval_every=arguments.steps, validation_examples=arguments.rows
    )
    machine_now = machine(arguments.device)
    sizes = {"at_once": len(tasks), "one": 1}
    rounds: list[dict[str, Taken]] = []
    for number in range(1 + arguments.rounds):
        order = list(sizes) if number % 2 else list(sizes)[::-1]
        rounds.append({name: train_all(base, tokenizer, tasks, training, sizes[name]) for name in order})
    results = summary(rounds[1:], len(tasks))
    for name, speed in results["adapters_per_minute"].items():
        print(f"{name:8} {speed:8.1f} adapters a minute ({arguments.steps} steps of {arguments.rows} rows each)")
    head = {"benchmark": "oracles", "tasks": len(tasks), "steps": arguments.steps, "rows": arguments.rows}
    finish(head | {"parameters": base.spec.num_parameters, "machine": machine_now} | results, arguments.out)


if __name__ == "__main__":
    main()
