"""`t2l import`: a checkpoint of the paper's authors as one of ours."""

from pathlib import Path
from typing import Annotated

import typer

from t2l.cli.common import LocalDir, app, errors_as_sentences, print_table


@app.command("import")
@errors_as_sentences()
def import_(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of hypermod.pt, args.yaml and adapter_config.json.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The checkpoint's folder.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings other than args.yaml's, such as base.path=/models/mistral or encoder.model=/models/gte.",
            show_default=False,
        ),
    ] = None,
    local_dir: LocalDir = None,
) -> None:
    """Write a released Text-to-LoRA checkpoint as a t2l checkpoint, for --checkpoint of the other commands."""
    from t2l.interop.upstream import import_upstream

    config = import_upstream(folder, output, overrides or ())
    reads = "last token of the base model" if config.encoder.kinds == ("llm",) else config.encoder.model
    lora, hypernet = config.lora, config.hypernet
    print_table(
        f"imported into {output}",
        ["what", "value"],
        [
            ["hypernetwork", f"{hypernet.variant}, latent {hypernet.latent_size}, heads {hypernet.head_input_size}"],
            ["adapters", f"rank {lora.rank}, {', '.join(lora.target_modules)}"],
            ["base model", config.base.path],
            ["text encoder", reads],
        ],
    )
