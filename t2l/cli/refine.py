"""`t2l refine`: a generated adapter, trained further on a handful of examples."""

import time
from pathlib import Path
from typing import Annotated

import typer

from t2l.cli.common import Checkpoint, Force, LocalDir, app, check_replaceable, errors_as_sentences, load, print_table


@app.command()
@errors_as_sentences()
def refine(
    description: Annotated[str, typer.Argument(help="What the model shall do.", show_default=False)],
    examples: Annotated[
        Path,
        typer.Option("--examples", "-e", help='JSON Lines of {"input": ..., "output": ...}.', show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The adapter's folder.", show_default=False)],
    steps: Annotated[int, typer.Option(min=1, help="Steps of training.")] = 100,
    checkpoint: Checkpoint = None,
    local_dir: LocalDir = None,
    force: Force = False,
) -> None:
    """Write the LoRA of a description, fine-tuned with a few examples, as a PEFT folder with a card."""
    check_replaceable(output, force)
    from t2l.tasks.examples import read_examples

    few = read_examples(examples)
    model = load(checkpoint)
    start = time.perf_counter()
    adapter = model.refine(description, few, steps)
    seconds = time.perf_counter() - start
    adapter.save_pretrained(output, overwrite=output.exists())
    print_table(
        f"1 adapter, refined with {len(few)} examples in {seconds:.1f} s",
        ["description", "adapter"],
        [[description, str(output)]],
    )
