"""Pretrain the embedded base model on the universe's skills and write it as a plain Hugging Face folder.

    python jobs/pretrain_base.py -o runs/base minutes=7            # one GPU
    python jobs/pretrain_base.py -o runs/base minutes=90 batch_size=128 loader_workers=1    # two CPU cores

The schedule follows the clock, so any machine finishes it; a slower one sees fewer samples.
"""

import argparse
import sys
from pathlib import Path


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of PretrainConfig")
    return parser.parse_args(arguments)


def main() -> int:
    arguments = parse()
    from t2l.config import load_pretrain_config
    from t2l.errors import CheckpointError, T2LError

    try:
        if arguments.output.exists():  # asked before the training, not after it
            raise CheckpointError(f"{arguments.output} already exists: choose another folder")
        config = load_pretrain_config(arguments.overrides)
        from t2l.embedded.pretrain import pretrain, write_base
        from t2l.embedded.tokenizer import build_tokenizer, load_tokenizer

        tokenizer = load_tokenizer(config.init) if config.init else build_tokenizer()
        write_base(pretrain(config, tokenizer), tokenizer, config, arguments.output)
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"base model: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
