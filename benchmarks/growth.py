"""How cost grows: decoding with adapters, rows, prompts and base models; generating with adapters.

    python benchmarks/growth.py --out benchmarks/results/growth_cpu.json
    python benchmarks/growth.py --device cuda --base mistral-7b --bases qwen3-0.6b qwen3-4b mistral-7b --rows 256 \
        --prompts 64 512 --steps 4 --rounds 2 --out benchmarks/results/growth_h200.json

Each point is benchmarks/serve_decode.py without PEFT, or benchmarks/generate.py, at other sizes. Along a curve one
thing changes: distinct adapters in a batch of fixed size, rows with an adapter each, tokens of a prompt, or the base
model. `make bench` draws the curves.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import generate
import torch
from harness import finish, head, save
from serve_decode import Load, measure, random_lora
from shapes import NAMES, RANK, TARGETS, base_config, shaped_parser

from t2l.lora.apply import PerRowLora
from t2l.lora.spec import LoraSpec

KEPT = ("tokens_per_s", "ms_per_step", "ratios", "floor_ms", "over_floor", "prefill_tokens_per_s")


def powers(last: int) -> list[int]:
    """1, 4, 16, ... up to `last`, and that."""
    found = [4**i for i in range(10) if 4**i < last]
    return [*found, last]


def point(base: PerRowLora, x: object, load: Load) -> dict[str, Any]:
    measured = measure(base, load)
    found = {"x": x, **{name: measured[name] for name in KEPT}}
    rates = found["tokens_per_s"]
    print(f"  {x!s:12} base {rates['base']:8,.0f}  adapted {rates['adapted']:8,.0f} tokens/s", flush=True)
    return found


def decoding(arguments: argparse.Namespace) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Curves by name."""
    rows, prompt, size = arguments.rows, arguments.prompts[0], (arguments.steps, arguments.rounds)
    quarter = max(1, rows // 4)
    base = random_lora(arguments.base, arguments.device)
    yield "adapters", [point(base, n, Load(rows, n, prompt, *size)) for n in powers(rows)]
    yield "rows", [point(base, n, Load(n, n, prompt, *size)) for n in powers(rows)]
    yield "prompt", [point(base, n, Load(quarter, quarter, n, *size)) for n in arguments.prompts]
    del base
    found = []
    for name in arguments.bases:
        base = random_lora(name, arguments.device)
        found.append(point(base, name, Load(quarter, quarter, prompt, *size)))
        found[-1]["parameters"] = sum(parameter.numel() for parameter in base.model.parameters())
        del base
    yield "base", found


@torch.inference_mode()
def generating(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All variants, each at several numbers of adapters."""
    spec = LoraSpec.from_config(base_config(arguments.base), TARGETS, rank=RANK)
    dtype = torch.bfloat16 if arguments.device == "cuda" else torch.float32
    for variant in "SML":
        hypernet = generate.make(variant, spec, arguments.device, dtype)
        for adapters in powers(arguments.rows):
            found = generate.compare(hypernet, adapters, arguments.rounds, alone=True)
            yield {"variant": variant, **found}


def parse() -> argparse.Namespace:
    parser = shaped_parser(__doc__)
    parser.add_argument(
        "--bases", nargs="+", choices=NAMES, default=["embedded"], help="for the curve over base models"
    )
    parser.add_argument("--rows", type=int, default=64, help="at most (default 64)")
    parser.add_argument("--prompts", type=int, nargs="+", default=[16, 64, 128], help="tokens (default 16, 64, 128)")
    parser.add_argument("--steps", type=int, default=8, help="of each round (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds of each point (default 3)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    result = head("growth", arguments.device, base=arguments.base, rows=arguments.rows)
    result["decode"] = {}
    for name, points in decoding(arguments):
        result["decode"][name] = points
        print(f"{name}: {len(points)} points", flush=True)
        save(result, arguments.out)  # a lent machine may end before the run does
    result["generate"] = list(generating(arguments))
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
