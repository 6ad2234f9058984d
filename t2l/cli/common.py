"""What commands share: the app, errors as sentences, tables."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t2l.errors import CheckpointError, T2LError
from t2l.hub import LOCAL_DIR_HELP, use_local_dir

if TYPE_CHECKING:
    from t2l.text_to_lora import TextToLora

app = typer.Typer(
    help="Describe a task, get a LoRA that does it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Checkpoint = Annotated[
    str | None,
    typer.Option(
        help="T2L checkpoint: its folder, or its address (s3://...); the packaged one if left out.", show_default=False
    ),
]
LocalDir = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, callback=use_local_dir, help=f"A {LOCAL_DIR_HELP}.", show_default=False),
]
"""Takes effect as it is read: commands that load models or data sets have only to name it."""
Force = Annotated[bool, typer.Option("--force", help="Replace adapters that are there already.")]


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """What a user can mend ends in one red sentence and exit code 1; bugs keep their traceback."""
    try:
        yield
    except (T2LError, OSError) as error:
        from rich.console import Console
        from rich.text import Text

        Console(stderr=True).print(Text(f"error: {error}", style="red"), soft_wrap=True)
        raise typer.Exit(1) from None


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"t2l {version_of('t2l')}")
        raise typer.Exit


@app.callback()
def t2l(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop.")
    ] = False,
) -> None:
    """Describe a task, get a LoRA that does it."""


def check_replaceable(folder: Path, force: bool) -> None:
    """Raise CheckpointError if writing to this folder would destroy something that --force does not cover."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise CheckpointError(f"{folder} already exists: choose another folder, or replace it with --force")
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder} is no adapter folder: --force replaces only those, so choose another folder")


def load(checkpoint: str | None) -> "TextToLora":
    from transformers.utils import logging

    from t2l.cli.watched import WatchedTextToLora

    logging.disable_progress_bar()
    return WatchedTextToLora.open(checkpoint)


def print_table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: a user's brackets are no markup
    Console().print(table)
