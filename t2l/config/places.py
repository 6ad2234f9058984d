"""Folders that may be addresses of an object store (s3://, gs://), see t2l/storage.py."""

import os
from pathlib import Path


def is_url(place: str) -> bool:
    return "://" in place


def local_folder(place: str) -> Path:
    """A folder itself, or where an address's content is kept on this machine: below T2L_CACHE, else ~/.cache/t2l."""
    if not is_url(place):
        return Path(place)
    return Path(os.environ.get("T2L_CACHE", "~/.cache/t2l")).expanduser() / place.replace("://", "/")
