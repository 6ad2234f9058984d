"""`t2l blend`: one adapter that does a weighted sum of what several descriptions ask for."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

from t2l.cli.common import Checkpoint, Force, LocalDir, app, check_replaceable, errors_as_sentences, load, print_table

_WEIGHTS = "--weights"


class _ManyWeights(TyperCommand):
    """Takes `--weights .7 .3`: click wants the option's name before each value."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        spread: list[str] = []
        following = False
        for arg in args:
            following = arg == _WEIGHTS or (following and _is_number(arg))
            if arg != _WEIGHTS:
                spread.append(f"{_WEIGHTS}={arg}" if following else arg)
        return super().parse_args(ctx, spread)


@app.command(cls=_ManyWeights)
@errors_as_sentences()
def blend(
    descriptions: Annotated[list[str], typer.Argument(help="Descriptions of tasks.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The adapter's folder.", show_default=False)],
    weights: Annotated[
        list[float] | None,
        typer.Option(_WEIGHTS, help="One for each description, such as --weights .7 .3; equal shares if left out."),
    ] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Compress to this rank; left out, all ranks are kept: exact.")
    ] = None,
    checkpoint: Checkpoint = None,
    local_dir: LocalDir = None,
    force: Force = False,
) -> None:
    """Write the weighted sum of several descriptions' adapters as one PEFT folder with a card."""
    check_replaceable(output, force)
    from t2l.interop import blend as arithmetic

    shares = weights or [1 / len(descriptions)] * len(descriptions)
    made = load(checkpoint).generate(descriptions)
    blended, error = arithmetic.blend(made.weights, shares), 0.0
    if rank is not None:
        blended, error = arithmetic.compress(blended, rank)
    recipe = "\n".join(f"{share:g} × {text}" for share, text in zip(shares, descriptions, strict=True))
    note = f"A weighted sum of {len(descriptions)} generated adapters; relative error of its change {error:.3g}."
    adapter = replace(made[0], weights=blended, description=recipe, note=note)
    adapter.save_pretrained(output, overwrite=output.exists())
    print_table(
        f"1 adapter of rank {blended.spec.rank} in {output}, relative error {error:.3g}",
        ["weight", "description"],
        [[f"{share:g}", text] for share, text in zip(shares, descriptions, strict=True)],
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
