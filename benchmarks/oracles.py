"""Adapters a minute: LoRAs of many tasks trained in one batch, against one at a time, alternating in one run.

    python benchmarks/oracles.py --out benchmarks/results/oracles_cpu.json
    python benchmarks/oracles.py --device cuda --tasks 16 --steps 20 --rounds 2 \
        --out benchmarks/results/oracles_h200.json

Both sides are t2l/train/lora.py on the same tasks, with the shipped model's base and shape of adapter, validation
included, early stopping left out so that both take the same steps: `at_once` gives every task a slot of one batch, one
at a time is the same queue with a single slot. The adapters that come out are compared too. The ratio is the median
over rounds of one round's times; who goes first changes from round to round.
"""

import argparse
from collections.abc import Sequence

from harness import finish, head, in_turn, make_parser, median_seconds, ratios
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


Adapters = dict[str, LoraWeights]
"""By task."""


def train_all(
    base: PerRowLora,
    tokenizer: PreTrainedTokenizerBase,
    tasks: Sequence[Task],
    training: OracleTraining,
    at_once: int,
) -> Adapters:
    rounds = train_loras(base, tokenizer, tasks, training, at_once)
    return {done.task.name: done.weights for round_ in rounds for done in round_.finished}


def largest_difference(one: Adapters, other: Adapters) -> float:
    """Of any weight, relative to the largest weight of its tensor."""
    pairs = (
        (a, b) for task, weights in one.items() for a, b in zip(weights.tensors(), other[task].tensors(), strict=True)
    )
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__, device=True)
    parser.add_argument("--tasks", type=int, default=8, help="as many in one batch (default 8)")
    parser.add_argument("--steps", type=int, default=10, help="of each adapter (default 10)")
    parser.add_argument("--rows", type=int, default=8, help="samples of each adapter and step (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, after one to warm up (default 5)")
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
    settings = {"tasks": len(tasks), "steps": arguments.steps, "rows": arguments.rows}
    result = head("oracles", arguments.device, **settings, parameters=base.spec.num_parameters)
    sizes = {"at_once": len(tasks), "one": 1}
    peers = {
        name: lambda _, size=size: train_all(base, tokenizer, tasks, training, size) for name, size in sizes.items()
    }
    rounds = in_turn(peers, arguments.rounds)
    result["adapters_per_minute"] = {name: len(tasks) / median_seconds(rounds, name) * 60 for name in sizes}
    result["ratios"] = ratios(rounds, "at_once")
    result["largest_difference"] = largest_difference(rounds[0]["one"].value, rounds[0]["at_once"].value)
    for name, speed in result["adapters_per_minute"].items():
        print(f"{name:8} {speed:8.1f} adapters a minute ({arguments.steps} steps of {arguments.rows} rows each)")
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
