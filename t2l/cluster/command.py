"""The command line that all training jobs share. Heavy imports are late, so that help is instant."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from t2l.hub import LOCAL_DIR_HELP, use_local_dir


def parse(doc: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file of settings; left out: all defaults")
    parser.add_argument("--local-dir", type=Path, metavar="DIR", help=LOCAL_DIR_HELP)
    parser.add_argument(
        "--print-config", action="store_true", help="print all settings and what they are for, and stop"
    )
    parser.add_argument(
        "--no-ray", action="store_true", help="train in this process, on one device, without Ray and DeepSpeed"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings over the file's, such as train.lr=1e-3"
    )
    return parser.parse_args()


def train_command(doc: str | None, settings: Sequence[str] = ()) -> int:
    """Train what the command line says, on top of `settings`; returns the exit code."""
    arguments = parse(doc)
    from t2l.config import dump_config, load_config
    from t2l.errors import T2LError

    try:
        use_local_dir(arguments.local_dir)
        config = load_config(arguments.config, [*settings, *arguments.overrides])
        if arguments.print_config:
            print(dump_config(config), end="")
            return 0
        if arguments.no_ray:
            from t2l.cluster.alone import train_alone as train
        else:
            from t2l.cluster.train import train_on_ray as train
        finished = train(config)
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    from rich.console import Console

    from t2l.evaluation.table import score_table

    if finished.report:
        Console().print(score_table(finished.report))
    print(f"checkpoint: {finished.outcome.checkpoint}")
    return 0
