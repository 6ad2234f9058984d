"""`t2l report`: tables and figures of result files."""

from pathlib import Path
from typing import Annotated

import typer

from t2l.cli.common import LocalDir, app, errors_as_sentences


@app.command()
@errors_as_sentences()
def report(
    results: Annotated[list[Path], typer.Argument(help="Result files of jobs/evaluate.py.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report; its files are replaced.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Adds steering, cost of a first answer, map of tasks of this T2L.", show_default=False),
    ] = None,
    local_dir: LocalDir = None,
    title: Annotated[str, typer.Option(help="Heading.")] = "T2L evaluation",
) -> None:
    """Make Markdown, HTML, figures and CSV tables of what evaluations measured."""
    from t2l.report.build import build_report

    sections = build_report(results, output, title, checkpoint)
    parts = sum(len(section.parts) for section in sections)
    typer.echo(f"{len(sections)} sections, {parts} tables and figures: {output / 'report.html'}")
