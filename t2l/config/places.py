"""Folders: absolute ones, as workers may have another working directory than whoever starts a run; and addresses of an
object store (s3://, gs://), see t2l/storage.py."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

PACKAGED = ("embedded", "minilm")
"""Names of models that come with t2l, whatever folders there are."""


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def _absolute_folder(name: str) -> str:
    is_folder = name not in PACKAGED and os.path.isdir(os.path.expanduser(name))
    return _absolute(name) if is_folder else name


LocalPath = Annotated[str, AfterValidator(_absolute)]
"""Or empty."""
FolderOrUrl = Annotated[str, AfterValidator(lambda place: place if is_url(place) else _absolute(place))]
NameOrFolder = Annotated[str, AfterValidator(_absolute_folder)]
"""What is no folder here is a name, on the hub."""


def is_url(place: str) -> bool:
    return "://" in place


def local_folder(place: str) -> Path:
    """A folder itself, or where an address's content is kept on this machine: below T2L_CACHE, else ~/.cache/t2l."""
    if not is_url(place):
        return Path(place)
    return Path(os.environ.get("T2L_CACHE", "~/.cache/t2l")).expanduser() / place.replace("://", "/")
