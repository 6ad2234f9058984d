"""`t2l generate`: descriptions in, PEFT folders out."""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t2l.cli.common import Checkpoint, Force, LocalDir, app, check_replaceable, errors_as_sentences, load, print_table
from t2l.errors import DescriptionError

if TYPE_CHECKING:
    from t2l.text_to_lora import GeneratedAdapters, TextToLora

STDIN = "-"


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
    merge: Annotated[bool, typer.Option("--merge", help="Write the base model with the LoRA merged in.")] = False,
    checkpoint: Checkpoint = None,
    local_dir: LocalDir = None,
    force: Force = False,
) -> None:
    """Write a LoRA for each description as a PEFT folder with a card, or merged into the base model."""
    folders = _folders(_read_descriptions(descriptions or [], file), output)
    for folder in folders.values():
        check_replaceable(folder, force)
    model = load(checkpoint)
    start = time.perf_counter()
    adapters = model.generate(list(folders))
    seconds = time.perf_counter() - start
    if merge:
        _write_merged(model, adapters, list(folders.values()))
    else:
        for adapter, folder in zip(adapters, folders.values(), strict=True):
            adapter.save_pretrained(folder, overwrite=folder.exists())
    number = "1 adapter" if len(folders) == 1 else f"{len(folders)} adapters"
    print_table(
        f"{number} of {model.base.spec.num_parameters:,} parameters, generated in {seconds:.2f} s",
        ["description", "merged model" if merge else "adapter"],
        [[description, str(folder)] for description, folder in folders.items()],
    )


def _write_merged(model: "TextToLora", adapters: "GeneratedAdapters", folders: Sequence[Path]) -> None:
    from t2l.interop.merge import save_merged

    base = model.base.released()
    for adapter, folder in zip(adapters, folders, strict=True):
        save_merged(folder, base, model.tokenizer, adapter, overwrite=folder.exists())


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
        wrong = "is a folder" if file.is_dir() else "does not exist"
        raise DescriptionError(f"{file} {wrong}: give a file of one description a line")
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
