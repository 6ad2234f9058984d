"""`t2l push`: an adapter or a checkpoint, with its card, onto a hub."""

from pathlib import Path
from typing import Annotated

import typer

from t2l.cli.common import app, errors_as_sentences, print_table


@app.command()
@errors_as_sentences()
def push(
    folder: Annotated[Path, typer.Argument(help="Adapter or checkpoint folder.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="Repository on the hub, as owner/name.", show_default=False)],
    public: Annotated[bool, typer.Option("--public", help="Let everybody see a repository that is new.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be pushed.")] = False,
) -> None:
    """Commit a folder's files to a repository on the Hugging Face hub, or on the one that HF_ENDPOINT names."""
    from t2l.interop.push import check_repo, operations
    from t2l.interop.push import push as push_folder

    if dry_run:
        check_repo(repo)
        rows = [[file.path_in_repo, f"{file.upload_info.size:,}"] for file in operations(folder)]
        print_table(f"would be pushed to {repo} ({'public' if public else 'private'})", ["file", "bytes"], rows)
    else:
        typer.echo(push_folder(folder, repo, private=not public))
