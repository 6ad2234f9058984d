"""What a report is made of, and how it is written: Markdown, one self-contained HTML page, PNG figures, CSV tables."""

import base64
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from t2l.report.merge import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """`name` is the CSV file's; `shown`: how many rows the pages show, the CSV file always has all."""

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    shown: int | None = None

    @property
    def texts(self) -> list[list[str]]:
        """The rows that the pages show."""
        return [[text(cell) for cell in row] for row in self.rows[: self.shown]]

    @property
    def note(self) -> str:
        hidden = len(self.rows) - len(self.texts)
        return f"{hidden} more rows in tables/{self.name}.csv" if hidden else ""


@dataclass(frozen=True)
class Figure:
    """`name` is the PNG file's."""

    name: str
    caption: str
    drawing: "Drawing"


@dataclass(frozen=True)
class Section:
    title: str
    text: str
    parts: Sequence[Table | Figure] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


def text(cell: Cell) -> str:
    """A cell as people read it."""
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def write_report(folder: Path, title: str, sections: Sequence[Section]) -> None:
    """report.md, report.html, figures/*.png and tables/*.csv; what is there already is replaced."""
    for name in ("figures", "tables"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for section in sections:
        for part in section.parts:
            if isinstance(part, Figure):
                part.drawing.savefig(folder / "figures" / f"{part.name}.png", dpi=150)
            else:
                _write_csv(folder / "tables" / f"{part.name}.csv", part)
    (folder / "report.md").write_text(_markdown(title, sections), encoding="utf-8")
    (folder / "report.html").write_text(_html(folder, title, sections), encoding="utf-8")


def _write_csv(path: Path, table: Table) -> None:
    """Full precision; a column with intervals is followed by one of their margins."""
    wide = [any(isinstance(row[i], Estimate) for row in table.rows) for i in range(len(table.columns))]
    headers = [[name, f"{name} margin_95"][: 1 + own] for name, own in zip(table.columns, wide, strict=True)]
    rows = [[_values(cell, own) for cell, own in zip(row, wide, strict=True)] for row in table.rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(list(chain.from_iterable(row)) for row in [headers, *rows])


def _values(cell: Cell, with_margin: bool) -> list[Cell]:
    if isinstance(cell, Estimate):
        return [cell.mean, cell.margin]
    return [cell, None] if with_margin else [cell]


def _markdown(title: str, sections: Sequence[Section]) -> str:
    blocks = [f"# {title}"]
    for section in sections:
        blocks += [f"## {section.title}", section.text]
        for part in section.parts:
            blocks.append(_markdown_table(part) if isinstance(part, Table) else _markdown_figure(part))
    return "\n\n".join(filter(None, blocks)) + "\n"


def _markdown_table(table: Table) -> str:
    lines = [list(table.columns), ["---"] * len(table.columns), *table.texts]
    rows = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    note = f"\n\n{table.note}" if table.note else ""
    return f"**{table.caption}**\n\n" + "\n".join(rows) + note


def _markdown_figure(figure: Figure) -> str:
    return f"![{figure.caption}](figures/{figure.name}.png)\n\n*{figure.caption}*"


def _html(folder: Path, title: str, sections: Sequence[Section]) -> str:
    from jinja2 import Environment

    def png(figure: Figure) -> str:
        data = (folder / "figures" / f"{figure.name}.png").read_bytes()
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"

    source = files("t2l.report").joinpath("page.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    return template.render(title=title, sections=sections, png=png, is_figure=lambda part: isinstance(part, Figure))
