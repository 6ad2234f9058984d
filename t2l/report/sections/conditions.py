"""Seen and held-out tasks side by side, for every method and for T2L under every wording."""

from collections.abc import Sequence

from t2l.evaluation.names import WORDING_NAMES, split_name, wording_name
from t2l.report.document import Figure, Section
from t2l.report.merge import Entry, Estimate, labels
from t2l.report.style import COLOURS, panels

_SHOWN = ("seen", "held_out")


def leading(entries: Sequence[Entry]) -> Entry | None:
    """The T2L entry that figures of a single one show: most seeds, then wordings, then training tasks; the largest."""
    described = [entry for entry in entries if entry.head.method == "t2l"]
    return max(described, key=_evidence, default=None)


def _evidence(entry: Entry) -> tuple[int, ...]:
    seeds = max(len(records) for records in entry.runs.values())
    return seeds, len(entry.runs), entry.head.num_train_tasks or 0, entry.head.hypernet_parameters or 0


def conditions(entries: Sequence[Entry]) -> Section | None:
    """None without any score on seen or held-out tasks."""
    splits = [split for split in _SHOWN if any(split in entry.splits for entry in entries)]
    shown = _representatives(entries)
    lead = leading(shown)
    bars = _bars(shown, lead, splits)
    if not bars:
        return None
    figure, [axes] = panels(1, height=0.8 + 0.33 * len(bars))
    thickness = 0.8 / len(splits)
    for number, split in enumerate(splits):
        found = [(row, score) for row, scores in enumerate(bars.values()) if (score := scores[split])]
        places = [row + (number - (len(splits) - 1) / 2) * thickness for row, _ in found]
        _draw(axes, places, [score for _, score in found], thickness, COLOURS[number], split_name(split))
    axes.set_yticks(range(len(bars)), list(bars))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.12)
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xlabel("score (mean over tasks)")
    figure.legend(loc="outside upper right", ncols=2)
    caption = "Scores on seen and held-out tasks; lines are 95 % intervals"
    text = f"{labels(shown)[shown.index(lead)]} is shown under every wording." if lead else ""
    return Section("Conditions", text, [Figure("conditions", caption, figure)])


def _representatives(entries: Sequence[Entry]) -> list[Entry]:
    """One entry a method, variant, objective and encoder; what a sweep varies besides is left to the other figures."""
    groups: dict[tuple[str | None, ...], list[Entry]] = {}
    for entry in entries:
        head = entry.head
        groups.setdefault((head.method, head.variant, head.objective, head.encoder), []).append(entry)
    return [max(group, key=_evidence) for group in groups.values()]


def _bars(entries: Sequence[Entry], lead: Entry | None, splits: Sequence[str]) -> dict[str, dict[str, Estimate | None]]:
    """Label -> split -> score; the leading entry has a bar for every wording."""
    bars: dict[str, dict[str, Estimate | None]] = {}
    for entry, name in zip(entries, labels(entries), strict=True):
        if entry is lead:
            for wording in [w for w in WORDING_NAMES if any(entry.score(split, w) for split in splits)]:
                bars[f"{name}: {wording_name(wording)}"] = {s: entry.score(s, wording) for s in splits}
        else:
            bars[name] = {split: entry.score(split) for split in splits}
    return {name: scores for name, scores in bars.items() if any(scores.values())}


def _draw(axes, places: Sequence[float], scores: Sequence[Estimate], thickness: float, colour: str, name: str) -> None:
    """Bars of one split with their intervals, cut to [0, 1], and their values."""
    lows = [min(score.margin, score.mean) for score in scores]
    highs = [min(score.margin, 1 - score.mean) for score in scores]
    means, line = [score.mean for score in scores], {"elinewidth": 0.8, "ecolor": "#333333"}
    axes.barh(places, means, thickness, xerr=[lows, highs], color=colour, label=name, error_kw=line)
    for place, score, high in zip(places, scores, highs, strict=True):
        axes.text(score.mean + high + 0.01, place, f"{score.mean:.3f}", va="center", fontsize=7)
