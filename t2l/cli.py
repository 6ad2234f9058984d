"""The `t2l` command. Thin: torch and transformers are imported by the commands that need them, so help is instant."""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t2l.errors import CheckpointError, DescriptionError, T2LError

if TYPE_CHECKING:
    from t2l.text_to_lora import TextToLora

app = typer.Typer(
    help="Describe a task, get a LoRA that does it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
STDIN = "-"

Checkpoint = Annotated[
    Path | None, typer.Option(help="T2L checkpoint folder; the packaged one if left out.", show_default=False)
]


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


@app.callback()
def t2l() -> None:
    """Describe a task, get a LoRA that does it."""


@app.command()
@errors_as_sentences()
def generate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="One description: the adapter's folder; several: their parent.")
    ],
    descriptions: Annotated[
        list[str] | None, typer.Argument(help="Descriptions of tasks; - reads them from stdin.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Text file of one description a line.", show_default=False)
    ] = None,
    checkpoint: Checkpoint = None,
    force: Annotated[bool, typer.Option("--force", help="Replace adapters that are there already.")] = False,
) -> None:
    """Write a LoRA for each description as a PEFT folder with a card."""
    folders = _folders(_read_descriptions(descriptions or [], file), output)
    for folder in folders.values():
        _check_replaceable(folder, force)
    model = _load(checkpoint)
    start = time.perf_counter()
    adapters = model.generate(list(folders))
    seconds = time.perf_counter() - start
    for adapter, folder in zip(adapters, folders.values(), strict=True):
        adapter.save_pretrained(folder, overwrite=folder.exists())
    number = "1 adapter" if len(folders) == 1 else f"{len(folders)} adapters"
    _print_table(
        f"{number} of {model.base.spec.num_parameters:,} parameters, generated in {seconds:.2f} s",
        ["description", "adapter"],
        [[description, str(folder)] for description, folder in folders.items()],
    )


@app.command()
@errors_as_sentences()
def run(
    description: Annotated[str, typer.Argument(help="What the model shall do.", show_default=False)],
    text: Annotated[str, typer.Argument(metavar="INPUT", help="What it shall do that to.", show_default=False)],
    checkpoint: Checkpoint = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
) -> None:
    """Answer an input with the base model and with the adapter of a description, side by side."""
    model = _load(checkpoint)
    [adapted] = model.run([description], [text], max_new_tokens=max_new_tokens)
    [base] = model.run([description], [text], adapted=False, max_new_tokens=max_new_tokens)
    _print_table(None, ["input", "base model", "with adapter"], [[text, base, adapted]])


def _read_descriptions(given: Sequence[str], file: Path | None) -> list[str]:
    """Arguments, then the file's lines. Raises DescriptionError if there are none."""
    found: list[str] = []
    for text in given:
        found += _lines(sys.stdin.read()) if text == STDIN else [text]
    if file is not None:
        found += _lines(sys.stdin.read() if str(file) == STDIN else _read_text(file))
    if not found:
        raise DescriptionError("there is no description: give one as an argument, in a --file, or on stdin with -")
    return found


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _read_text(file: Path) -> str:
    if not file.is_file():
        raise DescriptionError(f"the file {file} does not exist: give a file of one description a line")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DescriptionError(f"{file} is no UTF-8 text: give a file of one description a line") from None


def _folders(descriptions: Sequence[str], output: Path) -> dict[str, Path]:
    """Description -> folder: `output` for one, else one in it for each. Raises DescriptionError for an unusable one."""
    from t2l.text.normalize import text_digest

    distinct: dict[str, str] = {}
    for text in descriptions:
        distinct.setdefault(text_digest(text), text)
    if len(distinct) == 1:
        return dict.fromkeys(distinct.values(), output)
    return {text: output / f"{_slug(text)}-{digest[:8]}" for digest, text in distinct.items()}


def _slug(text: str) -> str:
    """The first words, as a file name can hold them."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-") or "adapter"


def _check_replaceable(folder: Path, force: bool) -> None:
    """Raise CheckpointError if writing to this folder would destroy something that --force does not cover."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise CheckpointError(f"{folder} already exists: choose another folder, or replace it with --force")
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder} is no adapter folder: --force replaces only those, so choose another folder")


def _load(checkpoint: Path | None) -> "TextToLora":
    from transformers.utils import logging

    from t2l import TextToLora

    logging.disable_progress_bar()
    return TextToLora.from_pretrained(checkpoint)


def _print_table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # Text: a user's brackets are no markup
    Console().print(table)


if __name__ == "__main__":
    app()
