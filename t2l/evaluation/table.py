"""Records as a table for people."""

from collections.abc import Sequence

from rich.table import Table

from t2l.evaluation.names import METHOD_NAMES, split_name, wording_name
from t2l.evaluation.records import Record


def score_table(records: Sequence[Record], title: str = "score, ± 95 % over tasks") -> Table:
    """One row a method and wording, one column a split."""
    splits = list(dict.fromkeys(record.split for record in records))
    cells = {(_row(record), record.split): f"{record.score:.3f} ± {record.margin_95:.3f}" for record in records}
    table = Table(title=title)
    table.add_column("method")
    for split in splits:
        questions = max(record.num_questions for record in records if record.split == split)
        table.add_column(f"{split_name(split)}\n({questions:,} inputs)", justify="right")
    for row in dict.fromkeys(map(_row, records)):
        table.add_row(_label(*row), *(cells.get((row, split), "–") for split in splits))
    return table


def _row(record: Record) -> tuple[str, str, str | None, int | None]:
    return record.method, record.name, record.wording, record.seed


def _label(method: str, name: str, wording: str | None, seed: int | None) -> str:
    parts = [METHOD_NAMES[method], *([wording_name(wording)] if wording else [])]
    run = f" [{name}{'' if not seed else f', seed {seed}'}]" if name else ""
    return ", ".join(parts) + run.replace("[", "\\[")
