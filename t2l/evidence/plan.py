"""Which runs the tables and figures are made of: each is one training command and one evaluation of what it trained.

All runs through the base model have one budget (jobs/configs/evidence.yaml), so that they differ in what their names
say alone. Seeds are 0, 1 and 2.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from t2l.errors import ConfigError

VARIANTS, SEEDS = ("L", "M", "S"), (0, 1, 2)
TASK_NUMBERS = (120, 240, 479, 1200)
LIBRARY_SIZES = (9, 64, 240, 479)
LIBRARY_TASKS = LIBRARY_SIZES[-1]
_CONTROLLED = "held_out,seen,novel,free_hand"


@dataclass(frozen=True)
class Run:
    """One piece of evidence. In arguments, {out} stands for the folder of all of it.

    train: script and arguments; None: only an evaluation. evaluate: arguments of jobs/evaluate.py; None: not evaluated.
    needs: names of runs that have to be finished before.
    """

    name: str
    train: tuple[str, ...] | None
    evaluate: tuple[str, ...] | None
    needs: tuple[str, ...] = ()


def plan() -> list[Run]:
    """All runs, the most telling first."""
    return [*_libraries(), *_headline(), *_ablations(), *_baselines(), *_reconstruction(), *_scaling()]


def chosen(patterns: Sequence[str]) -> list[Run]:
    """Those of the plan whose names match one of the patterns. Raises ConfigError for a pattern that none matches."""
    runs = plan()
    for pattern in patterns:
        if not any(fnmatch(run.name, pattern) for run in runs):
            raise ConfigError(f"no run is called '{pattern}': choose from {', '.join(run.name for run in runs)}")
    return [run for run in runs if any(fnmatch(run.name, pattern) for pattern in patterns)]


def _sft(name: str, seed: int, *settings: str, splits: str = _CONTROLLED, methods: str = "t2l") -> Run:
    return _trained("train_sft.py", name, seed, "train.label_smoothing=0", *settings, splits=splits, methods=methods)


def _trained(
    script: str, name: str, seed: int, *settings: str, splits: str, methods: str, needs: tuple[str, ...] = ()
) -> Run:
    config = "jobs/configs/evidence_recon.yaml" if script == "train_recon.py" else "jobs/configs/evidence.yaml"
    common = ("--config", config, f"name={name}", "output_dir={out}/runs", f"seed={seed}")
    evaluate = ("--checkpoint", f"{{out}}/runs/{name}", "--splits", splits, "--methods", methods)
    return Run(name, (script, *common, *settings), evaluate, needs)


def _libraries() -> Iterator[Run]:
    """Oracles of the first training tasks, which reconstruction learns, and of the held-out tasks, the upper bound."""
    for name, split, number in (("library", "train", LIBRARY_TASKS), ("oracles", "test", 120)):
        arguments = ("-o", f"{{out}}/{name}", "--split", split, "--tasks", str(number), "--at-once", "96")
        yield Run(name, ("train_oracles.py", *arguments), None)


def _headline() -> Iterator[Run]:
    """T2L by SFT on all training tasks."""
    for seed in SEEDS:
        for variant in VARIANTS:
            methods = "t2l,refined" if variant == "L" else "t2l"
            yield _sft(f"sft_{variant}_{seed}", seed, f"hypernet.variant={variant}", methods=methods)


def _ablations() -> Iterator[Run]:
    """Other conditions, another encoder, distillation instead of labels."""
    for seed in SEEDS:
        yield _sft(f"static_{seed}", seed, "condition=static", splits="held_out,seen,novel", methods="multitask")
        yield _sft(f"input_{seed}", seed, "condition=input", splits="held_out,seen,novel", methods="hyperdecoder")
        yield _sft(f"one_hot_{seed}", seed, "condition=one_hot", splits="seen", methods="one_hot")
        yield _sft(f"minilm_{seed}", seed, "encoder={kinds: [sentence], model: minilm}")
        distill = ("train.objective=distill", "train.pool_size=24")
        yield _trained("train_sft.py", f"distill_L_{seed}", seed, *distill, splits=_CONTROLLED, methods="t2l")


def _reconstruction() -> Iterator[Run]:
    """From libraries of several sizes; of the largest also by one-hot codes and by the distance of products."""
    for number in LIBRARY_SIZES:
        for variant in VARIANTS:
            for seed in SEEDS:
                yield _recon(f"recon{number}_{variant}_{seed}", seed, number, f"hypernet.variant={variant}")
    for seed in SEEDS:
        yield _recon(f"recon_delta_L_{seed}", seed, LIBRARY_TASKS, "train.distance=delta")
        yield _recon(
            f"recon_one_hot_L_{seed}", seed, LIBRARY_TASKS, "condition=one_hot", splits="seen", methods="one_hot"
        )


def _recon(
    name: str, seed: int, number: int, *settings: str, splits: str = "seen,held_out", methods: str = "t2l"
) -> Run:
    size = (f"data.num_train_tasks={number}", f"train.tasks_per_step={number}")
    settings = ("train.library={out}/library", *size, *settings)
    return _trained("train_recon.py", name, seed, *settings, splits=splits, methods=methods, needs=("library",))


def _scaling() -> Iterator[Run]:
    """Accuracy against the number of training tasks, at the same budget."""
    for seed in SEEDS:
        for number in TASK_NUMBERS:
            for variant in VARIANTS:
                settings = (f"data.num_train_tasks={number}", f"hypernet.variant={variant}")
                yield _sft(f"tasks{number}_{variant}_{seed}", seed, *settings, splits="held_out")


def _baselines() -> Iterator[Run]:
    """Prompts alone, and what can be done with libraries without training."""
    prompts = "base,definition,few_shot,few_shot_definition"
    yield Run("prompts", None, ("--splits", "held_out,seen,novel,new_operations,free_hand", "--methods", prompts))
    yield Run(
        "held_out_oracles",
        None,
        ("--library", "{out}/oracles", "--splits", "held_out", "--methods", "oracle"),
        ("oracles",),
    )
    methods = "oracle,average,nearest"
    library = ("--library", "{out}/library", "--splits", "held_out,seen,novel", "--methods", methods)
    yield Run("library_baselines", None, library, ("library",))
