"""`t2l decontaminate`: what training tasks share with those that a run is tested on."""

from pathlib import Path
from typing import Annotated

import typer

from t2l.cli.common import app, errors_as_sentences, print_table

_SHOWN = 80
"""Characters of what two tasks share."""


@app.command()
@errors_as_sentences()
def decontaminate(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="Settings over the file's, such as data.path=mine.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of a run's settings; its data are checked.", show_default=False)
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another one, whose test tasks are checked too.", show_default=False)
    ] = None,
) -> None:
    """List training tasks that share texts with test tasks; exit code 1 if there are any."""
    from rich.console import Console
    from rich.progress import track

    from t2l.config import load_config
    from t2l.data.suite import build_suite
    from t2l.tasks.overlap import RUN, SHORTEST, overlaps

    suite = build_suite(load_config(config, overrides or []).data)
    others = [] if against is None else [build_suite(load_config(against).data)]
    held_out = [task for known in (suite, *others) for split in (known.test, *known.extra.values()) for task in split]
    for note in (note for known in (suite, *others) for note in known.notes):
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"comparing {len(suite.train):,} training tasks with {len(held_out):,} test tasks", err=True)
    shown = track(suite.train, "comparing", console=Console(stderr=True), transient=True)
    found = overlaps(shown, held_out)
    typer.echo(f"overlapping pairs of {len(suite.train):,} training and {len(held_out):,} test tasks: {len(found):,}")
    if not found:
        return
    rows = [
        [
            one.train,
            one.held_out,
            f"{len(one.examples):,} of {one.num_examples:,}",
            f"{one.likeness:.2f}" if one.likeness else "–",
            one.sample if len(one.sample) <= _SHOWN else f"{one.sample[:_SHOWN]} …",
        ]
        for one in found
    ]
    shared = f"examples that share {RUN} words, or a whole text of {SHORTEST} or more"
    columns = ["training task", "test task", shared, "alike descriptions", "such as"]
    print_table(None, columns, rows)
    raise typer.Exit(1)
