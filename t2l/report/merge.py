"""Records of many runs -> one entry for each method and setting; seeds become an interval."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from t2l.evaluation.names import METHOD_NAMES
from t2l.evaluation.records import Head, Record

HEADLINE_WORDINGS = ("unseen", None, "seen")
"""What a method's own score is measured under: the first of these that it has."""


@dataclass(frozen=True)
class Estimate:
    """A mean and half the width of its 95 % interval, over seeds where there are several, else over tasks."""

    mean: float
    margin: float
    seeds: int = 1

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.margin:.3f}"

    @classmethod
    def over(cls, values: Sequence[float], seeds: int = 1) -> "Estimate":
        """Mean of independent values with Student's t; of a single one the interval is all there is, 1."""
        if len(values) < 2:
            return cls(fmean(values), 1.0, seeds)
        from scipy.stats import t

        quantile = float(t.ppf(0.975, len(values) - 1))
        return cls(fmean(values), quantile * stdev(values) / len(values) ** 0.5, seeds)


@dataclass(frozen=True)
class Entry:
    """One method under one set of settings: `runs` maps (split, wording) to a record for each seed."""

    head: Head
    """What all its records share; split, seed and name are blank."""
    name: str
    """Of its runs, without the seed."""
    runs: dict[tuple[str, str | None], tuple[Record, ...]]

    @cached_property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split for split, _ in self.runs))

    def wordings(self, split: str) -> tuple[str | None, ...]:
        return tuple(wording for found, wording in self.runs if found == split)

    def headline(self, split: str) -> str | None:
        """The wording of the method's own score."""
        return next((wording for wording in HEADLINE_WORDINGS if (split, wording) in self.runs), None)

    def score(self, split: str, wording: str | None = "headline") -> Estimate | None:
        """None if it was not measured."""
        wording = self.headline(split) if wording == "headline" else wording
        records = self.runs.get((split, wording), ())
        if len(records) == 1:
            return Estimate(records[0].score, records[0].margin_95)
        return Estimate.over([record.score for record in records], len(records)) if records else None

    def by_task(self, split: str, wording: str | None = "headline") -> dict[str, float]:
        """Mean over seeds."""
        wording = self.headline(split) if wording == "headline" else wording
        records = self.runs.get((split, wording), ())
        tasks = dict.fromkeys(task for record in records for task in record.by_task)
        return {task: fmean(r.by_task[task] for r in records if task in r.by_task) for task in tasks}

    def difference(self, split: str, wording: str) -> Estimate | None:
        """The method's own score minus that under another wording, in pairs: seed by seed, or task by task."""
        own, other = self.runs.get((split, self.headline(split))), self.runs.get((split, wording))
        if not own or not other:
            return None
        other_of = {(record.name, record.seed): record for record in other}
        pairs = [(a, other_of[a.name, a.seed]) for a in own if (a.name, a.seed) in other_of]
        if len(pairs) > 1:
            return Estimate.over([a.score - b.score for a, b in pairs], len(pairs))
        if not pairs:
            return None
        [(a, b)] = pairs
        return Estimate.over([score - b.by_task[task] for task, score in a.by_task.items() if task in b.by_task])


def merge(records: Iterable[Record]) -> list[Entry]:
    """One entry a method and setting: prompts alone, baselines, T2L, what it may reach; S before M before L.

    Runs that differ in nothing but seed and name are seeds of one method. If a seed occurs twice among them, some
    setting differs that records do not hold: then names, their seeds' numbers aside, tell the methods apart.
    A run that is given twice counts once, as the later file has it.
    """
    entries: list[Entry] = []
    for head, same in _grouped(_latest(records)).items():
        runs = dict.fromkeys((record.name, record.seed) for record in same)
        repeated = len({seed for _, seed in runs}) < len(runs)
        names = [_stem(record) if repeated else "" for record in same]
        for name in dict.fromkeys(names):
            mine = [record for record, own in zip(same, names, strict=True) if own == name]
            entries.append(Entry(head, name or _stem(mine[0]), _by_place(mine)))
    return sorted(entries, key=_order)


def _latest(records: Iterable[Record]) -> list[Record]:
    return list({record.head: record for record in records}.values())


def _grouped(records: Iterable[Record]) -> dict[Head, list[Record]]:
    groups: dict[Head, list[Record]] = {}
    for record in records:
        blank = {"split": "", "wording": None, "seed": None, "name": ""}
        groups.setdefault(record.head.model_copy(update=blank), []).append(record)
    return groups


def _stem(record: Record) -> str:
    """The run's name without its seed: "recon-seed2" -> "recon"."""
    return re.sub(rf"[-_ ]*(s|seed)?[-_ =]*{record.seed}$", "", record.name)


def _by_place(records: Sequence[Record]) -> dict[tuple[str, str | None], tuple[Record, ...]]:
    places = dict.fromkeys((record.split, record.wording) for record in records)
    return {place: tuple(r for r in records if (r.split, r.wording) == place) for place in places}


def _order(entry: Entry) -> tuple[object, ...]:
    head, methods = entry.head, [*METHOD_NAMES]
    place = methods.index(head.method) if head.method in methods else len(methods)
    variant = VARIANTS.index(head.variant) if head.variant in VARIANTS else -1
    settings = [str(value or "").zfill(12) for value in head.model_dump().values()]
    return place, [*OBJECTIVES, head.objective].index(head.objective), variant, settings, entry.name


# ---- what entries are called

VARIANTS = ("S", "M", "L")
OBJECTIVES = {"sft": "SFT", "recon": "reconstruction", "distill": "distillation"}
_UNITS = {
    "num_train_tasks": "{} tasks",
    "num_descriptions": "{} descriptions",
    "latent_size": "latent {}",
    "head_input_size": "head {}",
    "rank": "rank {}",
    "training_steps": "{} steps",
}


def labels(entries: Sequence[Entry]) -> list[str]:
    """A short unique name for each: the method, its variant and objective, and what sets it apart from its like."""
    alike: dict[tuple[str, str | None], list[Head]] = {}
    for entry in entries:
        alike.setdefault((entry.head.method, entry.head.objective), []).append(entry.head)
    varying = {
        kind: [field for field in ("encoder", *_UNITS) if len({getattr(head, field) for head in heads}) > 1]
        for kind, heads in alike.items()
    }
    found = [_label(entry.head, varying[entry.head.method, entry.head.objective]) for entry in entries]
    count = Counter(found)
    named = [f"{text} ({e.name})" if count[text] > 1 else text for text, e in zip(found, entries, strict=True)]
    again = Counter(named)
    return [f"{text} #{number}" if again[text] > 1 else text for number, text in enumerate(named, 1)]


def _label(head: Head, varying: Sequence[str]) -> str:
    name = METHOD_NAMES.get(head.method, head.method) + (f" {head.variant}" if head.variant else "")
    parts = [name, OBJECTIVES.get(head.objective or "", head.objective or "")]
    for field in varying:
        value = getattr(head, field)
        if value is not None:
            parts.append(_UNITS.get(field, "{}").format(value if isinstance(value, str) else f"{value:,}"))
    return ", ".join(filter(None, parts))
