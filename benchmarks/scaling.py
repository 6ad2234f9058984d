"""How the tokens/s of an SFT step grow with workers: Ray Train starts them, DeepSpeed drives them, as in a run.

    python benchmarks/scaling.py --out benchmarks/results/scaling_cpu.json
    python benchmarks/scaling.py --device cuda --base mistral-7b --workers 1 2 --settings whole_zero1 partitioned \
        --rows 64 --parts 4 --prompt 160 --steps 4 --rounds 2 --out benchmarks/results/scaling_h200.json

Each worker takes `--rows` rows a step, so that two should do twice the tokens in the same time. The goal is 95 % of
that: 1.9 times at two. All are held against one worker with the whole base, which is always measured.

whole_zero1, whole_zero2: the base whole on every worker; ZeRO for what is trained.
partitioned: the base's layers partitioned over workers (t2l/train/shard.py); ZeRO 3 for what is trained.

A base of random weights and rows of random tokens as in sft_step.py go through the job's loop (t2l/train/loop.py); its
meter adds up the tokens of all workers. A round is `--steps` steps, from log to log; the first warms up, medians are
over the others. Unlike peers elsewhere, settings run one after another, each in processes of its own. Left out of
the timing: making batches, encoding descriptions, checkpoints. `memory_gib`: the most that torch has allocated on a GPU
since the first round, weights and all, on the worker that has most. On a CPU all workers share the same cores: its
numbers only show that it runs.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

import ray
import ray.train.torch
import torch
from harness import finish, head
from sft_step import GIB, VOCABULARY, draw_rows
from shapes import EMBEDDING, random_base, shaped_parser
from transformers import PreTrainedModel

from t2l.cluster.train import check_resources, start_ray
from t2l.config import RunConfig, SftConfig, load_config, parse_config
from t2l.data.collate import SftBatch, collate, micro_batches
from t2l.data.descriptions import DescriptionTable
from t2l.hypernet.text_to_lora import build_model
from t2l.lora.apply import PerRowLora
from t2l.train.base import build_spec
from t2l.train.loop import LogRecord, train
from t2l.train.shard import partition
from t2l.train.state import State
from t2l.train.step import SftModule
from t2l.train.zero import DeepSpeedEngine

SETTINGS = {
    "whole_zero1": ["cluster.zero_stage=1", "cluster.shard_base=false"],
    "whole_zero2": ["cluster.zero_stage=2", "cluster.shard_base=false"],
    "partitioned": ["cluster.zero_stage=3", "cluster.shard_base=true"],
}
ALONE = "whole_zero1"
GOAL = 0.95
"""Of what as many workers would do if none waited for another."""


class Drawn:
    """One worker's batches of every step, made beforehand."""

    unit = "tokens"

    def __init__(self, config: RunConfig, arguments: argparse.Namespace, rank: int) -> None:
        lengths, rng = (arguments.prompt, arguments.answer), random.Random(rank)
        drawn = [draw_rows(arguments.rows, *lengths, VOCABULARY, rng) for _ in range(config.train.steps)]
        steps = [micro_batches(rows, arguments.parts) for rows in drawn]
        self._steps = [[collate(part, config.train.tasks_per_step, pad_id=0) for part in step] for step in steps]

    def loader(self, start: int, pin: bool) -> Iterator[Sequence[SftBatch]]:
        return iter([[batch.pin_memory() if pin else batch for batch in step] for step in self._steps[start:]])


class Rounds:
    """Hooks that keep what the meter says of each round. Memory is watched from the end of the first one on."""

    def __init__(self) -> None:
        self._records: list[LogRecord] = []

    def on_log(self, record: LogRecord) -> None:
        self._records.append(record)
        if len(self._records) == 1 and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_checkpoint(self, step: int, state: State, validate: bool) -> None: ...

    def measured(self, device: str) -> dict[str, Any]:
        peak = torch.tensor(torch.cuda.max_memory_allocated(), device=device)
        torch.distributed.all_reduce(peak, torch.distributed.ReduceOp.MAX)
        rates = [record.rate for record in self._records[1:]]
        return {
            "tokens_per_s": median(rates),
            "range": [min(rates), max(rates)],
            "ms_per_step": median(record.seconds_per_step for record in self._records[1:]) * 1e3,
            "memory_gib": int(peak) / GIB,
        }


def work(given: dict[str, Any]) -> dict[str, Any]:
    """What Ray Train runs in every worker: run_worker of t2l/cluster/worker.py, but nothing is read or written."""
    config, arguments = parse_config(given["config"]), given["arguments"]
    assert isinstance(config.train, SftConfig)
    device, context = arguments.device, ray.train.get_context()  # Ray Train has made the worker's GPU the current one
    if device == "cpu":
        torch.set_num_threads(config.cluster.cpus_per_worker)
    base = random_base(arguments.base, device)
    spec = build_spec(config.lora, base.config)
    if config.cluster.shard_base and context.get_world_size() > 1:
        partition_whole(base, device)
    torch.manual_seed(config.seed)
    module = SftModule(PerRowLora(base, spec), build_model(config, spec, EMBEDDING), config.train)
    engine, rounds = DeepSpeedEngine(module, config.train, config.cluster.zero_stage, device), Rounds()
    states = torch.randn(arguments.rows, 1, EMBEDDING, generator=torch.Generator().manual_seed(0)).half().numpy()
    table = DescriptionTable(len(states), lambda numbers: [states[number] for number in numbers], device)
    train(engine, Drawn(config, arguments, context.get_world_rank()), table, config, rounds, None)
    return rounds.measured(device)


def partition_whole(base: PreTrainedModel, device: str) -> None:
    """Cut up what every worker holds whole: the weights are random but the same, so that no files are needed."""
    partition(base, torch.device(device))
    with torch.no_grad():  # as `load_sharded_base` does, for the same reason
        base.base_model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device), use_cache=False)


def measure(arguments: argparse.Namespace, setting: str, workers: int) -> dict[str, Any]:
    overrides = [*SETTINGS[setting], f"cluster.num_workers={workers}", f"cluster.use_gpu={arguments.device == 'cuda'}"]
    overrides += ["hypernet.variant=L", "encoder.kinds=[sentence]", f"train.tasks_per_step={arguments.rows * workers}"]
    overrides += [f"train.micro_batches={arguments.parts}", f"train.log_every={arguments.steps}"]
    overrides += [f"train.compile_base={arguments.compile}"]
    config = load_config(None, [*overrides, f"train.steps={arguments.steps * (1 + arguments.rounds)}"])
    use_gpu = check_resources(config.cluster)
    with tempfile.TemporaryDirectory() as folder:
        trainer = ray.train.torch.TorchTrainer(
            work,
            train_loop_config={"config": config.model_dump(mode="json"), "arguments": arguments},
            scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=use_gpu),
            torch_config=ray.train.torch.TorchConfig(backend="nccl" if use_gpu else "gloo"),
            run_config=ray.train.RunConfig(name=setting, storage_path=folder),
        )
        found = trainer.fit().return_value
    assert isinstance(found, dict)
    print(f"{setting} at {workers}: {found['tokens_per_s']:,.0f} tokens/s, {found['ms_per_step']:,.1f} ms", flush=True)
    return found


def parse() -> argparse.Namespace:
    parser = shaped_parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="how many, in turn (default 1 2)")
    parser.add_argument("--settings", choices=SETTINGS, nargs="+", default=list(SETTINGS), help="(default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds (default 3)")
    parser.add_argument("--steps", type=int, default=3, help="of a round (default 3)")
    parser.add_argument("--rows", type=int, default=16, help="of a step on each worker (default 16)")
    parser.add_argument("--parts", type=int, default=2, help="micro-batches of a worker's step (default 2)")
    parser.add_argument("--prompt", type=int, default=24, help="median tokens of a prompt (default 24)")
    parser.add_argument("--answer", type=int, default=8, help="mean tokens of an answer (default 8)")
    parser.add_argument("--compile", action="store_true", help="compile the layers of the base (train.compile_base)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    result = head("scaling", **{name: value for name, value in vars(arguments).items() if name != "out"})
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # Ray's workers import what this process does
    start_ray()
    result["alone"] = alone = measure(arguments, ALONE, 1)
    for workers in sorted({*arguments.workers} - {1}):
        for setting in arguments.settings:
            found = measure(arguments, setting, workers)
            ratio = found["tokens_per_s"] / alone["tokens_per_s"]
            result[f"{setting}_{workers}"] = found | {"ratio": ratio, "of_goal": ratio / (GOAL * workers)}
    ray.shutdown()
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
