"""What sweeps vary: named spaces of settings, and the runs that they come to."""

import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from t2l.config import RunConfig, load_config
from t2l.data.suite import build_suite
from t2l.errors import ConfigError
from t2l.tasks.task import TaskSuite

Grid = Mapping[str, Sequence[Any]]
"""Dotted names of settings -> their values; every combination is a trial."""

Budget = Literal["fixed", "scaled"]

_VARIANTS = ("S", "M", "L")


@dataclass(frozen=True)
class Space:
    """The union of grids. What a grid does not name is as in the base config.

    base: config file of the checkout. parts, reduction: see t2l.cluster.sweep.Halving.
    """

    base: str
    grids: tuple[Grid, ...]
    parts: int
    reduction: int

    @property
    def keys(self) -> tuple[str, ...]:
        """All settings that vary."""
        return tuple(dict.fromkeys(key for grid in self.grids for key in grid))

    def combinations(self) -> list[dict[str, Any]]:
        return [
            dict(zip(grid, values, strict=True)) for grid in self.grids for values in itertools.product(*grid.values())
        ]


SPACES = {
    "small": Space(
        base="jobs/configs/sweep_small.yaml",
        grids=({"hypernet.variant": _VARIANTS, "hypernet.latent_size": (32, 64)},),
        parts=4,
        reduction=2,
    ),
    "paper": Space(
        base="jobs/configs/embedded.yaml",
        grids=(  # one trait at a time beside the variant, as in the paper's ablations
            {"hypernet.variant": _VARIANTS, "data.num_train_tasks": (16, 64, 256, 479)},
            {
                "hypernet.variant": _VARIANTS,
                "hypernet.latent_size": (32, 64, 128, 256),
                "hypernet.head_input_size": (128, 512),
            },
            {"hypernet.variant": _VARIANTS, "lora.rank": (4, 8, 16)},
            {"hypernet.variant": _VARIANTS, "data.num_descriptions": (1, 16, 128)},
            {"hypernet.variant": _VARIANTS, "condition": ("description", "input", "static")},
        ),
        parts=9,
        reduction=3,
    ),
}


def space_of(name: str) -> Space:
    """Raises ConfigError for an unknown one."""
    if name not in SPACES:
        raise ConfigError(f"unknown space '{name}': choose from {', '.join(SPACES)}")
    return SPACES[name]


def plan(
    space: Space,
    base: Path,
    overrides: Sequence[str],
    output: Path,
    budget: Budget = "fixed",
    samples: int | None = None,
) -> dict[str, RunConfig]:
    """The runs of a sweep, by name, each in <output>/trials/<name>; `samples` of them drawn at random (None: all).

    fixed: every run has the base's train.steps; scaled: the run of the most training tasks has, the others in
    proportion to theirs. Raises ConfigError for a setting that is unknown, or that is swept and overridden too.
    """
    if fixed := [key for key in space.keys if any(override.split("=")[0] == key for override in overrides)]:
        raise ConfigError(f"'{fixed[0]}' is what this space varies: leave it out, or choose another space")
    runs: dict[str, RunConfig] = {}
    for settings in space.combinations():
        name = trial_name(settings)
        place = {"name": name, "output_dir": str(output / "trials"), "train.report_inputs": 0}
        run = load_config(
            base, [*overrides, *(f"{key}={json.dumps(value)}" for key, value in (settings | place).items())]
        )
        if all(run != known.model_copy(update={"name": name}) for known in runs.values()):  # grids may overlap
            runs[name] = run
    if lacking := [name for name, run in runs.items() if not tasks_of(run).validation]:
        raise ConfigError(f"{lacking[0]} has no validation tasks to be judged by: raise data.num_validation")
    steps = budgeted_steps(runs, budget)
    drawn = runs if samples is None else random.Random(0).sample(list(runs), min(samples, len(runs)))
    return {name: _in_parts(run, steps[name], space.parts) for name, run in runs.items() if name in drawn}


def trial_name(settings: Mapping[str, Any]) -> str:
    """Such as variant-S_latent_size-32: tells which settings, and serves as a folder's name."""
    words = (f"{key.rpartition('.')[2]}-{value}" for key, value in settings.items())
    return re.sub(r"[^A-Za-z0-9_.]+", "-", "_".join(words)).strip("-")


def tasks_of(run: RunConfig) -> TaskSuite:
    """The tasks that a run really has."""
    return build_suite(run.data)


def budgeted_steps(runs: Mapping[str, RunConfig], budget: Budget) -> dict[str, int]:
    """Training steps of each run, by name; see `plan`."""
    if budget == "fixed":
        return {name: run.train.steps for name, run in runs.items()}
    tasks = {name: len(tasks_of(run).train) for name, run in runs.items()}
    most = max(tasks.values())
    return {name: math.ceil(run.train.steps * tasks[name] / most) for name, run in runs.items()}


def _in_parts(run: RunConfig, steps: int, parts: int) -> RunConfig:
    """A checkpoint and a validation at the end of each part."""
    part = math.ceil(steps / parts)
    train = run.train.model_copy(update={"steps": steps, "eval_every": part, "checkpoint_every": part})
    return run.model_copy(update={"train": train})
