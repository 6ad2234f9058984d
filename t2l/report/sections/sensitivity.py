"""How much the wording matters, and how much the description does, task by task."""

from collections.abc import Sequence
from statistics import fmean, median

from t2l.evaluation.names import WORDING_NAMES, split_name
from t2l.report.document import Cell, Figure, Section, Table
from t2l.report.merge import Entry
from t2l.report.sections.conditions import leading
from t2l.report.sections.scores import splits_of
from t2l.report.style import COLOURS, panels

_SHORT = {"seen": "training\nwording", "unseen": "unseen\nwording", "shuffled": "another\ntask's", "junk": "junk"}


def sensitivity(entries: Sequence[Entry]) -> Section | None:
    """None unless some T2L was asked with another task's description."""
    entry = leading([entry for entry in entries if any(wording == "shuffled" for _, wording in entry.runs)])
    if entry is None:
        return None
    splits = [split for split in splits_of([entry]) if (split, "shuffled") in entry.runs]
    split = splits[0]
    figure, [left, right] = panels(2, height=3.4)
    _spread(left, entry, split)
    gains = _gains(entry, split)
    right.hist(gains, bins=[i / 20 - 1.025 for i in range(42)], color=COLOURS[0])
    right.set_xlim(-1.05, 1.05)
    right.set_xlabel("matched − shuffled of a task")
    right.set_ylabel("tasks")
    caption = f"{split_name(split).capitalize()}: every dot is a task, bars are means; right, what the description adds"
    parts: list[Figure | Table] = [Figure("sensitivity", caption, figure), _table(entry, splits)]
    text = "The same hypernetwork and inputs under the right description, in two wordings, and under wrong ones."
    return Section("Sensitivity to descriptions", text, parts)


def _gains(entry: Entry, split: str) -> list[float]:
    own, other = entry.by_task(split), entry.by_task(split, "shuffled")
    return [score - other[task] for task, score in own.items() if task in other]


def _spread(axes, entry: Entry, split: str) -> None:
    wordings = [wording for wording in WORDING_NAMES if (split, wording) in entry.runs]
    for place, wording in enumerate(wordings):
        scores = sorted(entry.by_task(split, wording).values())
        # Side by side in order of size: equal scores, of which there are many, form a row rather than one dot.
        spread = [place + 0.7 * ((i + 0.5) / len(scores) - 0.5) for i in range(len(scores))]
        axes.plot(spread, scores, ".", markersize=3, color=COLOURS[0], alpha=0.6)
        axes.plot([place - 0.38, place + 0.38], [fmean(scores)] * 2, color="black", linewidth=1.5)
    axes.set_xticks(range(len(wordings)), [_SHORT.get(wording, "static") for wording in wordings])
    axes.grid(axis="x", visible=False)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("score of a task")


def _table(entry: Entry, splits: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for split in splits:
        gains = _gains(entry, split)
        helped = sum(gain > 0.5 for gain in gains) / len(gains)
        differences = [entry.difference(split, wording) for wording in ("seen", "shuffled")]
        rows.append([split_name(split), *differences, median(gains), helped])
    columns = ["split", "unseen − training wording", "matched − shuffled", "median over tasks", "share of tasks > .5"]
    return Table("sensitivity", "What changes with the text that makes the adapter", columns, rows)
