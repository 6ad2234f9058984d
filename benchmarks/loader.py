"""Does the loader keep up with the step at 479 tasks, and how soon does a run take its first step?

    python benchmarks/loader.py --steps 20 --out benchmarks/results/loader_cpu.json
    python benchmarks/loader.py --device cuda --config jobs/configs/embedded.yaml --steps 20 \
        --out benchmarks/results/loader_h200.json

loader: samples/s that one process makes, for two suites of 479 tasks: the universe, whose examples are drawn without
    end, and finite tasks the size of Super-NaturalInstructions', without a cache of tokens, and with it cold and warm.
runs: the real job (jobs/train_sft.py) on the universe with 479 tasks, with the default encoder and 128 descriptions of
    each or as a recipe says, in a process of its own: seconds from its start to its first step, CPU seconds of all its
    processes until then (which other load on the machine changes less), the share of the later steps spent waiting for
    batches, and seconds a step, encoding of descriptions included. Cold: no cache there; warm: the same run again, as
    another run beside the first. The operating system may hold the files of Python's modules either way.
ratio: what the loader makes in the time that a step takes, over what the step takes; below 1 the step would starve.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from harness import finish, head, make_parser

from t2l.cluster.metrics import Metrics
from t2l.config import RunConfig, load_config
from t2l.data.cache import Caches
from t2l.data.descriptions import DescriptionNumbers
from t2l.data.steps import SftSteps
from t2l.data.suite import build_suite
from t2l.tasks.task import Example, Task
from t2l.train.base import load_base

TASKS, EXAMPLES = 479, 100
ROOT = Path(__file__).parents[1]


def finite_tasks(tasks: Sequence[Task]) -> list[Task]:
    """Tasks whose prompts are log-normal around 160 tokens, their answers short: slices of one long text."""
    rng = random.Random(0)
    words = " ".join(tasks[i % len(tasks)].train[i].input for i in range(5_000)).split()

    def text(number: int) -> str:
        start = rng.randrange(len(words) - number)
        return " ".join(words[start : start + number])

    def example() -> Example:
        return Example(text(min(int(rng.lognormvariate(4.0, 0.7)) + 1, 500)), text(rng.randint(1, 4)))

    return [replace(task, train=tuple(example() for _ in range(EXAMPLES))) for task in tasks]


def loader_rate(config: RunConfig, tasks: Sequence[Task], caches: Caches | None) -> dict[str, float]:
    """What one process makes, in all steps of a run."""
    _, tokenizer = load_base(config.base, "cpu")
    numbers = DescriptionNumbers.of(config.condition, tasks, config.data.num_descriptions)
    data = SftSteps(config, tasks, numbers, tokenizer, caches=caches)
    samples = tokens = 0
    start = time.perf_counter()
    for batches in data.loader(0, pin=False):
        for batch in batches:
            samples, tokens = samples + len(batch.lengths_B), tokens + batch.count
    seconds = time.perf_counter() - start
    return {"samples_per_s": samples / seconds, "tokens_per_s": tokens / seconds}


def loader_rates(config: RunConfig) -> dict[str, dict[str, float]]:
    universe = build_suite(config.data).train
    finite = finite_tasks(universe)
    with tempfile.TemporaryDirectory() as folder:
        caches = Caches(Path(folder))
        return {
            "universe": loader_rate(config, universe, None),
            "finite, no cache": loader_rate(config, finite, None),
            "finite, cold cache": loader_rate(config, finite, caches),
            "finite, warm cache": loader_rate(config, finite, caches),
        }


def run_job(output: Path, name: str, settings: Sequence[str], *flags: str) -> dict[str, float]:
    """Run the job to its end; what its metrics say, and when the first of them was there."""
    command = [sys.executable, "jobs/train_sft.py", *flags, f"name={name}", f"output_dir={output}", *settings]
    start = time.perf_counter()
    with (output / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        while not Metrics(output / name).read():
            if process.poll() is not None:
                raise SystemExit((output / f"{name}.log").read_text())
            time.sleep(0.05)
        first, cpu = time.perf_counter() - start, cpu_seconds(process.pid)
        if process.wait():
            raise SystemExit((output / f"{name}.log").read_text())
    records = [record for record in Metrics(output / name).read() if "loss" in record][1:]
    seconds = [record["seconds_per_step"] for record in records]
    return {
        "first_step_s": first,
        "first_step_cpu_s": cpu,
        "waiting_share": sum((1 - r["busy"]) * r["seconds_per_step"] for r in records) / sum(seconds),
        "seconds_per_step": statistics.median(seconds),
    }


def cpu_seconds(pid: int) -> float:
    """Of a process and all that it has started."""
    parent = psutil.Process(pid)
    times = [process.cpu_times() for process in (parent, *parent.children(recursive=True))]
    return sum(t.user + t.system for t in times)


def runs(recipe: Path | None, settings: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
    config = [] if recipe is None else ["--config", str(recipe)]
    for where, flags in (("alone", ["--no-ray"]), ("ray", [])):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("cold", "warm"):
                yield f"{where}, {name}", run_job(Path(folder), name, settings, *flags, *config)


def parse() -> argparse.Namespace:
    parser = make_parser(__doc__, device=True)
    parser.add_argument("--steps", type=int, default=40, help="of each run (default 40)")
    parser.add_argument("--loader-steps", type=int, default=480, help="steps made by the loader alone (default 480)")
    parser.add_argument("--config", type=Path, help="recipe to run (default: that of jobs/train_sft.py)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    overrides = [
        f"data.num_train_tasks={TASKS}",
        f"cluster.use_gpu={str(arguments.device == 'cuda').lower()}",
        f"cluster.cpus_per_worker={os.cpu_count()}",
        f"train.steps={arguments.steps}",
        "train.log_every=1",
        "train.validation_inputs=1",
        "train.report_inputs=0",
    ]
    config = load_config(arguments.config, overrides)
    result = head("loader", arguments.device, tasks=TASKS, descriptions=TASKS * config.data.num_descriptions)
    rates = loader_rates(load_config(arguments.config, [*overrides, f"train.steps={arguments.loader_steps}"]))
    for name, rate in rates.items():
        print(f"{name:20} {rate['samples_per_s']:10,.0f} samples/s {rate['tokens_per_s']:12,.0f} tokens/s", flush=True)
    found = {}
    for name, run in runs(arguments.config, overrides):
        samples_per_s = config.train.tasks_per_step * config.train.samples_per_task / run["seconds_per_step"]
        found[name] = run | {"ratio": rates["universe"]["samples_per_s"] / samples_per_s}
        print(
            f"{name:20} first step after {run['first_step_s']:5.1f} s ({run['first_step_cpu_s']:.1f} of CPU), "
            f"{run['seconds_per_step'] * 1e3:6.0f} ms a step, "
            f"waiting {run['waiting_share']:.1%}, loader/step {found[name]['ratio']:.1f}",
            flush=True,
        )
    finish(result | {"loader": rates, "runs": found}, arguments.out)


if __name__ == "__main__":
    main()
