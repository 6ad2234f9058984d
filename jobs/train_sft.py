"""Train a text-to-LoRA model by SFT on a Ray cluster, or on this machine if there is none.

    python jobs/train_sft.py --config jobs/configs/embedded_tiny.yaml train.steps=200
    ray job submit --working-dir . -- python jobs/train_sft.py --config jobs/configs/embedded_tiny.yaml

Started again with the same name and settings, it goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="YAML file of settings; left out: all defaults")
    parser.add_argument("--print-config", action="store_true", help="print the settings in full and stop")
    parser.add_argument(
        "--no-ray", action="store_true", help="train in this process, on one device, without Ray and DeepSpeed"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings over the file's, such as train.lr=1e-3"
    )
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse()
    from t2l.config import dump_config, load_config
    from t2l.errors import T2LError

    try:
        config = load_config(arguments.config, arguments.overrides)
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


if __name__ == "__main__":
    sys.exit(main())
