"""What benchmarks share: peers in turn, their ratios, the machine, and the result as one line of JSON."""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `serve`, which is a folder of the checkout

from t2l.evaluation.records import machine, versions
from t2l.files import write_text

T = TypeVar("T")


class Taken(NamedTuple, Generic[T]):
    """What a peer took for a round, and what came of it."""

    seconds: float
    value: T


COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}

Round = dict[str, Taken[T]]
"""By the name of the peer."""


def make_parser(doc: str | None, device: bool = False) -> argparse.ArgumentParser:
    """Of a benchmark's command line: where it runs, if that can be chosen, and where its result goes."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if device:
        made.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    made.add_argument("--out", type=Path, help="file for the JSON, which is also the last line printed")
    return made


def head(benchmark: str, device: str = "cpu", **settings: Any) -> dict[str, Any]:
    """How every result begins; the machine's load is that of this moment, so call it first."""
    name = torch.cuda.get_device_name() if device == "cuda" else machine()["processor"]
    now = {"device": name, "threads": torch.get_num_threads(), "load": round(os.getloadavg()[0], 2)}
    return {"benchmark": benchmark, **settings, "machine": {**machine(), **now}, "versions": versions()}


def finish(result: Mapping[str, Any], out: Path | None) -> None:
    """The last line that a benchmark prints, and the file that it writes if one is named."""
    save(result, out)
    print(json.dumps(result))


def save(result: Mapping[str, Any], out: Path | None) -> None:
    """To the file, if one is named."""
    if out:
        write_text(out, json.dumps(result) + "\n")


def in_turn(
    peers: Mapping[str, Callable[[int], T]], rounds: int, warm_up: int = 1, settle: bool = False
) -> list[Round[T]]:
    """Each peer once a round; who goes first changes from round to round. `warm_up` rounds come before, unmeasured.

    A peer is told the number of the round. Ratios within a round are fair: what else the machine does hits all.
    settle: a peer runs once untimed before it is timed, as the one before may leave it caches and memory in disorder.
    """
    names, found = list(peers), []
    for number in range(warm_up + rounds):
        turn = number % len(names)
        taken = {}
        for name in names[turn:] + names[:turn]:
            if settle:
                peers[name](number)
            taken[name] = timed(partial(peers[name], number))
        found.append({name: taken[name] for name in names})
    return found[warm_up:]


def timed(function: Callable[[], T]) -> Taken[T]:
    """From a quiet device to a quiet device."""
    wait()
    start = time.perf_counter()
    value = function()
    wait()
    return Taken(time.perf_counter() - start, value)


def wait() -> None:
    """For the device, if there is one that goes on by itself."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratios(rounds: Sequence[Round[T]], ours: str = "ours") -> dict[str, dict[str, Any]]:
    """ "ours/peer" -> by how much we are faster: median over rounds of one round's times, and the range."""
    found = {}
    for name in rounds[0]:
        if name != ours:
            values = [taken[name].seconds / taken[ours].seconds for taken in rounds]
            found[f"{ours}/{name}"] = {"median": statistics.median(values), "range": [min(values), max(values)]}
    return found


def median_seconds(rounds: Sequence[Round[T]], name: str) -> float:
    return statistics.median(taken[name].seconds for taken in rounds)


@cache
def bandwidth(device: str) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.zeros(COPY_BYTES[device], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = min(timed(lambda: target.copy_(source)).seconds for _ in range(5))
    return 2 * source.nbytes / seconds
