"""Accuracy and reconstruction error against how much smaller the hypernetwork is than the adapters it stands for."""

from collections.abc import Sequence

from t2l.evaluation.names import split_name
from t2l.evaluation.records import compression_ratio
from t2l.report.document import Cell, Figure, Section, Table
from t2l.report.merge import OBJECTIVES, VARIANTS, Entry, labels
from t2l.report.style import COLOURS, MARKERS, panels, ratio_axis, score_axis

ERROR = "reconstruction_error"
_SPLITS = ("seen", "held_out")


def ratio(entry: Entry) -> float | None:
    head = entry.head
    return compression_ratio(head.num_train_tasks, head.adapter_parameters, head.hypernet_parameters)


def compression(entries: Sequence[Entry]) -> Section | None:
    """None unless there are two ratios to compare."""
    found = {id(e): r for e in entries if e.head.method in ("t2l", "one_hot") and (r := ratio(e))}
    chosen = [entry for entry in entries if id(entry) in found]
    if len(set(found.values())) < 2:
        return None
    ratios = [found[id(entry)] for entry in chosen]
    errors = [_error(entry) for entry in chosen]
    quantities = [split for split in _SPLITS if any(split in entry.splits for entry in chosen)]
    quantities += [ERROR] if any(errors) else []
    figure, panes = panels(len(quantities), width=max(5, 3.4 * len(quantities)), height=3.8)
    for axes, quantity in zip(panes, quantities, strict=True):
        _scatter(axes, chosen, ratios, errors, quantity)
    handles, names = _legend(panes)
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    rows: list[list[Cell]] = [
        [name, e.head.num_train_tasks, e.head.hypernet_parameters, r, *(e.score(s) for s in _SPLITS), error]
        for e, name, r, error in zip(chosen, labels(chosen), ratios, errors, strict=True)
    ]
    columns = ["method", "training tasks", "trained parameters", "ratio", *map(split_name, _SPLITS), "error"]
    caption = "Compression ratio: parameters of one adapter for each training task / trained parameters"
    parts = [Figure("compression", caption, figure), Table("compression", caption, columns, rows)]
    return Section("Compression", "How much is lost when fewer parameters stand for more adapters?", parts)


def _error(entry: Entry) -> float | None:
    """Mean over seeds, from whichever records have it."""
    errors = [record.scores[ERROR] for records in entry.runs.values() for record in records if ERROR in record.scores]
    return sum(errors) / len(errors) if errors else None


def _scatter(axes, entries: Sequence[Entry], ratios: Sequence[float], errors: Sequence[float | None], quantity: str):
    variants, objectives = [*VARIANTS, "None"], [*OBJECTIVES, "None"]
    for entry, x, error in zip(entries, ratios, errors, strict=True):
        score = entry.score(quantity)
        y, margin = (error, None) if quantity == ERROR else (score and score.mean, score and score.margin)
        if y is None:
            continue
        variant, objective = str(entry.head.variant), str(entry.head.objective)
        axes.errorbar(
            x, y, yerr=margin, label=f"{variant}, {OBJECTIVES.get(objective, objective)}", capsize=2, linestyle="none",
            marker=MARKERS[variants.index(variant)], color=COLOURS[objectives.index(objective)],
        )  # fmt: skip
    ratio_axis(axes, "adapter parameters stored\n/ hypernetwork parameters")
    axes.set_xlim(min(ratios) / 1.5, max(ratios) * 1.5)
    if quantity == ERROR:
        axes.set_ylabel("reconstruction error")
        axes.set_ylim(bottom=0)
    else:
        score_axis(axes, f"score on {split_name(quantity)}")


def _legend(panes) -> tuple[list, list[str]]:
    """Each kind of point once."""
    unique = {name: handle for axes in panes for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    return list(unique.values()), list(unique)
