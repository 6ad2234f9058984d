"""Accuracy against the number of training tasks, one line a variant, objective and budget."""

from collections import Counter
from collections.abc import Sequence

from t2l.report.document import Cell, Figure, Section, Table
from t2l.report.merge import OBJECTIVES, Entry
from t2l.report.style import COLOURS, GREY, MARKERS, panels, score_axis

SPLIT = "held_out"
_VARIED = {"num_train_tasks", "hypernet_parameters", "adapter_parameters", "training_steps"}
_NAME_HEIGHT = 0.04
_REFERENCES = {"base": "base", "multitask": "multi-task LoRA", "definition": "definition", "oracle": "oracle LoRA"}

Line = list[Entry]


def scaling(entries: Sequence[Entry]) -> Section | None:
    """None unless one kind of T2L was trained on at least two numbers of tasks."""
    lines = _lines(entries)
    if not lines:
        return None
    figure, [axes] = panels(1, width=6.5, height=4)
    rows: list[list[Cell]] = []
    for number, (name, line) in enumerate(lines.items()):
        scores = [score for entry in line if (score := entry.score(SPLIT))]
        counts = [entry.head.num_train_tasks or 0 for entry in line]
        axes.errorbar(
            counts, [s.mean for s in scores], yerr=[s.margin for s in scores], label=name, capsize=2,
            color=COLOURS[number % len(COLOURS)], marker=MARKERS[number % len(MARKERS)], markersize=5, linewidth=1.3,
        )  # fmt: skip
        rows += [[name, n, e.head.training_steps, s] for n, e, s in zip(counts, line, scores, strict=True)]
    _references(entries, axes)
    ticks = sorted({count for line in lines.values() for entry in line if (count := entry.head.num_train_tasks)})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training tasks")
    score_axis(axes, "score on held-out tasks")
    axes.legend(loc="best")
    caption = "Held-out tasks, unseen wording, against the number of training tasks (logarithmic); 95 % intervals"
    table = Table("scaling", caption, ["T2L", "training tasks", "steps", "score"], rows)
    text = "Does the score on held-out tasks grow with the number of training tasks?"
    return Section("Number of training tasks", text, [Figure("scaling", caption, figure), table])


def _references(entries: Sequence[Entry], axes) -> None:
    """Dashed levels of methods that need no such training; those too close for two names share one."""
    known = [e for e in entries if e.head.method in _REFERENCES]
    levels = sorted((score.mean, _REFERENCES[e.head.method]) for e in known if (score := e.score(SPLIT)))
    place, names = -1.0, ""
    for level, name in levels:
        axes.axhline(level, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
        is_near = level - place < _NAME_HEIGHT
        place, names = (place, f"{names}, {name}") if is_near else (level, name)
        if is_near:
            axes.texts[-1].remove()
        axes.text(1.01, place, names, transform=axes.get_yaxis_transform(), va="center", color="#666666", fontsize=8)


def _lines(entries: Sequence[Entry]) -> dict[str, Line]:
    """Name -> entries by number of tasks; those that differ in anything else are on different lines."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.head.method == "t2l" and entry.head.num_train_tasks and entry.score(SPLIT):
            groups.setdefault(str(entry.head.model_dump(exclude=_VARIED)), []).append(entry)
    lines: dict[str, Line] = {}
    for group in groups.values():
        for budget, line in _budgets(sorted(group, key=lambda entry: entry.head.num_train_tasks or 0)).items():
            if len({entry.head.num_train_tasks for entry in line}) > 1:
                lines[_free(_name(line[0], budget), lines)] = line
    return lines


def _budgets(group: Line) -> dict[str, Line]:
    """One line, or, if a number of tasks occurs twice, those of equal steps and those of equal steps a task."""
    if len({entry.head.num_train_tasks for entry in group}) == len(group):
        return {"": group}
    [(steps, _)] = Counter(entry.head.training_steps for entry in group).most_common(1)
    [(share, _)] = Counter(map(_steps_per_task, group)).most_common(1)
    return {
        f"{steps:,} steps": [entry for entry in group if entry.head.training_steps == steps],
        "steps grow with tasks": [entry for entry in group if _steps_per_task(entry) == share],
    }


def _steps_per_task(entry: Entry) -> float:
    return round((entry.head.training_steps or 0) / (entry.head.num_train_tasks or 1), 3)


def _name(entry: Entry, budget: str) -> str:
    head = entry.head
    return ", ".join(filter(None, [head.variant, OBJECTIVES.get(head.objective or "", head.objective), budget]))


def _free(name: str, taken: dict[str, Line]) -> str:
    number = sum(known == name or known.startswith(f"{name} #") for known in taken)
    return f"{name} #{number + 1}" if number else name
