"""`t2l run`: see an adapter at work."""

from typing import Annotated

import typer

from t2l.cli.common import Checkpoint, LocalDir, app, errors_as_sentences, load, print_table
from t2l.errors import DataError


@app.command()
@errors_as_sentences()
def run(
    description: Annotated[str, typer.Argument(help="What the model shall do.", show_default=False)],
    text: Annotated[str, typer.Argument(metavar="INPUT", help="What it shall do that to.", show_default=False)],
    checkpoint: Checkpoint = None,
    local_dir: LocalDir = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
) -> None:
    """Answer an input with the base model and with the adapter of a description, side by side."""
    if not text.strip():
        raise DataError("the input is empty: give the text that the model shall do it to")
    model = load(checkpoint)
    [adapted] = model.run([description], [text], max_new_tokens=max_new_tokens)
    [base] = model.run([description], [text], adapted=False, max_new_tokens=max_new_tokens)
    print_table(None, ["input", "base model", "with adapter"], [[text, base, adapted]])
