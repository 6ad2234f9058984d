"""Train a library of oracles, one LoRA a task, over a Ray cluster or on this machine if there is none.

    python jobs/train_oracles.py -o runs/library                         # all training tasks
    python jobs/train_oracles.py -o runs/library --split test --tasks 60
    ray job submit --working-dir . -- python jobs/train_oracles.py -o /shared/library

Writes PEFT folders and manifest.json. Started again, it leaves out what is finished.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from t2l.hub import LOCAL_DIR_HELP, use_local_dir
from t2l.train.lora_settings import OracleTraining


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the library")
    parser.add_argument("--split", action="append", help="train (default), validation, test, novel, ...; repeatable")
    parser.add_argument("--tasks", type=int, help="the first so many tasks of each split (default: all)")
    parser.add_argument("--at-once", type=int, default=24, help="adapters in one batch of a worker (default 24)")
    parser.add_argument("--config", type=Path, help="settings of base, lora and data (default: the packaged model's)")
    parser.add_argument("--cpus-per-worker", type=int, default=1, help="beside its GPU too (default 1)")
    parser.add_argument("--local-dir", type=Path, metavar="DIR", help=LOCAL_DIR_HELP)
    parser.add_argument("--no-ray", action="store_true", help="train in this process, on one device, without Ray")
    for setting in fields(OracleTraining):  # --steps, --rows, --lr, --patience, ...
        kind = type(setting.default)
        name = f"--{setting.name.replace('_', '-')}"
        parser.add_argument(name, type=kind, default=setting.default, help=f"default {setting.default}")
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse()
    from t2l.checkpoint import read_info
    from t2l.cluster.oracles import LibraryJob, train_library
    from t2l.config import load_config
    from t2l.data.suite import build_suite
    from t2l.embedded import CHECKPOINT_DIR
    from t2l.errors import ConfigError, T2LError

    try:
        use_local_dir(arguments.local_dir)
        run = load_config(arguments.config) if arguments.config else read_info(CHECKPOINT_DIR).config
        training = OracleTraining(
            **{setting.name: getattr(arguments, setting.name) for setting in fields(OracleTraining)}
        )
        suite = build_suite(run.data)
        splits = {"train": suite.train, "validation": suite.validation, "test": suite.test, **suite.extra}
        wanted = arguments.split or ["train"]
        if unknown := [name for name in wanted if name not in splits]:
            raise ConfigError(f"there is no split '{unknown[0]}': choose from {', '.join(splits)}")
        tasks = [task for name in dict.fromkeys(wanted) for task in splits[name][: arguments.tasks]]
        job = LibraryJob(arguments.output, run, training, arguments.at_once, arguments.cpus_per_worker)
        library = train_library(job, tasks, use_ray=not arguments.no_ray)
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"library: {library.folder.absolute()} ({len(library.tasks):,} adapters)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
