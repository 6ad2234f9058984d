"""Records as a table for people."""

from collections.abc import Sequence

from rich.table import Table

from t2l.evaluation.records import Record

LABELS = {
    "base": "base, no definition",
    "definition": "base, definition in the prompt",
    "few_shot": "base, 3 examples",
    "few_shot_definition": "base, definition and 3 examples",
    "oracle": "the task's own LoRA",
    "average": "average of the tasks' LoRAs",
    "nearest": "LoRA of the nearest task",
    "arrow": "Arrow routing",
    "t2l": "T2L",
    "refined": "T2L, refined by 8 examples",
    "multitask": "one LoRA for all tasks",
    "hyperdecoder": "hyperdecoder",
    "one_hot": "one-hot T2L",
}
WORDINGS = {
    "seen": "training wording",
    "unseen": "unseen wording",
    "shuffled": "another task's description",
    "junk": "junk text",
    "static": "mean adapter",
}


def score_table(records: Sequence[Record], title: str = "score, ± 95 % over tasks") -> Table:
    """One row a method and wording, one column a split."""
    splits = list(dict.fromkeys(record.split for record in records))
    cells = {(_row(record), record.split): f"{record.score:.3f} ± {record.margin_95:.3f}" for record in records}
    table = Table(title=title)
    table.add_column("method")
    for split in splits:
        questions = max(record.num_questions for record in records if record.split == split)
        table.add_column(f"{split.replace('_', ' ')}\n({questions:,} inputs)", justify="right")
    for row in dict.fromkeys(map(_row, records)):
        table.add_row(_label(*row), *(cells.get((row, split), "–") for split in splits))
    return table


def _row(record: Record) -> tuple[str, str, str | None, int | None]:
    return record.method, record.name, record.wording, record.seed


def _label(method: str, name: str, wording: str | None, seed: int | None) -> str:
    parts = [LABELS[method], *([WORDINGS[wording]] if wording else [])]
    run = f" [{name}{'' if not seed else f', seed {seed}'}]" if name else ""
    return ", ".join(parts) + run.replace("[", "\\[")
