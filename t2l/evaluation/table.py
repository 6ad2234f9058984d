"""Scores as a table for people and as JSON for programs."""

import json
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from t2l.evaluation.suite import Score

Results = Mapping[str, Mapping[str, Score]]

LABELS = {
    "base": "base, no definition",
    "definition": "base, definition in the prompt",
    "definition_seen": "base, definition (training wording)",
    "t2l_seen": "T2L, training wording",
    "t2l": "T2L, unseen wording",
    "shuffled": "T2L, another task's description",
    "junk": "T2L, junk text",
}


def score_table(results: Results, title: str = "exact match") -> Table:
    """One row a condition, one column a split."""
    table = Table(title=title)
    table.add_column("condition")
    for split, scores in results.items():
        questions = max(score.num_questions for score in scores.values())
        table.add_column(f"{split.replace('_', ' ')}\n({questions:,} inputs)", justify="right")
    for condition in next(iter(results.values())):
        cells = [f"{scores[condition].exact_match:.3f}" for scores in results.values()]
        table.add_row(LABELS.get(condition, condition), *cells, style="bold" if condition == "t2l" else None)
    return table


def accuracies(results: Results) -> dict[str, dict[str, float]]:
    """split -> condition -> exact match."""
    return {split: {name: score.exact_match for name, score in scores.items()} for split, scores in results.items()}


def details(results: Results) -> dict[str, dict[str, dict[str, object]]]:
    """split -> condition -> all figures, by task too."""
    return {
        split: {
            name: {
                "exact_match": score.exact_match,
                "margin_95": score.margin,
                "rouge_l": score.rouge_l,
                "num_questions": score.num_questions,
                "by_task": score.by_task,
            }
            for name, score in scores.items()
        }
        for split, scores in results.items()
    }


def write_json(path: Path, data: object) -> None:
    """Complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    fresh.rename(path)
