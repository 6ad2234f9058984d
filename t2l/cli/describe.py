"""`t2l describe`: a language model writes descriptions of a task from its examples."""

import os
from pathlib import Path
from typing import Annotated

import typer

from t2l.cli.common import app, errors_as_sentences


@app.command()
@errors_as_sentences()
def describe(
    examples: Annotated[Path, typer.Argument(help='JSON Lines of {"input": ..., "output": ...}.', show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Text file of one description a line; what it holds is kept.")
    ],
    model: Annotated[str, typer.Option(help="The model to ask.", show_default=False)],
    number: Annotated[int, typer.Option("--number", "-n", min=1, help="Descriptions, those it holds included.")] = 200,
    base_url: Annotated[
        str | None, typer.Option(help="Endpoint of OpenAI's API; OpenAI's own if left out.", show_default=False)
    ] = None,
) -> None:
    """Write descriptions of a task for T2L to learn from; the endpoint's key is in OPENAI_API_KEY, if it needs one."""
    from openai import OpenAI

    from t2l.describe import describe, endpoint
    from t2l.files import write_text
    from t2l.tasks.examples import read_examples

    few = read_examples(examples)
    known = (
        [line for line in output.read_text(encoding="utf-8").splitlines() if line.strip()] if output.exists() else []
    )
    client = OpenAI(base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY") or "none")
    for progress in describe(endpoint(client, model), few, known, number):
        write_text(output, "".join(f"{text}\n" for text in progress.descriptions))
        typer.echo(progress)
    typer.echo(f"{max(number, len(known))} descriptions: {output}")
