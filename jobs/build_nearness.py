"""Build a checkpoint's nearness index: what the API holds a description against before it warns of a far one.

    python jobs/build_nearness.py -o docs/results                   # the shipped checkpoint
    python jobs/build_nearness.py --checkpoint runs/sft/checkpoints/step-001000 -o runs/nearness

Writes nearness.safetensors into the checkpoint's folder, and nearness.json: how often held-out descriptions raise a
false alarm, and how much junk of each kind is caught. The threshold comes from the validation tasks and from random
junk; the rates from other tasks, junk of another seed, and written junk, of kinds that had no part in the threshold.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from t2l.tasks.task import Task, TaskSuite
    from t2l.text.encoder import TextEncoder
    from t2l.text.nearness import NearnessIndex

_BATCH = 64
_JUNK = 100
_CALIBRATION_SEED, _REPORT_SEED = 0, 2
_CALIBRATION_WORDINGS, _REPORT_WORDINGS = slice(8), slice(-4, None)
"""Of the held-out descriptions of each task."""

Texts = dict[str, dict[str, list[str]]]
"""By group and name."""
Rates = dict[str, dict[str, dict[str, float]]]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for nearness.json")
    parser.add_argument("--checkpoint", type=Path, help="folder of a checkpoint; left out: the shipped one")
    parser.add_argument(
        "--descriptions-per-task", type=int, default=1, help="references from each training task (default 1)"
    )
    found = parser.parse_args(arguments)
    if found.descriptions_per_task < 1:
        parser.error(f"--descriptions-per-task is {found.descriptions_per_task}; it must be 1 or more")
    return found


def unseen(tasks: Sequence["Task"], wordings: slice) -> list[str]:
    return [text for task in tasks for text in task.unseen_descriptions[wordings]]


def calibration_texts(suite: "TaskSuite", descriptions_per_task: int) -> dict[str, list[str]]:
    from t2l.evaluation.junk import random_junk

    return {
        "known": [text for task in suite.train for text in task.descriptions[:descriptions_per_task]],
        "held_out": unseen(suite.validation, _CALIBRATION_WORDINGS),
        "junk": [text for texts in random_junk(_CALIBRATION_SEED, _JUNK).values() for text in texts],
    }


def report_texts(suite: "TaskSuite") -> Texts:
    """Descriptions, which shall be near, and junk, which shall be far."""
    from t2l.evaluation.junk import WRITTEN_JUNK, random_junk
    from t2l.tasks.freehand import free_hand_tasks

    held_out = {"test": suite.test, **suite.extra}
    descriptions = {name: unseen(tasks, _REPORT_WORDINGS) for name, tasks in held_out.items()}
    free_hand = [task.descriptions[0] for task in free_hand_tasks()]
    return {
        "descriptions": {**descriptions, "free_hand": free_hand},
        "junk": {**random_junk(_REPORT_SEED, _JUNK), **WRITTEN_JUNK},
    }


def read(encoder: "TextEncoder", texts: Texts) -> dict[str, dict[str, "Tensor"]]:
    """Mean states [N, D] by group and name, pooled batch by batch: the states of all tokens would need gigabytes."""
    import torch
    from rich.progress import track

    from t2l.text.nearness import mean_states

    named = [(group, name, given) for group, names in texts.items() for name, given in names.items()]
    batches = [
        (group, name, given[i : i + _BATCH]) for group, name, given in named for i in range(0, len(given), _BATCH)
    ]
    parts = {group: {name: [] for name in names} for group, names in texts.items()}
    for group, name, batch in track(batches, "reading descriptions"):
        parts[group][name].append(mean_states(encoder.encode(batch)).cpu())
    return {group: {name: torch.cat(found) for name, found in names.items()} for group, names in parts.items()}


def rates(index: "NearnessIndex", states_N_D: "Tensor") -> dict[str, float]:
    nearness_N = index.nearness(states_N_D)
    low, median, high = (nearness_N.quantile(share).item() for share in (0.05, 0.5, 0.95))
    far = index.is_far(nearness_N).float().mean().item()
    return {"num_texts": len(nearness_N), "far": far, "nearness_5": low, "median": median, "nearness_95": high}


def build(checkpoint: Path | None, descriptions_per_task: int) -> tuple["NearnessIndex", Rates]:
    """The index and its rates. Raises T2LError for a checkpoint that cannot be loaded."""
    from t2l.data.suite import build_suite
    from t2l.text.nearness import NearnessIndex
    from t2l.text_to_lora import TextToLora

    t2l = TextToLora.from_pretrained(checkpoint)
    suite = build_suite(t2l.config.data)
    texts = {"calibration": calibration_texts(suite, descriptions_per_task), **report_texts(suite)}
    states = read(t2l.encoder, texts)
    known, held_out, junk = states.pop("calibration").values()
    index = NearnessIndex.build(known, held_out, junk, t2l.origin.sha256)
    return index, {g: {name: rates(index, found) for name, found in names.items()} for g, names in states.items()}


def main() -> int:
    arguments = parse()
    from rich.console import Console
    from rich.table import Table

    from t2l.embedded import CHECKPOINT_DIR
    from t2l.errors import T2LError
    from t2l.files import write_json

    try:
        index, found = build(arguments.checkpoint, arguments.descriptions_per_task)
        file = index.save(arguments.checkpoint or CHECKPOINT_DIR)
    except T2LError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    about = {"threshold": index.threshold, "references": len(index.references_M_D), "model_sha256": index.model_sha256}
    write_json(arguments.output / "nearness.json", {**about, **found})
    table = Table("texts", "number", "far", "median nearness", title=f"far: nearness below {index.threshold:.3f}")
    for named in found.values():
        for name, row in named.items():
            table.add_row(name.replace("_", " "), str(row["num_texts"]), f"{row['far']:.1%}", f"{row['median']:.3f}")
        table.add_section()
    Console().print(table)
    print(f"index: {file}\nresults: {arguments.output / 'nearness.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
