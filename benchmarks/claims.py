"""For draw.py and check.py: what results say, as ratios to a peer in the same run."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DEVICES = ("cpu", "h200")


@dataclass(frozen=True)
class Claim:
    """measured: ours, then the peer's, in `unit`. ratio: how many times as fast; from low to high over rounds."""

    work: str
    peer: str
    unit: str
    measured: tuple[float, float]
    ratio: float
    low: float
    high: float


def claims(result: dict[str, Any]) -> Iterator[Claim]:
    """Of one result, whichever benchmark it is of."""
    return _READERS[result["benchmark"]](result)


def read(device: str) -> dict[str, dict[str, Any]]:
    """Committed results by benchmark."""
    found = {name: RESULTS / f"{name}_{device}.json" for name in _READERS}
    return {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}


def read_growth(device: str) -> dict[str, Any] | None:
    """The committed result of growth.py."""
    path = RESULTS / f"growth_{device}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _sft_step(result: dict[str, Any]) -> Iterator[Claim]:
    work = f"SFT step, {result['rows']} adapters, {result['base']}"
    for name, label in (("peft", "PEFT, one shared LoRA"), ("per_token", "upstream's per-token method")):
        rates = result["peers"]["ours"]["tokens_per_s"], result["peers"][name]["tokens_per_s"]
        yield _claim(work, label, "tokens/s", rates, result["ratios"][f"ours/{name}"])


def _generate(result: dict[str, Any]) -> Iterator[Claim]:
    for run in result["runs"]:
        number = "1 adapter" if run["adapters"] == 1 else f"{run['adapters']} adapters"
        work = f"{number} generated ({run['variant']}, {run['dtype']}), {result['base']}"
        if "upstream" in run["ms"]:  # it is left out where it takes long
            times = run["ms"]["ours"], run["ms"]["upstream"]
            yield _claim(work, "one by one, as upstream", "ms", times, run["ratios"]["ours/upstream"])


def _serve_decode(result: dict[str, Any]) -> Iterator[Claim]:
    work = f"decoding {result['rows']} rows, an adapter each, {result['base']}"
    rates, labels = result["tokens_per_s"], {"base": "the base model in the same engine", "peft": "PEFT's mixed batch"}
    for name, label in labels.items():
        if name in rates:
            measured = rates["adapted"], rates[name]
            yield _claim(work, label, "tokens/s", measured, result["ratios"][f"adapted/{name}"])


def _oracles(result: dict[str, Any]) -> Iterator[Claim]:
    rates = result["adapters_per_minute"]["at_once"], result["adapters_per_minute"]["one"]
    work = f"training {result['tasks']} tasks' LoRAs at once"
    yield _claim(work, "one after the other", "adapters/min", rates, result["ratios"]["at_once/one"])


def _scaling(result: dict[str, Any]) -> Iterator[Claim]:
    alone = result["alone"]["tokens_per_s"]
    for name, label in (("whole_zero1", "the base on each"), ("partitioned", "the base partitioned")):
        if (found := result.get(f"{name}_2")) is not None:
            work = f"SFT step on two workers (Ray Train, DeepSpeed; {label}), {result['base']}"
            low, high = (rate / alone for rate in found["range"])
            yield Claim(work, "one worker", "tokens/s", (found["tokens_per_s"], alone), found["ratio"], low, high)


def _claim(work: str, peer: str, unit: str, measured: tuple[float, float], ratio: dict[str, Any]) -> Claim:
    return Claim(work, peer, unit, measured, ratio["median"], *ratio["range"])


_READERS = {
    "sft_step": _sft_step,
    "generate": _generate,
    "serve_decode": _serve_decode,
    "oracles": _oracles,
    "scaling": _scaling,
}
